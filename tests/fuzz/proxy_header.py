"""Fuzzes the PROXY header's parser: `python -m tests.fuzz.proxy_header -max_total_time=60`.

Input in one piece and byte by byte must give the same header or the same refusal, and the only
error that comes out is our own. Needs `pip install atheris`.
"""

from tests.fuzz import run_atheris
from uppercase.core.proxy_header import V2_SIGNATURE, ProxyHeader, parse_proxy_header
from uppercase.errors import ProxyHeaderError

REFUSED = "refused"

STARTS = (
    b"",
    V2_SIGNATURE,
    V2_SIGNATURE + b"\x21\x11\x00",
    b"PROXY ",
    b"PROXY TCP4 192.0.2.7 ",
    b"PROXY TCP6 ::1 ",
)
"""What random bytes would hardly ever begin with."""


def outcome(data: bytes) -> ProxyHeader | str | None:
    """Parse the whole; give `refused` where the parser says so."""
    try:
        return parse_proxy_header(data)
    except ProxyHeaderError:
        return REFUSED


def outcome_bytewise(data: bytes) -> ProxyHeader | str | None:
    """Parse as a shell does that gets one byte at a time."""
    for end in range(1, len(data) + 1):
        found = outcome(data[:end])
        if found is not None:
            return found
    return None


def check(data: bytes) -> None:
    """Hold the parser to its law; the first byte chooses how the input begins."""
    text = STARTS[data[0] % len(STARTS)] + data[1:] if data else data
    whole, single = outcome(text), outcome_bytewise(text)
    assert whole == single, f"{text!r}: {whole} in one piece, {single} byte by byte"
    if isinstance(whole, ProxyHeader):
        assert whole.length <= len(text)


if __name__ == "__main__":
    run_atheris(check)
