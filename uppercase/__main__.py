"""`python -m uppercase` is the `uppercase` command."""

import sys

from uppercase.commands.cli import main

sys.exit(main())
