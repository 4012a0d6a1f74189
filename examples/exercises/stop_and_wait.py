"""A reference solution of `stop-and-wait`: numbers against late replies, checksums against flips.

The checksum is of the upper-cased text, so that it holds for the request and for its reply.
"""

import os
import sys
from socket import AF_INET, SOCK_DGRAM, socket
from zlib import crc32

SERVER = (
    os.environ.get("UPPERCASE_HOST", "127.0.0.1"),
    int(os.environ.get("UPPERCASE_PORT", "12000")),
)
TIMEOUT = 1.0


def pack(number: int, text: bytes) -> bytes:
    """Return a message: its checksum, its number, its text."""
    body = b"%d %s" % (number, text)
    return b"%d %s" % (crc32(body.upper()), body)


def unpack(reply: bytes, number: int) -> bytes | None:
    """Return the text of a reply, None if it was harmed or belongs to another message."""
    checksum, _, body = reply.partition(b" ")
    if checksum != b"%d" % crc32(body):
        return None
    answered, _, text = body.partition(b" ")
    return text if answered == b"%d" % number else None


with socket(AF_INET, SOCK_DGRAM) as client:
    client.settimeout(TIMEOUT)
    client.connect(SERVER)
    for number, line in enumerate(sys.stdin):
        text = None
        client.send(pack(number, line.strip().encode()))
        while text is None:
            try:
                text = unpack(client.recv(65535), number)
            except TimeoutError:
                client.send(pack(number, line.strip().encode()))
        print(text.decode())
