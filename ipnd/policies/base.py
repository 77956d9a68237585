"""What a policy is: the decisions a network asks for. Pure; the data plane does all the moving."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar


class Policy:
    """A delivery policy of one network. Subclasses set ``number`` and ``name`` and override what they decide.

    ``ports`` of a network is a mapping from the port numbers in use; ``maxports`` bounds them.
    """

    number: ClassVar[int]
    name: ClassVar[str]

    def newport(self, wanted: int, ports: Mapping[int, object], maxports: int) -> int:
        """Return the number for a new port (``wanted``, or any free one when that is -1); -1 when there is none."""
        if wanted >= 0:
            return wanted if wanted < maxports and wanted not in ports else -1
        return next((n for n in range(maxports) if n not in ports), -1)

    def receivers(self, source: int, readers: Collection[int]) -> Collection[int]:
        """Return which of ``readers`` (port numbers that may receive) get what port ``source`` sends."""
        raise NotImplementedError

    def resize(self, old: int, new: int) -> bool:
        """Return whether the number of ports may change from ``old`` to ``new``."""
        return True
