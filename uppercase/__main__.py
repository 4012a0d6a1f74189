"""`python -m uppercase` is the `uppercase` command."""

import sys

from uppercase.client.cli import main

sys.exit(main())
