"""The `uppercase` command, on top of the client library: a module or folder a sub-command."""
