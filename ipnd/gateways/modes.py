"""Which modes the files of a gateway get from those of the network's own socket file. Pure.

Rights on a network are judged when a member joins, so these files only have to let everybody through who has any
right there: whoever may receive or send must be able to connect (which needs w), and in a directory to make a
socket of their own.
"""

from __future__ import annotations

from typing import Final

from ipnd.access import FileAccess

ANY_RIGHT: Final = 0o6
"""r and w of a class of users; either makes a member."""
STICKY: Final = 0o1000
"""In a directory: who may write to it may remove only what is theirs."""


def _classes(file: FileAccess) -> list[int]:
    """Return for owner, group and others (as shifts of their bits) which have r or w; with an ACL, all."""
    return [shift for shift in (6, 3, 0) if file.acl or file.mode >> shift & ANY_RIGHT or shift == 6]


def socket_mode(file: FileAccess) -> tuple[int, int]:
    """Return mode and group of a socket through which members of the network come."""
    return sum(0o6 << shift for shift in _classes(file)), file.gid


def directory_mode(file: FileAccess) -> tuple[int, int]:
    """Return mode and group of a directory in which members make sockets of their own."""
    classes = _classes(file)
    return sum(0o7 << shift for shift in classes) | (STICKY if len(classes) > 1 else 0), file.gid
