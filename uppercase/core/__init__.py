"""What the services do, without any I/O: conversations, datagrams, framing, guards, values.

Nothing in here imports Twisted, opens a socket or holds a timer; the shells (`uppercase.tcp`,
`uppercase.udp`) bring bytes and time.
"""
