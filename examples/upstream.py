import asyncio

from uppercase import transform


@transform
async def relay(message: bytes, *, port: int, host: str = "127.0.0.1") -> bytes:
    """Answer what another server answers to the same line."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(message + b"\n")
            return (await reader.readline()).removesuffix(b"\n")
        finally:
            writer.close()
