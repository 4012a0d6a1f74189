"""Transforms as text, for people who ask what there is."""

from uppercase.registry.catalogue import Found, Listing

__all__ = ["describe", "describe_all"]


def describe_all(listing: Listing) -> str:
    """Return a line for each transform, then one for each that cannot be used and why."""
    width = max((len(name) for name in listing.transforms), default=0)
    lines = ["Transforms:"]
    lines += [f"  {name:<{width}}  {found.summary}" for name, found in listing.transforms.items()]
    if listing.problems:
        lines += ["", "Cannot be used:"]
        lines += [f"  {problem}" for problem in listing.problems]
    return "\n".join(lines)


def describe(found: Found) -> str:
    """Return one transform with its arguments and where it comes from.

    Raises:
        PluginError: its code cannot be loaded.
    """
    parameters = found.parameters
    usage = "".join(f":{parameter.name}=..." for parameter in parameters)
    streams = "streams" if found.streaming else "needs whole messages"
    lines = [
        f"{found.name}{usage}",
        f"  {found.summary}",
        f"  works on {found.kind.value}, {streams}; from {found.origin}",
    ]
    lines += [f"  {parameter.describe()}" for parameter in parameters]
    return "\n".join(lines)
