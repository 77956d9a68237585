"""Who is to blame, and so who ends: the classes of failure inside the daemon. Pure.

* ``PeerFault``: a member or client broke the protocol. Its connection ends, with one log line.
* ``OSError`` from an operation: a refusal, sent back to who asked, with its errno. Nothing ends.
* A policy that raises anything else, or answers nonsense (``policy_runner``): its network ends.
* Anything else is a bug of ours and ends the daemon with a traceback.
"""

from __future__ import annotations


class PeerFault(Exception):
    """A peer broke the protocol; the text says how. Its connection is closed."""
