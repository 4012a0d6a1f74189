import asyncio

from uppercase.testing import connect


async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.readline()).upper())
    writer.close()


async def relayed(data: bytes) -> bytes:
    async with asyncio.timeout(10), await asyncio.start_server(upper, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = connect(f"upstream:relay:port={port}", framing="line")
        connection.send(data)
        reply = b""
        while len(reply) < len(data):
            await asyncio.sleep(0.01)
            reply += connection.receive()
        return reply


def test_lines_are_relayed_in_order() -> None:
    assert asyncio.run(relayed(b"hello\nagain\n")) == b"HELLO\nAGAIN\n"
