"""A reference solution of `tcp-client`: it ends its side and reads to the end of the other."""

import os
from socket import SHUT_WR, create_connection

HOST = os.environ.get("UPPERCASE_HOST", "127.0.0.1")
PORT = int(os.environ.get("UPPERCASE_PORT", "12000"))

sentence = input("Input lowercase sentence: ")
with create_connection((HOST, PORT), timeout=10) as client:
    client.sendall(sentence.encode())
    client.shutdown(SHUT_WR)
    reply = b""
    while chunk := client.recv(65536):
        reply += chunk
print("From server:", reply.decode())
