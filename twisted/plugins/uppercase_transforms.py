"""The built-in transforms: names and strings, no code.

Twisted imports every drop-in, or a cache of what each provides, whenever a command looks for
plugins. This one must not import anything of `uppercase`, not even an interface: the code behind a
name is imported when the name is used. `uppercase.registry` knows these objects by their interface.
"""

from dataclasses import dataclass, field
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import Attribute, implementer


class ITransformByName(IPlugin):
    """A transform whose code is named by a string."""

    name: str = Attribute("What users type.")
    reference: str = Attribute("Where its code is: `module:attribute`.")
    summary: str = Attribute("One line for a listing.")
    streaming: bool = Attribute("Whether a function there declares f(a + b) == f(a) + f(b).")
    ascii: str = Attribute("A faster function for pure ASCII, `module:attribute`, or an empty one.")


@implementer(ITransformByName)
@dataclass(frozen=True)
class TransformByName:
    """A transform whose code is named by a string."""

    name: str
    reference: str
    summary: str
    streaming: bool = field(default=False, kw_only=True)
    ascii: str = field(default="", kw_only=True)


def _text(name: str, attribute: str, summary: str, **more: Any) -> TransformByName:
    return TransformByName(name, f"uppercase.transforms.text:{attribute}", summary, **more)


def _codec(name: str, attribute: str, summary: str, **more: Any) -> TransformByName:
    return TransformByName(name, f"uppercase.transforms.codecs:{attribute}", summary, **more)


uppercase = _text(
    "uppercase",
    "uppercase",
    "Upper case of every letter, in every script",
    streaming=True,
    ascii="uppercase.transforms.text:ascii_uppercase",
)
lowercase = _text(
    "lowercase", "Lowercase", "Lower case of every letter, with the final sigma of Greek"
)
titlecase = _text(
    "titlecase", "Titlecase", "First letter of each word in title case, the others in lower case"
)
swapcase = _text("swapcase", "Swapcase", "Upper case to lower case and lower case to upper case")
casefold = _text(
    "casefold",
    "casefold",
    "Case folding: texts that differ in case alone become equal",
    streaming=True,
    ascii="uppercase.transforms.text:ascii_lowercase",
)
ascii_uppercase = _text(
    "ascii-uppercase",
    "ascii_uppercase",
    "Upper case of a to z; every other byte stays",
    streaming=True,
)
ascii_lowercase = _text(
    "ascii-lowercase",
    "ascii_lowercase",
    "Lower case of A to Z; every other byte stays",
    streaming=True,
)
identity = _text("identity", "identity", "Every byte as it came", streaming=True)
reverse = _text("reverse", "reverse", "The characters of a message in reverse order")
strip = _text("strip", "strip", "A message without white space at its ends")
squeeze = _text("squeeze", "squeeze", "A message with runs of white space made one")
normalize = _text("normalize", "normalize", "A message in a Unicode normalization form")
digest = _codec("digest", "digest", "The cryptographic digest of a message, in hex")
rot13 = _text("rot13", "rot13", "Letters shifted by 13", streaming=True)
caesar = _text("caesar", "caesar", "Letters shifted by a fixed distance", streaming=True)
base64_encode = _codec("base64-encode", "Base64Encode", "Base64 of the bytes (RFC 4648)")
base64_decode = _codec("base64-decode", "Base64Decode", "The bytes that Base64 stands for")
hex_encode = _codec(
    "hex-encode", "hex_encode", "Two hexadecimal digits for each byte", streaming=True
)
hex_decode = _codec("hex-decode", "HexDecode", "The bytes that hexadecimal digits stand for")
