"""Where a cable goes, as people write it: a path, or a URL of the kind ssh, vxlan or udp. Pure.

``parse`` reads one and says in a sentence what is wrong with it; ``str`` of what it returns is the one way to write
it, so that two spellings of the same cable are known as one. Hosts are addresses or names; nothing is looked up here.
"""

from __future__ import annotations

import errno
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote, unquote

import attrs

VXLAN_PORT: Final = 4789
"""The port that IANA gave VXLAN (RFC 7348)."""
MAX_VNI: Final = (1 << 24) - 1
MAX_REMOTES: Final = 128
"""Remotes of a cable: what is meant for all goes out once for each."""
LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
NAME: Final = re.compile(rf"{LABEL}(?:\.{LABEL})*\.?")
MAX_NAME: Final = 253
"""Characters of a host's name (RFC 1035)."""
USER: Final = re.compile(r"[^\s@:/-][^\s@:/]*")

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Options = Mapping[str, list[str]]


def refused(text: str) -> OSError:
    """Return EINVAL with a sentence."""
    return OSError(errno.EINVAL, text)


@attrs.frozen
class PathUrl:
    """A network of the same daemon, by its absolute path."""

    path: str

    def __str__(self) -> str:
        return self.path


@attrs.frozen
class VxlanUrl:
    """Remote tunnel endpoints, and the VNI shared with them. ``local``: our address, "" for any; ``ttl``: 0 for the
    system's own.
    """

    remotes: tuple[str, ...]
    vni: int
    port: int = VXLAN_PORT
    local: str = ""
    ttl: int = 0

    def __str__(self) -> str:
        hosts = ",".join(_bracketed(host) for host in self.remotes)
        port = "" if self.port == VXLAN_PORT else f"&port={self.port}"
        local = f"&local={_bracketed(self.local)}" if self.local else ""
        return f"vxlan://{hosts}?vni={self.vni}{port}{local}" + (f"&ttl={self.ttl}" if self.ttl else "")


@attrs.frozen
class UdpUrl:
    """A host that takes bare frames in datagrams. ``local``: our address, "" for any; ``local_port``: our port."""

    host: str
    port: int
    local: str
    local_port: int

    def __str__(self) -> str:
        same = not self.local and self.local_port == self.port
        local = "" if same else f"?local={_bracketed(self.local)}:{self.local_port}"
        return f"udp://{_bracketed(self.host)}:{self.port}{local}"


@attrs.frozen
class SshUrl:
    """A network of another machine, or with ``plug`` a command there. ``user`` "" and ``port`` 0 leave it to ssh."""

    host: str
    path: str
    user: str = ""
    port: int = 0
    plug: str = ""

    def __str__(self) -> str:
        user = f"{quote(self.user)}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        plug = f"?plug={quote(self.plug, safe='/')}" if self.plug else ""
        return f"ssh://{user}{_bracketed(self.host)}{port}{quote(self.path)}{plug}"


CableUrl = PathUrl | VxlanUrl | UdpUrl | SshUrl


def parse(address: str) -> CableUrl:
    """Return what a cable's address says; EINVAL, with a sentence, when it makes no sense."""
    scheme, there, rest = address.partition("://")
    if not there:
        if not address.startswith("/") or "\0" in address:
            raise refused(f"a cable goes to the absolute path of a network or to a URL, not to {address!r}")
        return PathUrl(address)
    if scheme not in SCHEMES:
        raise refused(f"{address}: there are cables to {', '.join(f'{known}://' for known in SCHEMES)}, and to paths")
    reader, known = SCHEMES[scheme]
    if not address.isprintable() or "#" in address:
        raise refused(f"{address!r} has a # or a character that no URL has; write it as %23, or % and two digits")
    target, _, query = rest.partition("?")
    return reader(target, _options(address, query, known))


def parse_vxlan(address: str) -> VxlanUrl:
    """Return what a vxlan:// URL says; EINVAL for anything else."""
    url = parse(address)
    if not isinstance(url, VxlanUrl):
        raise refused(f"{address!r} is no vxlan://REMOTE?vni=N")
    return url


def parse_udp(address: str) -> UdpUrl:
    """Return what a udp:// URL says; EINVAL for anything else."""
    url = parse(address)
    if not isinstance(url, UdpUrl):
        raise refused(f"{address!r} is no udp://HOST:PORT")
    return url


def parse_ssh(address: str) -> SshUrl:
    """Return what an ssh:// URL says; EINVAL for anything else."""
    url = parse(address)
    if not isinstance(url, SshUrl):
        raise refused(f"{address!r} is no ssh://HOST/PATH")
    return url


def ip_of(host: str) -> Ip | None:
    """Return the address that ``host`` is, None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


# -- the schemes -----------------------------------------------------------------------------------------------------


def _vxlan(target: str, options: Options) -> VxlanUrl:
    hosts = [*(target.rstrip("/").split(",") if target.rstrip("/") else ()), *options.get("remote", ())]
    remotes = tuple(dict.fromkeys(_endpoint(host) for host in hosts))
    if not 0 < len(remotes) <= MAX_REMOTES:
        raise refused(f"a vxlan cable has 1 to {MAX_REMOTES} remotes (vxlan://HOST,HOST?vni=N), not {len(remotes)}")
    if "vni" not in options:
        raise refused(f"vxlan://{target} names no virtual network: add ?vni=N, as the other end has it")
    url = VxlanUrl(
        remotes,
        _number(options, "vni", 0, MAX_VNI),
        _number(options, "port", 1, 65535, VXLAN_PORT),
        _local(_one(options, "local")),
        _number(options, "ttl", 1, 255, 0),
    )
    for remote in remotes:
        _same_family(url.local, remote)
    return url


def _udp(target: str, options: Options) -> UdpUrl:
    host, port = _host_and_port(target.rstrip("/"))
    if not port:
        raise refused(f"udp://{target} names no port: udp://HOST:PORT")
    local, local_port = _host_and_port(_one(options, "local"), port)
    url = UdpUrl(_endpoint(host), port, _local(local), local_port)
    _same_family(url.local, url.host)
    return url


def _ssh(target: str, options: Options) -> SshUrl:
    machine, slash, path = target.partition("/")
    user, _, place = machine.rpartition("@")
    user, path, plug = unquote(user), unquote(slash + path), _one(options, "plug")
    if user and not USER.fullmatch(user):
        raise refused(f"ssh: {user!r} is no name of a user")
    host, port = _host_and_port(place)
    if path in ("", "/") and not plug:
        raise refused(f"ssh://{target} names no network there: ssh://HOST/PATH")
    if not (path + plug).isprintable():
        raise refused(f"ssh://{target}: a path or command has characters that cannot be printed")
    return SshUrl(_host(host), path or "/", user, port, plug)


SCHEMES: Final[dict[str, tuple[Callable[[str, Options], CableUrl], tuple[str, ...]]]] = {
    "ssh": (_ssh, ("plug",)),
    "vxlan": (_vxlan, ("vni", "remote", "port", "local", "ttl")),
    "udp": (_udp, ("local",)),
}
"""Scheme → what reads it, and the options it may have."""

REPEATED: Final = frozenset({"remote"})
"""Options that may be given again."""


# -- parts -----------------------------------------------------------------------------------------------------------


def _options(address: str, query: str, known: tuple[str, ...]) -> Options:
    options: dict[str, list[str]] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in known:
            raise refused(f"{address} has the option {name!r}; there is {', '.join(known)}")
        if not value:
            raise refused(f"{address}: the option {name} has no value")
        if name in options and name not in REPEATED:
            raise refused(f"{address} has the option {name} twice")
        options.setdefault(name, []).append(unquote(value))
    return options


def _one(options: Options, name: str) -> str:
    return options[name][0] if name in options else ""


def _number(options: Options, name: str, low: int, high: int, default: int = 0) -> int:
    text = _one(options, name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and low <= int(text) <= high):
        raise refused(f"{name} must be from {low} to {high}, not {text!r}")
    return int(text)


def _host_and_port(text: str, default: int = 0) -> tuple[str, int]:
    """Return the two parts of ``HOST:PORT``; the port is ``default`` when there is none."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text, default
    if ":" in host and not host.endswith("]"):
        raise refused(f"{text!r}: an IPv6 address stands in brackets, [{text}], and a port after them")
    return host, _number({"port": [port or "none"]}, "port", 1, 65535)


def _host(text: str) -> str:
    """Return a host as it is written without brackets, an address in its shortest form."""
    bare = unquote(text)
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
        if ":" not in bare:
            raise refused(f"{text!r}: only an IPv6 address stands in brackets")
    address = ip_of(bare)
    if address is not None:
        return str(getattr(address, "ipv4_mapped", None) or address)
    if not NAME.fullmatch(bare) or len(bare) > MAX_NAME or bare.rstrip(".").rpartition(".")[2].isdigit():
        raise refused(f"{text!r} is neither a host's name nor an address")
    return bare


def _endpoint(text: str) -> str:
    """Return a host that datagrams can be sent to."""
    host = _host(text)
    address = ip_of(host)
    if address is not None and (address.is_multicast or address.is_unspecified or host == "255.255.255.255"):
        raise refused(f"{host} is not the address of one machine; give the remotes one by one")
    return host


def _local(text: str) -> str:
    """Return an address of our own; "" for any."""
    host = _host(text) if text else ""
    address = ip_of(host)
    if host and address is None:
        raise refused(f"local must be an address of this machine, not a name like {host}")
    return "" if address is None or address.is_unspecified else host


def _same_family(local: str, remote: str) -> None:
    ours, theirs = ip_of(local), ip_of(remote)
    if ours is not None and theirs is not None and ours.version != theirs.version:
        raise refused(f"{remote} cannot be reached from {local}: one is IPv{theirs.version}, the other not")


def _bracketed(host: str) -> str:
    return f"[{host.replace('%', '%25')}]" if ":" in host else host
