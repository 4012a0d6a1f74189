"""The command lines of the twistd plugins: options in, a service out, nothing else."""

import os

from uppercase.taps._sockets import name_sockets

# Invariant: before anything imports Twisted's endpoints, which look for the sockets then, forget
# those that have no names, and clear the environment.
name_sockets(os.environ)
