"""The built-in transforms: names and strings, no code.

Twisted imports every drop-in, or a cache of what each provides, whenever a command looks for
plugins. This one must not import anything of `uppercase`, not even an interface: the code behind a
name is imported when the name is used. `uppercase.registry` knows these objects by their interface.
"""

from dataclasses import dataclass, field

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


uppercase = TransformByName(
    "uppercase",
    "uppercase.transforms.text:uppercase",
    "Upper case of every letter, in every script",
    streaming=True,
    ascii="uppercase.transforms.text:ascii_uppercase",
)
lowercase = TransformByName(
    "lowercase",
    "uppercase.transforms.text:Lowercase",
    "Lower case of every letter, with the final sigma of Greek",
)
titlecase = TransformByName(
    "titlecase",
    "uppercase.transforms.text:Titlecase",
    "First letter of each word in title case, the others in lower case",
)
swapcase = TransformByName(
    "swapcase",
    "uppercase.transforms.text:Swapcase",
    "Upper case to lower case and lower case to upper case",
)
casefold = TransformByName(
    "casefold",
    "uppercase.transforms.text:casefold",
    "Case folding: texts that differ in case alone become equal",
    streaming=True,
    ascii="uppercase.transforms.text:ascii_lowercase",
)
ascii_uppercase = TransformByName(
    "ascii-uppercase",
    "uppercase.transforms.text:ascii_uppercase",
    "Upper case of a to z; every other byte stays",
    streaming=True,
)
ascii_lowercase = TransformByName(
    "ascii-lowercase",
    "uppercase.transforms.text:ascii_lowercase",
    "Lower case of A to Z; every other byte stays",
    streaming=True,
)
identity = TransformByName(
    "identity",
    "uppercase.transforms.text:identity",
    "Every byte as it came",
    streaming=True,
)
reverse = TransformByName(
    "reverse", "uppercase.transforms.text:reverse", "The characters of a message in reverse order"
)
strip = TransformByName(
    "strip", "uppercase.transforms.text:strip", "A message without white space at its ends"
)
squeeze = TransformByName(
    "squeeze", "uppercase.transforms.text:squeeze", "A message with runs of white space made one"
)
normalize = TransformByName(
    "normalize", "uppercase.transforms.text:normalize", "A message in a Unicode normalization form"
)
digest = TransformByName(
    "digest", "uppercase.transforms.codecs:digest", "The cryptographic digest of a message, in hex"
)
rot13 = TransformByName(
    "rot13", "uppercase.transforms.text:rot13", "Letters shifted by 13", streaming=True
)
caesar = TransformByName(
    "caesar",
    "uppercase.transforms.text:caesar",
    "Letters shifted by a fixed distance",
    streaming=True,
)
base64_encode = TransformByName(
    "base64-encode", "uppercase.transforms.codecs:Base64Encode", "Base64 of the bytes (RFC 4648)"
)
base64_decode = TransformByName(
    "base64-decode", "uppercase.transforms.codecs:Base64Decode", "The bytes that Base64 stands for"
)
hex_encode = TransformByName(
    "hex-encode",
    "uppercase.transforms.codecs:hex_encode",
    "Two hexadecimal digits for each byte",
    streaming=True,
)
hex_decode = TransformByName(
    "hex-decode",
    "uppercase.transforms.codecs:HexDecode",
    "The bytes that hexadecimal digits stand for",
)
