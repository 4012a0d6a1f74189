"""What the reference says of the built-in transforms is what they do."""

import doctest
import re
from pathlib import Path

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "transforms.md"


def test_every_example_in_the_reference_is_true() -> None:
    """The examples run in order, in one namespace, as a reader would type them."""
    blocks = re.findall(r"```pycon\n(.*?)```", REFERENCE.read_text("utf-8"), re.DOTALL)
    examples = doctest.DocTestParser().get_doctest(
        "\n".join(blocks), {}, "transforms.md", str(REFERENCE), 0
    )
    assert len(examples.examples) > 20
    report: list[str] = []
    doctest.DocTestRunner().run(examples, out=report.append)
    assert not report, "".join(report)
