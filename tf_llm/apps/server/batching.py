"""Requests that come at the same time are computed together: one thread, which takes what waits for it in batches.

A step of decoding reads all weights of the model once, for one row as for thirty-two. So a job that arrives while
nothing is running waits a few milliseconds for company, and what arrives while a batch is running makes up the next.

    event loop                      this thread
    submit(jobs) ── queue ──>  take up to `max_batch` jobs of one kind
                               run them: an iterator of [(job, event), …]
    job.tell(event)  <───────  all events of a step in one call

Nothing here knows what a job is about. It has a kind, the key of one of the `runners`, and content for that.
"""

import asyncio
import logging
import threading
import time
from collections import deque

logger = logging.getLogger(__name__)


class QueueFullError(Exception):
    """The queue has no room. `seconds` says after how many there may be some."""

    def __init__(self, seconds):
        super().__init__(f"the queue is full, try again in {seconds} s")
        self.seconds = seconds


class ClosingError(Exception):
    """Nothing is accepted any more."""


class BatchFailedError(Exception):
    """What a job is told, in place of an event, whose batch failed."""


class Job:
    """One row of a batch.

    Args:
        kind: a key of the batcher's runners.
        content: what the runner makes of it is its own business.
        tell: called with each event of this job, in the thread of the event loop.

    `stopped` says that nobody wants the rest. Set in one thread and read in another: it changes once, from False to
    True, and what a runner sees a step late does no harm.
    """

    def __init__(self, kind, content, tell):
        self.kind, self.content, self.tell = kind, content, tell
        self.arrived = time.monotonic()
        self.started = self.stopped = False


class Batcher:
    """Runs jobs in batches, in one thread of its own.

    Args:
        runners: {kind: (jobs) -> iterator of lists of (job, event)}. Each list is told at once. A runner is expected to
            look at `job.stopped` between two of them.
        max_batch: jobs that are run together at most.
        max_wait: seconds that the first job of a batch waits for others.
        max_queue: jobs that may wait; for more, `submit` raises QueueFullError.
        observe: called as observe(kind, jobs, seconds they took) behind every batch, in the batcher's thread.
    """

    def __init__(self, runners, max_batch=32, max_wait=0.005, max_queue=128, observe=lambda *_: None):
        for name, value in (("max_batch", max_batch), ("max_queue", max_queue)):
            if value < 1:
                raise ValueError(f"{name} is expected to be at least 1. Received: {value}")
        if not max_wait >= 0:
            raise ValueError(f"max_wait is expected to be at least 0 seconds. Received: {max_wait}")
        self.max_batch, self.max_wait, self.max_queue = max_batch, max_wait, max_queue
        self._runners, self._observe = runners, observe
        self._queue = deque()
        self._changed = threading.Condition()
        self._closing, self._running = False, 0
        self._seconds = 0.0  # what a batch took lately
        self._loop = self._thread = None

    def start(self):
        """Starts the thread, from within the event loop that is to be told of events."""
        self._loop = asyncio.get_running_loop()
        # A daemon, so that a process that is told to stop at once does.
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def close(self):
        """From now on `submit` raises ClosingError. What was accepted will be run."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def join(self):
        """Waits until all that was accepted has been run; behind `close`."""
        self._thread.join()

    @property
    def closing(self):
        """Whether nothing more is accepted."""
        return self._closing

    @property
    def waiting(self):
        """Jobs in the queue."""
        return len(self._queue)

    @property
    def running(self):
        """Jobs of the batch that is being run."""
        return self._running

    def submit(self, jobs):
        """Accepts all of these jobs, or none.

        Raises:
            QueueFullError: there is no room for all of them.
            ClosingError: see `close`.
        """
        with self._changed:
            if self._closing:
                raise ClosingError
            if len(self._queue) + len(jobs) > self.max_queue:
                batches = -(-len(self._queue) // self.max_batch)
                raise QueueFullError(min(60, max(1, round(batches * self._seconds))))
            self._queue.extend(jobs)
            self._changed.notify()

    def stop(self, job):
        """Stops a job that nobody waits for any longer. Returns whether it was still in the queue.

        One that waits is forgotten, and makes room; one that is running will see it at its next step.
        """
        with self._changed:
            job.stopped = True
            if job.started or job not in self._queue:
                return False
            self._queue.remove(job)
            return True

    def _run(self):
        while jobs := self._take():
            begin = time.monotonic()
            try:
                for events in self._runners[jobs[0].kind](jobs):
                    self._tell(events)
            except Exception:
                logger.exception("a batch of %d jobs failed: %s", len(jobs), jobs[0].kind)
                self._tell([(job, BatchFailedError()) for job in jobs])
            seconds = time.monotonic() - begin
            with self._changed:
                self._running = 0
            self._seconds = seconds if not self._seconds else 0.8 * self._seconds + 0.2 * seconds
            self._observe(jobs[0].kind, len(jobs), seconds)

    def _take(self):
        """The next batch, or nothing if there will be none. All its jobs are of the kind of the first."""
        with self._changed:
            while True:
                if not self._queue:
                    if self._closing:
                        return []
                    self._changed.wait()
                    continue
                first = self._queue[0]
                alike = [job for job in self._queue if job.kind == first.kind][: self.max_batch]
                left = first.arrived + self.max_wait - time.monotonic()
                if len(alike) == self.max_batch or left <= 0 or self._closing:
                    break
                self._changed.wait(left)
            for job in alike:
                job.started = True
            self._queue = deque(job for job in self._queue if not job.started)
            self._running = len(alike)
            return alike

    def _tell(self, events):
        if not events:
            return
        try:
            self._loop.call_soon_threadsafe(tell_all, events)
        except RuntimeError:  # the loop is closed: the process was told to stop at once
            logger.warning("%d events came too late for anybody to hear", len(events))


def tell_all(events):
    """Tells each job its event: [(job, event), …]."""
    for job, event in events:
        job.tell(event)
