"""Every bound of the framework as a named value, each with its reason.

Options and settings take their defaults from here; no other package writes such a number down.
Sizes are bytes and durations are seconds unless the name says otherwise. This package imports
nothing else of ours.
"""

from uppercase.limits.client import *
from uppercase.limits.shared import *
from uppercase.limits.tcp import *
from uppercase.limits.testing import *
from uppercase.limits.udp import *
