"""Fuzz the PROXY header's parser: whole and byte by byte agree, and only our own error comes out.

pip install atheris
python fuzz/fuzz_proxy_header.py -max_total_time=60
"""

import sys

import atheris

with atheris.instrument_imports(include=["uppercase"]):
    from uppercase.errors import ProxyHeaderError
    from uppercase.proxy_header import V2_SIGNATURE, ProxyHeader, parse_proxy_header

REFUSED = "refused"


def parse(data: bytes) -> ProxyHeader | str | None:
    """Parse the start of a connection."""
    try:
        return parse_proxy_header(data)
    except ProxyHeaderError:
        return REFUSED


def one_input(data: bytes) -> None:
    """Try one input."""
    whole = parse(data)
    bytewise = None
    for end in range(1, len(data) + 1):
        bytewise = parse(data[:end])
        if bytewise is not None:
            break
    if whole != bytewise:
        raise AssertionError(f"{data!r}: {whole} whole, {bytewise} byte by byte")
    if isinstance(whole, ProxyHeader) and whole.length > len(data):
        raise AssertionError(f"{data!r}: a header longer than the input")


STARTS = (
    b"",
    V2_SIGNATURE,
    V2_SIGNATURE + b"\x21\x11\x00",
    b"PROXY ",
    b"PROXY TCP4 192.0.2.7 ",
    b"PROXY TCP6 ::1 ",
)
"""What random bytes would hardly ever begin with."""


def fuzzed(data: bytes) -> None:
    """Try one input; its first byte chooses how it really begins."""
    one_input(STARTS[data[0] % len(STARTS)] + data[1:] if data else data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzzed)
    atheris.Fuzz()
