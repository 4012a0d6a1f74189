"""What the command's tests share: the client's fixtures."""

from tests.client.conftest import _ports, both_families

__all__ = ["_ports", "both_families"]
