"""All of Unicode's scalar values, for the tests that leave none out."""

from array import array

SCALARS = array("I", [*range(0xD800), *range(0xE000, 0x110000)]).tobytes().decode("utf-32-le")
"""In their order; those who import it pay for no list of a million strings."""
