"""Who is to blame, and so who ends: the classes of failure inside the daemon. Pure.

* ``PeerFault``: a member or client broke the protocol. Its connection ends, with one log line.
* ``OSError`` from an operation: a refusal, sent back to who asked, with its errno. Nothing ends.
* ``PolicyFault``: a policy raised. Its network ends.
* Anything else is a bug of ours and ends the daemon with a traceback.
"""

from __future__ import annotations


class PeerFault(Exception):
    """A peer broke the protocol; the text says how. Its connection is closed."""


class PolicyFault(Exception):
    """A policy raised or answered nonsense; the text says which and how. Its network ends."""
