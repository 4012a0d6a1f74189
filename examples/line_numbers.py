import re

from uppercase import stream_transform


@stream_transform(name="line-numbers")
class LineNumbers:
    """Put a number before each line."""

    def __init__(self, *, first: int = 1) -> None:
        self.number = first
        self.in_line = False

    def feed(self, text: str) -> str:
        return re.sub(r"[^\n]*\n|[^\n]+", self.numbered, text)

    def finish(self) -> str:
        return ""

    def numbered(self, line: re.Match[str]) -> str:
        before = "" if self.in_line else f"{self.number} "
        self.in_line = not line[0].endswith("\n")
        self.number += not self.in_line
        return before + line[0]
