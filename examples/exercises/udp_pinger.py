"""A reference solution of `udp-pinger`: a reply counts for the ping whose number it has."""

import os
import time
from socket import AF_INET, SOCK_DGRAM, socket

SERVER = (
    os.environ.get("UPPERCASE_HOST", "127.0.0.1"),
    int(os.environ.get("UPPERCASE_PORT", "12000")),
)
PINGS = 10

lost = 0
with socket(AF_INET, SOCK_DGRAM) as client:
    client.connect(SERVER)
    for number in range(1, PINGS + 1):
        begin = time.monotonic()
        client.send(f"ping {number}".encode())
        try:
            while (left := begin + 1 - time.monotonic()) > 0:
                client.settimeout(left)
                if client.recv(65535) == f"PING {number}".encode():
                    print(f"ping {number}: {(time.monotonic() - begin) * 1000:.1f} ms")
                    break
            else:
                raise TimeoutError
        except TimeoutError:
            print(f"ping {number}: request timed out")
            lost += 1
print(f"{100 * lost / PINGS:.0f} % loss")
