"""The second door: the entry-point group `uppercase.transforms`.

Listing reads the metadata of the installed distributions and imports nothing of them.
"""

from typing import Final

from uppercase.registry._checks import check
from uppercase.registry.problems import Problem
from uppercase.registry.references import ReferencedPlugin

__all__ = ["GROUP", "scan"]

GROUP: Final = "uppercase.transforms"


def scan() -> tuple[list[tuple[ReferencedPlugin, str]], list[Problem]]:
    """Return the plugin of each entry point, with its origin, and what is wrong with the others."""
    # Imported here: Twisted does not import it, and it costs milliseconds.
    from importlib.metadata import entry_points

    plugins, problems = [], []
    for point in entry_points(group=GROUP):
        plugin = ReferencedPlugin(f"{point.module}:{point.attr}", name=point.name)
        origin = f"entry point of {point.dist.name} {point.dist.version}" if point.dist else GROUP
        problem = check(plugin, f"{point.name} = {point.value}", origin)
        if problem is None:
            plugins.append((plugin, origin))
        else:
            problems.append(problem)
    return plugins, problems
