"""A reference solution of `udp-server`: whole datagrams, and bytes that need not be text."""

import os
from socket import AF_INET, SOCK_DGRAM, socket

with socket(AF_INET, SOCK_DGRAM) as server:
    server.bind(("127.0.0.1", int(os.environ.get("UPPERCASE_PORT", "12000"))))
    while True:
        message, client = server.recvfrom(65535)
        server.sendto(message.upper(), client)
