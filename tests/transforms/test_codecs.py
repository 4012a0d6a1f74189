"""Base64 and hexadecimal, both ways, at every cut."""

import base64
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.costs import here, spent
from uppercase.transforms.codecs import Base64Decode, Base64Encode, HexDecode, hex_encode

WHITE_SPACE = b" \t\n\r\v\f"


class ByteStream(Protocol):
    def feed(self, data: bytes) -> bytes: ...
    def finish(self) -> bytes: ...


def stream(codec: type[ByteStream], *chunks: bytes) -> bytes:
    """Return all output of one stream for these chunks."""
    opened = codec()
    return b"".join([*map(opened.feed, chunks), opened.finish()])


def outcome(codec: type[ByteStream], chunks: list[bytes]) -> tuple[bytes, str]:
    """Return the output of a stream up to its fault, and the fault's text."""
    opened = codec()
    output = b""
    try:
        for chunk in chunks:
            output += opened.feed(chunk)
        output += opened.finish()
    except ValueError as fault:
        return output, str(fault)
    return output, ""


def single_bytes(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", b""),
        (b"f", b"Zg=="),
        (b"fo", b"Zm8="),
        (b"foo", b"Zm9v"),
        (b"foob", b"Zm9vYg=="),
        (b"fooba", b"Zm9vYmE="),
        (b"foobar", b"Zm9vYmFy"),
        (b"\xfb\xff", b"+/8="),
    ],
)
def test_base64_is_that_of_rfc_4648(data: bytes, text: bytes) -> None:
    assert stream(Base64Encode, data) == text
    assert stream(Base64Decode, text) == data


@given(st.lists(st.binary()))
def test_base64_encodes_the_same_at_any_cut(chunks: list[bytes]) -> None:
    """Padding comes at the end only."""
    assert stream(Base64Encode, *chunks) == base64.b64encode(b"".join(chunks))


@given(st.binary(), st.data())
def test_decoding_gives_back_what_was_encoded(data: bytes, draws: st.DataObject) -> None:
    for codec, text in ((Base64Decode, base64.b64encode(data)), (HexDecode, hex_encode(data))):
        chunks = single_bytes(text)
        for at in draws.draw(st.lists(st.integers(0, len(chunks)), max_size=5)):
            chunks.insert(at, draws.draw(st.text(WHITE_SPACE.decode(), max_size=3)).encode())
        assert stream(codec, *chunks) == stream(codec, b"".join(chunks)) == data


def test_base64_wrapped_into_lines_is_decoded() -> None:
    data = bytes(range(256)) * 3
    assert stream(Base64Decode, base64.encodebytes(data)) == data
    assert stream(Base64Decode, base64.encodebytes(data).replace(b"\n", b"\r\n")) == data


def test_texts_that_were_encoded_one_by_one_are_decoded_one_after_another() -> None:
    texts = [b"a", b"bc", b"def", b"", b"ghij"]
    encoded = b"\n".join(map(base64.b64encode, texts)) + b"IQ==IQ=="
    assert stream(Base64Decode, encoded) == b"abcdefghij!!"
    assert stream(Base64Decode, *single_bytes(encoded)) == b"abcdefghij!!"


def test_hexadecimal_is_written_in_lower_case_and_read_in_either() -> None:
    assert hex_encode(b"\x00Jk\xff") == b"004a6bff"
    assert stream(HexDecode, b"00 4a 6B\r\nfF") == b"\x00Jk\xff"


FAULTS = [
    (Base64Decode, b"aGVs!", b"hel", "got byte 0x21 (!) at offset 4: base64 is made of"),
    (Base64Decode, b"aGVs \n a\xc3", b"hel", "got byte 0xc3 at offset 8: base64 is made of"),
    (Base64Decode, b"aGVs-_aa", b"hel", "got byte 0x2d (-) at offset 4: base64 is made of"),
    (Base64Decode, b"\x00", b"", "got byte 0x00 at offset 0: base64 is made of"),
    (Base64Decode, b"=", b"", "got byte 0x3d (=) at offset 0: padding stands after 2 or 3"),
    (Base64Decode, b"Q=", b"", "got byte 0x3d (=) at offset 1: padding stands after 2 or 3"),
    (Base64Decode, b"QQ===", b"A", "got byte 0x3d (=) at offset 4: padding stands after 2 or 3"),
    (Base64Decode, b"QQ= Q", b"", "got byte 0x51 (Q) at offset 4: a second = must follow"),
    (Base64Decode, b"QR==", b"", "got byte 0x3d (=) at offset 2: the bits of 0x52 (R) that"),
    (Base64Decode, b"QUJDQUF=", b"ABC", "got byte 0x3d (=) at offset 7: the bits of 0x46 (F)"),
    (Base64Decode, b"QUJDQ", b"ABC", "got an end at offset 5 after 'Q': base64 comes in groups"),
    (Base64Decode, b"QQ", b"", "got an end at offset 2 after 'QQ': base64 comes in groups"),
    (Base64Decode, b"QQ= \n", b"", "got an end at offset 5 after 'QQ=': base64 comes in groups"),
    (HexDecode, b"68 69 6z", b"hi", "got byte 0x7a (z) at offset 7: hexadecimal is made of"),
    (HexDecode, b"6869-70", b"hi", "got byte 0x2d (-) at offset 4: hexadecimal is made of"),
    (HexDecode, b"0x41", b"", "got byte 0x78 (x) at offset 1: hexadecimal is made of"),
    (HexDecode, b"68697\n", b"hi", "got an end at offset 6 after '7': hexadecimal needs two"),
]


@pytest.mark.parametrize(("codec", "text", "output", "fault"), FAULTS)
def test_a_fault_is_named_with_its_place_after_all_output_before_it(
    codec: type[ByteStream], text: bytes, output: bytes, fault: str
) -> None:
    for chunks in ([text], single_bytes(text), [text[:2], text[2:]], [text[:5], b"", text[5:]]):
        decoded, sentence = outcome(codec, chunks)
        assert decoded == output
        assert sentence.startswith(fault)


@given(
    st.lists(
        st.binary(max_size=3)
        | st.sampled_from([b"QQ==", b"QUI=", b"QUJD", b"=", b"\n", b"61", b"A", b"R"])
    )
)
def test_output_and_fault_are_the_same_at_any_cut(chunks: list[bytes]) -> None:
    text = b"".join(chunks)
    for codec in (Base64Decode, HexDecode):
        assert outcome(codec, chunks) == outcome(codec, [text])
        assert outcome(codec, single_bytes(text)) == outcome(codec, [text])


def test_a_fault_is_raised_at_once_where_no_output_is_lost_by_it() -> None:
    with pytest.raises(ValueError, match="offset 0"):
        Base64Decode().feed(b"?")
    opened = Base64Decode()
    assert opened.feed(b"aGVs?") == b"hel"
    for _ in range(2):
        with pytest.raises(ValueError, match="offset 4"):
            opened.feed(b"aGVs")
    with pytest.raises(ValueError, match="offset 4"):
        opened.finish()


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        (Base64Encode, b"abcd"),
        (Base64Decode, b"QUJD"),
        (Base64Decode, b"QQ=="),
        (Base64Decode, b"    "),
        (HexDecode, b"4142"),
        (HexDecode, b"    "),
    ],
)
def test_codecs_cost_linear_time(codec: type[ByteStream], text: bytes) -> None:
    """64 KiB take well under a second even one byte at a time."""
    text *= 65536 // len(text)
    streamed: list[bytes] = []
    assert spent(lambda: streamed.append(stream(codec, *single_bytes(text)))) < here(2)
    assert streamed == [stream(codec, text)]
