"""How long steps take, and how many of them a time has room for."""

import logging
import math
import time

import numpy as np

logger = logging.getLogger(__name__)
WARMING_STEPS, TIMED_STEPS = 3, 10  # the first steps trace and allocate; the next are timed to plan the run
LATEST = 100  # steps that are remembered one by one


class Clock:
    """Seconds spent in steps: the latest ones', and of all `steps` together; and which of them were spent waiting.

    A step begins with asking for its batch. The pipeline makes batches while the step before is computed, so it has to
    be waited for only where it cannot keep up.

    >>> clock = Clock()
    >>> clock.start(), clock.receive(), clock.add(clock.elapsed())
    (None, None, None)
    >>> clock.steps, 0 <= clock.waits[0] <= clock.latest[0] == clock.total
    (1, True)
    """

    steps_until_planned = WARMING_STEPS + TIMED_STEPS

    def __init__(self):
        self.steps, self.total, self.latest, self.waits = 0, 0.0, [], []
        self._started = self._received = 0.0

    def start(self):
        """Begins a step."""
        self._started = self._received = time.perf_counter()

    def receive(self):
        """The step has its batch."""
        self._received = time.perf_counter()

    def elapsed(self):
        """Seconds since the step began."""
        return time.perf_counter() - self._started

    def add(self, seconds, steps=1):
        """One step took so long, or several in one call, each a part of it; of their waiting nothing is known.

        The first step of all traces the graph; it counts in `total` like any other.
        """
        self.latest += [seconds / steps] * steps
        self.waits += [self._received - self._started if steps == 1 else math.nan] * steps
        self.total += seconds
        self.steps += steps
        del self.latest[:-LATEST], self.waits[:-LATEST]

    def plan(self, seconds):
        """How many further steps a run of so many seconds has room for, by the median of the latest; one at least."""
        one = float(np.median(self.latest[-TIMED_STEPS:]))
        left = max(seconds - self.total, 0.0)
        steps = max(int(left / one), 1)
        logger.debug("a step takes %.0f ms: planning %d more for %.0f s", 1e3 * one, steps, left)
        return steps
