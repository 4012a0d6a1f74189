import sys
from socket import AF_INET, SOCK_DGRAM, socket

SERVER = ("127.0.0.1", 12000)

with socket(AF_INET, SOCK_DGRAM) as client:
    client.settimeout(0.5)
    for number, line in enumerate(sys.stdin):
        message = f"{number} {line.strip()}".encode()
        sent = 0
        while True:
            client.sendto(message, SERVER)
            sent += 1
            try:
                reply, _ = client.recvfrom(65535)
            except TimeoutError:
                continue
            answered, text = reply.decode().split(" ", 1)
            if int(answered) == number:
                break
        print(text, f"(sent {sent} times)")
