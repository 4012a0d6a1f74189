"""The second door: the entry-point group `uppercase.transforms`.

Listing reads the metadata of the installed distributions and imports nothing of them.
"""

from typing import Final

from uppercase.registry.references import ReferencedPlugin

__all__ = ["GROUP", "scan"]

GROUP: Final = "uppercase.transforms"


def scan() -> list[tuple[ReferencedPlugin, str]]:
    """Give the plugin of each entry point, with a description of where it comes from."""
    # Imported here: most uses of the registry end before this door, and it costs milliseconds.
    from importlib.metadata import entry_points

    return [
        (
            ReferencedPlugin(f"{point.module}:{point.attr}", name=point.name),
            f"entry point of {point.dist.name} {point.dist.version}" if point.dist else GROUP,
        )
        for point in entry_points(group=GROUP)
    ]
