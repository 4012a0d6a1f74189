"""`python -m uppercase` is the `uppercase` command."""

import sys

from uppercase.commands import main

sys.exit(main())
