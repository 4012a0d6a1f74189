"""Ask a server from a program (the library), and the `uppercase` command.

The client stands beside the servers on the same core and never imports them. Names load on first
use: the command must not pay for Twisted, which the library is made of and the command is not.
"""
