"""The fuzz target itself, on what hypothesis finds: `make fuzz` runs it for longer."""

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.framers import check

PIECES = st.sampled_from(
    [b"5:hello,", b"0:,", b"64:", b"65:", b"\n", b"\r\n", b"\r", b"\0\5", b"\0\0\0\3", b"x" * 64]
)


@given(st.binary(max_size=1), st.lists(PIECES | st.binary(max_size=4), max_size=20))
def test_whole_input_and_byte_by_byte_agree(choice: bytes, pieces: list[bytes]) -> None:
    check(choice + b"".join(pieces))
