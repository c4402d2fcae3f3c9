"""What a worker and its supervisor know of each other while a task is under way.

>>> pulse = Pulse(seconds_per_item=10.0)
>>> pulse.looks(7)     # for item 7
>>> pulse.works(7)     # it has it: 10 seconds from now on
>>> pulse.counts(bytes_=2_048, is_rejected=False)
>>> pulse.position, pulse.is_working, pulse.counted
(7, True, (1, 2048, 0))
"""

from __future__ import annotations

import math
import time
from typing import Any

PATIENCE = 300.0  # seconds for all that is no item: to start, to find the next item, to finish a task

Faults = dict[int, tuple[str, str]]  # number of an item -> (reason, detail): what ended the worker that was at it


class Pulse:
    """What a worker shows of a task while it works: numbers, in memory that its supervisor sees.

    numbers: `SIZE` doubles, shared between processes; by default this object's own.
    seconds_per_item: how long an item may take.
    """

    SIZE = 6  # deadline, position, is working; items done, their bytes, how many of them were rejected

    def __init__(self, numbers: Any = None, seconds_per_item: float = math.inf):
        self._numbers = [0.0] * self.SIZE if numbers is None else numbers
        self.seconds_per_item = seconds_per_item

    def clear(self) -> None:
        """A task begins."""
        self._numbers[:] = [0.0] * self.SIZE
        self.looks(0)

    def looks(self, position: int) -> None:
        """The worker looks for the item of this number, or finishes the task behind the last one."""
        # Without an item first: who looks in between must not take the next one for begun.
        self._numbers[2] = False
        self._numbers[:2] = time.monotonic() + PATIENCE, position

    def works(self, position: int) -> None:
        """The worker begins with the item of this number."""
        # The deadline first: who looks in between must not see a new item with the time of an old one.
        self._numbers[:3] = time.monotonic() + self.seconds_per_item, position, True

    def counts(self, bytes_: int, is_rejected: bool) -> None:
        """One more item is done."""
        self._numbers[3] += 1
        self._numbers[4] += bytes_
        self._numbers[5] += is_rejected

    @property
    def deadline(self) -> float:
        """When the worker should be heard of again, by `time.monotonic`, which all processes share."""
        return self._numbers[0]

    @property
    def position(self) -> int:
        """Which item the worker is at, or looks for."""
        return int(self._numbers[1])

    @property
    def is_working(self) -> bool:
        """Whether it has that item."""
        return bool(self._numbers[2])

    @property
    def counted(self) -> tuple[int, int, int]:
        """(items done, their bytes, how many of them were rejected) since the task began in this process."""
        return tuple(map(int, self._numbers[3:6]))


def lose_rest(position: int) -> int:
    """The key in `Faults` that says: there will never be an item of this number, nor any behind it."""
    return -1 - position
