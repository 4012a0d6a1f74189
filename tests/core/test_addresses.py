"""Where services listen, as people write it."""

import pytest

from uppercase.core.values import hosts_of, printable_address
from uppercase.errors import BadValue


@pytest.mark.parametrize(
    ("interfaces", "hosts"),
    [
        (["127.0.0.1"], ("127.0.0.1",)),
        (["::1"], ("::1",)),
        (["[::1]"], ("::1",)),
        (["localhost"], ("127.0.0.1", "::1")),
        (["*"], ("0.0.0.0", "::")),
        (["127.0.0.1", "localhost"], ("127.0.0.1", "::1")),
        ([], ()),
    ],
)
def test_interfaces_become_addresses_each_once(
    interfaces: list[str], hosts: tuple[str, ...]
) -> None:
    assert hosts_of(interfaces) == hosts


@pytest.mark.parametrize("interface", ["eth0", "example.org", "", "127.0.0", "12000"])
def test_what_is_no_address_is_refused(interface: str) -> None:
    with pytest.raises(BadValue, match="an interface is an IP address of this machine"):
        hosts_of([interface])


def test_addresses_are_printed_as_people_write_them() -> None:
    assert printable_address("127.0.0.1", 12000) == "127.0.0.1:12000"
    assert printable_address("::1", 12000) == "[::1]:12000"
