"""Where cables go: what each URL means, its one spelling, and the sentence for what makes no sense."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipnd.cables.url import (
    MAX_REMOTES,
    CableUrl,
    PathUrl,
    SshUrl,
    UdpUrl,
    VxlanUrl,
    parse,
    parse_ssh,
    parse_udp,
    parse_vxlan,
)

MEANINGS: list[tuple[str, CableUrl]] = [
    ("/tmp/net", PathUrl("/tmp/net")),
    ("vxlan://10.0.0.2?vni=7", VxlanUrl(("10.0.0.2",), 7)),
    ("vxlan://10.0.0.2,10.0.0.3?vni=7", VxlanUrl(("10.0.0.2", "10.0.0.3"), 7)),
    ("vxlan://10.0.0.2?vni=7&remote=b.example&remote=[fd00::3]", VxlanUrl(("10.0.0.2", "b.example", "fd00::3"), 7)),
    ("vxlan://?remote=10.0.0.2&vni=0", VxlanUrl(("10.0.0.2",), 0)),
    ("vxlan://[fd00::2],[fd00::3]?vni=16777215", VxlanUrl(("fd00::2", "fd00::3"), 16777215)),
    ("vxlan://a?vni=7&port=8472&local=10.0.0.1&ttl=3", VxlanUrl(("a",), 7, 8472, "10.0.0.1", 3)),
    ("vxlan://[fe80::2%25eth0]?vni=7", VxlanUrl(("fe80::2%eth0",), 7)),
    ("udp://10.0.0.2:5000", UdpUrl("10.0.0.2", 5000, "", 5000)),
    ("udp://host:5000?local=:5001", UdpUrl("host", 5000, "", 5001)),
    ("udp://[::1]:5000?local=[fd00::1]:5001", UdpUrl("::1", 5000, "fd00::1", 5001)),
    ("udp://127.0.0.2:5000?local=127.0.0.1", UdpUrl("127.0.0.2", 5000, "127.0.0.1", 5000)),
    ("ssh://host/run/net", SshUrl("host", "/run/net")),
    ("ssh://me@host:2222/run/my%20net", SshUrl("host", "/run/my net", "me", 2222)),
    ("ssh://[fd00::1]:22/net", SshUrl("fd00::1", "/net", "", 22)),
    ("ssh://host/?plug=vde_plug%20/tmp/vde.ctl", SshUrl("host", "/", plug="vde_plug /tmp/vde.ctl")),
    ("ssh://host?plug=a%26b", SshUrl("host", "/", plug="a&b")),
]

SPELLINGS = [
    ("vxlan://10.0.0.2?port=4789&vni=7", "vxlan://10.0.0.2?vni=7"),
    ("vxlan://10.0.0.2,10.0.0.2?vni=07&remote=10.0.0.3", "vxlan://10.0.0.2,10.0.0.3?vni=7"),
    ("vxlan://[FD00:0::2]/?vni=7&local=[::]", "vxlan://[fd00::2]?vni=7"),
    ("vxlan://[::ffff:10.0.0.2]?vni=7&ttl=9", "vxlan://10.0.0.2?vni=7&ttl=9"),
    ("udp://10.0.0.2:5000?local=0.0.0.0:5000", "udp://10.0.0.2:5000"),
    ("udp://10.0.0.2:5000?local=10.0.0.1", "udp://10.0.0.2:5000?local=10.0.0.1:5000"),
    ("ssh://host?plug=a%20b", "ssh://host/?plug=a%20b"),
]

REFUSALS = [
    ("net", "absolute path"),
    ("", "absolute path"),
    ("/a\0b", "absolute path"),
    ("tcp://host", "ssh://, vxlan://, udp://"),
    ("vxlan://10.0.0.2", "add ?vni="),
    ("vxlan://?vni=7", "1 to 128 remotes"),
    (f"vxlan://{','.join(f'h{n}' for n in range(MAX_REMOTES + 1))}?vni=7", "1 to 128 remotes"),
    ("vxlan://10.0.0.2,?vni=7", "neither a host's name nor an address"),
    ("vxlan://10.0.0.256?vni=7", "neither a host's name nor an address"),
    ("vxlan://-a?vni=7", "neither a host's name nor an address"),
    (f"vxlan://{'a' * 64}?vni=7", "neither a host's name nor an address"),
    (f"vxlan://{'a.' * 127}aa?vni=7", "neither a host's name nor an address"),
    ("vxlan://[10.0.0.2]?vni=7", "brackets"),
    ("vxlan://239.0.0.1?vni=7", "one by one"),
    ("vxlan://[ff05::1]?vni=7", "one by one"),
    ("vxlan://0.0.0.0?vni=7", "one by one"),
    ("vxlan://255.255.255.255?vni=7", "one by one"),
    ("vxlan://a?vni=16777216", "from 0 to 16777215"),
    ("vxlan://a?vni=-1", "from 0 to 16777215"),
    ("vxlan://a?vni=٧", "from 0 to 16777215"),
    ("vxlan://a?vni=7&port=0", "from 1 to 65535"),
    ("vxlan://a?vni=7&ttl=256", "from 1 to 255"),
    ("vxlan://a?vni=7&vni=8", "vni twice"),
    ("vxlan://a?vni=", "no value"),
    ("vxlan://a?vni=7&", "the option ''"),
    ("vxlan://a?vni=7&mtu=9", "vni, remote, port, local, ttl"),
    ("vxlan://a?vni=7&local=host", "an address of this machine"),
    ("vxlan://10.0.0.2?vni=7&local=[fd00::1]", "one is IPv4"),
    ("vxlan://a?vni=7#x", "%23"),
    ("vxlan://a?vni=7\n", "no URL has"),
    ("udp://host", "names no port"),
    ("udp://:5000", "neither a host's name nor an address"),
    ("udp://host:", "from 1 to 65535"),
    ("udp://host:99999", "from 1 to 65535"),
    ("udp://fd00::1:5000", "in brackets"),
    ("udp://[fd00::1]:5000?local=10.0.0.1:5000", "one is IPv6"),
    ("ssh://host", "names no network"),
    ("ssh://host/", "names no network"),
    ("ssh://-oProxyCommand=x/net", "neither a host's name nor an address"),
    ("ssh://-x@host/net", "no name of a user"),
    ("ssh://%2dx@host/net", "no name of a user"),
    ("ssh:///net", "neither a host's name nor an address"),
    ("ssh://host/net%0a", "cannot be printed"),
    ("ssh://host/net?plug=a%00", "cannot be printed"),
]


@pytest.mark.parametrize("address, meaning", MEANINGS, ids=[address for address, _ in MEANINGS])
def test_an_address_means_what_it_says(address: str, meaning: CableUrl) -> None:
    assert parse(address) == meaning


@pytest.mark.parametrize("address, spelling", SPELLINGS)
def test_two_spellings_of_one_cable_are_the_same(address: str, spelling: str) -> None:
    assert str(parse(address)) == spelling


@pytest.mark.parametrize("address, words", REFUSALS, ids=[address[:40] for address, _ in REFUSALS])
def test_what_makes_no_sense_is_refused_with_a_sentence(address: str, words: str) -> None:
    with pytest.raises(OSError, match=re.escape(words)) as refusal:
        parse(address)
    assert refusal.value.errno == errno.EINVAL


READERS = {"/net": None, "vxlan://a?vni=7": parse_vxlan, "udp://a:1": parse_udp, "ssh://a/net": parse_ssh}


@pytest.mark.parametrize("reader", [parse_vxlan, parse_udp, parse_ssh])
@pytest.mark.parametrize("address", READERS)
def test_a_kind_of_cable_takes_only_its_own_urls(reader: Callable[[str], CableUrl], address: str) -> None:
    if READERS[address] is reader:
        assert str(reader(address)) == address
    else:
        with pytest.raises(OSError, match="is no") as refusal:
            reader(address)
        assert refusal.value.errno == errno.EINVAL


hosts = st.one_of(
    st.ip_addresses(network="10.0.0.0/8"),
    st.ip_addresses(network="2000::/3"),
    st.from_regex(r"[a-z][a-z0-9-]{0,20}[a-z](\.[a-z]{1,9}){0,3}", fullmatch=True),
).map(str)
ports = st.integers(1, 65535)
texts = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), max_size=30)
urls = st.one_of(
    st.builds(
        VxlanUrl, st.lists(hosts, min_size=1, max_size=9, unique=True).map(tuple), st.integers(0, (1 << 24) - 1), ports,
        ttl=st.integers(0, 255),
    ),
    st.builds(UdpUrl, hosts, ports, st.just(""), ports),
    st.builds(SshUrl, hosts, texts.map("/n{}".format), st.just("me"), st.integers(0, 65535), texts),
)


@given(urls)
def test_what_is_written_is_read_back(url: CableUrl) -> None:
    assert parse(str(url)) == url


noise = st.text("a.:/[]@?&=%7,-", max_size=20)
addresses = st.builds("{}://{}".format, st.sampled_from(["vxlan", "udp", "ssh"]), noise)


@given(st.one_of(st.text(max_size=60), addresses))
def test_anything_is_either_refused_or_read_and_then_stays_what_it_is(address: str) -> None:
    try:
        url = parse(address)
    except OSError as error:
        number = error.errno
    else:
        number, url_again = errno.EINVAL, parse(str(url))
        assert url_again == url
    assert number == errno.EINVAL
