"""A reference solution of `udp-client`: it does not wait forever."""

import os
import sys
from socket import AF_INET, SOCK_DGRAM, socket

SERVER = (
    os.environ.get("UPPERCASE_HOST", "127.0.0.1"),
    int(os.environ.get("UPPERCASE_PORT", "12000")),
)

message = input("Input lowercase sentence: ")
with socket(AF_INET, SOCK_DGRAM) as client:
    client.settimeout(2)
    client.connect(SERVER)
    client.send(message.encode())
    try:
        print(client.recv(65535).decode())
    except TimeoutError:
        sys.exit("no reply within two seconds")
