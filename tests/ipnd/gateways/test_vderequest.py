"""What a VDE client's request says: the layouts of version 1 and 3, written here by hand, and everything else."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipnd.gateways import vderequest
from ipnd.gateways.vderequest import ANY_PORT, Request, RequestError, decode_request, encode_reply

MAGIC = 0xFEEDFACE
PATH = b"/tmp/a client's"


def v3(
    kind: int = 0, path: bytes = PATH, description: bytes = b"", *,
    magic: int = MAGIC, version: int = 3, family: int = 1,
) -> bytes:
    """Return a request as libvdeplug makes it."""
    return struct.pack("=IIIH108s", magic, version, kind, family, path) + description


def v1(kind: int = 0, path: bytes = PATH, description: bytes = b"", *, magic: int = MAGIC, family: int = 1) -> bytes:
    """Return a request as the first generation of VDE made it."""
    return struct.pack("=II6sH108s", magic, kind, b"\2\0\0\0\0\1", family, path) + description


@pytest.mark.parametrize("make", [v1, v3])
@pytest.mark.parametrize(
    "kind, port",
    [(0, ANY_PORT), (1 << 8, 1), (7 << 8, 7), (0xFFFFFF << 8, 0xFFFFFF), (1, 0), (5 << 8 | 1, 0)],
)
def test_the_wanted_port_is_above_the_lowest_eight_bits_and_port_0_has_a_request_of_its_own(
    make: Callable[..., bytes], kind: int, port: int
) -> None:
    assert decode_request(make(kind)) == Request(port, PATH, "")


@pytest.mark.parametrize("make", [v1, v3])
@pytest.mark.parametrize(
    "sent, description",
    [
        (b"", ""),
        (b"a guest", "a guest"),
        (b"ends here\0not here", "ends here"),
        ("käse".encode(), "käse"),
        (b"a\nforged line\x1b[2J", "a?forged line?[2J"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * 200, "x" * 128),
    ],
)
def test_a_description_is_text_that_forges_nothing(
    make: Callable[..., bytes], sent: bytes, description: str
) -> None:
    assert decode_request(make(0, PATH, sent)).description == description


def test_a_path_ends_with_nul_and_an_abstract_address_is_taken_whole() -> None:
    assert decode_request(v3(path=b"/tmp/x\0rubbish")).path == b"/tmp/x"
    assert decode_request(v3(path=b"p" * 108)).path == b"p" * 108
    abstract = b"\0" + struct.pack("=ii", 4711, 0)
    assert decode_request(v3(path=abstract)).path == abstract.ljust(108, b"\0")


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "0 bytes is too short"),
        (b"\xce\xfa\xed", "3 bytes is too short"),
        (v3(magic=0xDEADBEEF), "magic number but with efbeadde"),
        (v1(magic=0x12345678), "magic number but with 78563412"),
        (b"GET / HTTP/1.0\r\n\r\n", "magic number but with 47455420"),
        (v3(version=2), "version 2 of VDE's protocol"),
        (v3(version=4), "version 4 of VDE's protocol"),
        (v3()[:-1], f"{len(v3()) - 1} bytes is too short: version 3 has at least 122"),
        (v3()[:8], "8 bytes is too short: version 3"),
        (v1()[:-1], f"{len(v1()) - 1} bytes is too short: version 1 has at least 124"),
        (v3(2), "it asks for 2, which is neither"),
        (v3(5 << 8 | 9), "it asks for 9, which is neither"),
        (v3(family=2), "address family 2"),
        (v1(family=0), "address family 0"),
        (v3(path=b""), "names no data socket"),
        (v1(path=b""), "names no data socket"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(data: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words.replace("?", r"\?")):
        decode_request(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_its_own_error(data: bytes) -> None:
    with pytest.raises(RequestError):
        decode_request(data)


@given(
    st.sampled_from([0, 1, 2, 3, 1 << 8, 3 << 8 | 1]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 3),
    st.binary(max_size=260),
)
def test_any_bytes_behind_the_magic_number_are_a_request_or_its_own_error(
    word: int, kind: int, family: int, rest: bytes
) -> None:
    data = struct.pack("=III6xH", MAGIC, word, kind, family) + rest
    try:
        request = decode_request(data)
    except RequestError:
        return
    assert ANY_PORT <= request.port < 2**24
    assert 0 < len(request.path) <= 108
    assert request.description.isprintable()
    assert len(request.description) <= vderequest.MAX_DESCRIPTION


@given(st.binary(min_size=1, max_size=107).filter(lambda path: b"\0" not in path), st.integers(0, 2**24 - 1))
def test_both_versions_say_the_same(path: bytes, port: int) -> None:
    wanted = Request(port or ANY_PORT, path, "said")
    assert decode_request(v1(port << 8, path, b"said")) == wanted
    assert decode_request(v3(port << 8, path, b"said")) == wanted


def test_the_longest_request_that_is_read_has_room_for_any_description_that_counts() -> None:
    for make in (v1, v3):
        data = make(0, PATH, b"d" * vderequest.MAX_DESCRIPTION)
        assert len(data) <= vderequest.MAX_REQUEST
        assert decode_request(data).description == "d" * 128


def test_the_reply_is_the_address_of_a_unix_socket() -> None:
    assert encode_reply(b"/tmp/vde/003.17") == struct.pack("=H108s", 1, b"/tmp/vde/003.17")
    assert len(encode_reply(b"x" * 107)) == 110
