"""Values as people write them: durations, sizes, ports, probabilities, addresses, fields."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.costs import here, spent
from uppercase.core.values import (
    cannot_listen,
    hosts_of,
    parse_bound,
    parse_count,
    parse_duration,
    parse_factor,
    parse_limit,
    parse_port,
    parse_probability,
    parse_rate,
    parse_size,
    parse_timeout,
    printable_address,
    split_escaped,
    unescape,
    unmapped,
    up_to,
)
from uppercase.errors import BadValue


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("2s", 2.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("250us", 0.00025),
        ("1.5", 1.5),
        (".5s", 0.5),
        ("0", 0.0),
        (" 2S ", 2.0),
    ],
)
def test_a_duration_has_a_unit_or_is_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "-1", "soon", "5 parsecs", "1e3", "nan", "inf", "2ss", "9" * 400]
)
def test_a_duration_that_is_none_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(BadValue) as caught:
        parse_duration(text)
    assert str(caught.value).startswith(f"got {text!r}; a duration is")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("64k", 65536),
        ("64KiB", 65536),
        ("1M", 1048576),
        ("1g", 1 << 30),
        (" 1 ", 1),
    ],
)
def test_a_size_has_a_unit_of_1024_or_is_in_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5k", "64q", "0x10", "١", "9" * 5000])
def test_a_size_that_is_none_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(BadValue) as caught:
        parse_size(text)
    assert str(caught.value).startswith(f"got {text!r}; a size is")


@pytest.mark.parametrize(("text", "port"), [("0", 0), (" 12000 ", 12000), ("65535", 65535)])
def test_a_port_is_16_bits_wide(text: str, port: int) -> None:
    assert parse_port(text) == port


@pytest.mark.parametrize("text", ["65536", "-1", "http", "", "1.0"])
def test_a_port_that_is_none_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(BadValue, match="a port is a whole number from 0"):
        parse_port(text)


def test_a_probability_lies_between_0_and_1() -> None:
    assert [parse_probability(text) for text in ("0", "0.3", "1")] == [0.0, 0.3, 1.0]
    assert parse_probability("4/11") == 4 / 11
    for text in ("-0.1", "1.01", "30%", "nan", "", "12/11", "1/0", "1/", "0.5/1", "9" * 400 + "/1"):
        with pytest.raises(BadValue, match="a probability is a number from 0 to 1"):
            parse_probability(text)


def test_a_count_is_a_whole_number() -> None:
    assert parse_count("1000") == 1000
    for text in ("-1", "1k", "", "1.0"):
        with pytest.raises(BadValue, match="a whole number, 0 or more"):
            parse_count(text)
    with pytest.raises(BadValue, match="a whole number of at most 18 digits"):
        parse_count("1" * 19)


def test_a_limit_is_a_whole_number_above_0() -> None:
    assert parse_limit("1") == 1
    with pytest.raises(BadValue, match="got '0'; a whole number, 1 or more, is accepted"):
        parse_limit("0")


@pytest.mark.parametrize(
    ("interfaces", "hosts"),
    [
        (["127.0.0.1"], ("127.0.0.1",)),
        (["::1"], ("::1",)),
        (["[::1]"], ("::1",)),
        (["localhost"], ("127.0.0.1", "::1")),
        (["*"], ("0.0.0.0", "::")),
        (["127.0.0.1", "localhost"], ("127.0.0.1", "::1")),
        (["127.0.0.1", "*", "localhost"], ("0.0.0.0", "::")),
        (["127.0.0.1", "::1", "::"], ("127.0.0.1", "::")),
        (["::1", "0:0:0:0:0:0:0:1", "FE80::1%lo"], ("::1", "fe80::1%lo")),
        (["::ffff:127.0.0.1"], ("127.0.0.1",)),
        ([], ()),
    ],
)
def test_interfaces_become_addresses_each_once(
    interfaces: list[str], hosts: tuple[str, ...]
) -> None:
    assert hosts_of(interfaces) == hosts


def test_a_time_out_and_a_bound_are_never_0() -> None:
    assert (parse_timeout("1ms"), parse_bound("1")) == (0.001, 1)
    with pytest.raises(BadValue, match="got '0'; a time-out is longer than 0"):
        parse_timeout("0")
    with pytest.raises(BadValue, match="got '0k'; a bound is 1 byte or more"):
        parse_bound("0k")


def test_a_bound_that_is_given_is_accepted_itself() -> None:
    parse = up_to(parse_count, 5, "there are no more")
    assert parse("5") == 5
    with pytest.raises(BadValue, match="got '6'; at most 5 is accepted: there are no more"):
        parse("6")


def test_a_factor_is_1_or_more() -> None:
    assert [parse_factor(text) for text in ("1", "2.5")] == [1.0, 2.5]
    for text in ("0.9", "inf", "nan", "", "x"):
        with pytest.raises(BadValue, match=f"got '{text}'; a factor is a number"):
            parse_factor(text)


def test_a_rate_is_above_0_and_may_have_a_burst() -> None:
    assert [parse_rate(text) for text in ("0.5", "200:400", "2:0")] == [
        (0.5, 0),
        (200, 400),
        (2, 0),
    ]
    for text in ("0", "-1", "inf", "x", "1:x", "1:-1", "1:inf", "1:"):
        with pytest.raises(BadValue, match=f"got '{text}'; a rate is datagrams a second"):
            parse_rate(text)


@pytest.mark.parametrize(
    ("host", "plain"),
    [("::ffff:192.0.2.1", "192.0.2.1"), ("::FFFF:c000:201", "192.0.2.1"), ("::ffff:1", "::ffff:1")],
)
def test_an_ipv4_address_has_one_spelling(host: str, plain: str) -> None:
    assert unmapped(host) == plain


@pytest.mark.parametrize(
    "interface", ["224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:224.0.0.1", "::ffff:ffff:ffff"]
)
def test_an_address_of_many_machines_is_refused_however_it_is_written(interface: str) -> None:
    with pytest.raises(BadValue, match="which stands for many machines"):
        hosts_of([interface])


@pytest.mark.parametrize("interface", ["eth0", "example.org", "", "127.0.0", "12000"])
def test_what_is_no_address_is_refused(interface: str) -> None:
    with pytest.raises(BadValue, match="an interface is an IP address of this machine"):
        hosts_of([interface])


def test_addresses_are_printed_as_people_write_them() -> None:
    assert printable_address("127.0.0.1", 12000) == "127.0.0.1:12000"
    assert printable_address("::1", 12000) == "[::1]:12000"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_who_may_not_listen_is_told_where_he_may(number: int) -> None:
    refused = OSError(number, "")
    assert str(cannot_listen("TCP", "127.0.0.1:80", refused)) == (
        "cannot listen on TCP 127.0.0.1:80: permission denied; ports below 1024 need privileges, "
        "choose another one"
    )
    assert str(cannot_listen("UNIX", "/run/x", refused)) == (
        "cannot listen on UNIX /run/x: permission denied; choose a folder that you may write to"
    )


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", [""]),
        ("a:b::c", ["a", "b", "", "c"]),
        (r"a\:b:c", [r"a\:b", "c"]),
        (r"a\\:b", [r"a\\", "b"]),
        ("a:b\\", ["a", "b\\"]),
        ("a\\\nb:c", ["a\\\nb", "c"]),
    ],
)
def test_fields_end_at_colons_that_no_backslash_covers(text: str, fields: list[str]) -> None:
    assert split_escaped(text) == fields


@given(st.text(alphabet="ab:\\=\n"))
def test_fields_are_as_they_were_written(text: str) -> None:
    assert ":".join(split_escaped(text)) == text
    assert "=".join(split_escaped(text, "=")) == text


def test_a_long_value_is_split_in_linear_time() -> None:
    """A value of a file of services may have a mebibyte, which took ten seconds."""
    text = "caesar:shift=" + "3" * 300_000
    assert spent(lambda: split_escaped(text)) < here(0.4)


def test_a_backslash_covers_any_character_or_only_some() -> None:
    assert unescape(r"C\:\\dir\x") == r"C:\dirx"
    assert unescape(r"C\:\\dir\x", only=":\\") == r"C:\dir\x"
    assert unescape("end\\") == unescape("end\\", only=":\\") == "end\\"
