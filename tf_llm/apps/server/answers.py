"""One request's share in the batches: its jobs are handed in, their events waited for, and forgotten if need be.

All of this happens in the thread of the event loop.
"""

import asyncio
import contextlib
import functools
import time

from tf_llm.apps.server.batching import BatchFailedError, ClosingError, Job, QueueFullError
from tf_llm.apps.server.errors import ClientLeftError, Refusal
from tf_llm.apps.server.limits import refuse_closing

LEFT = object()
PATIENCE = 10.0  # seconds that a job which was stopped may take for its last step


class Answers:
    """The jobs of one request.

    Args:
        service: a `Service`.
        kind: of the jobs.
        contents: one for each job.

    Raises:
        Refusal: 429 where the queue is full, 503 where the server stops.
    """

    def __init__(self, service, kind, contents):
        batcher = self._batcher = service.batcher
        self._metrics, self._events = service.metrics, asyncio.Queue()
        self._deadline = time.monotonic() + service.limits.seconds
        self._jobs = [
            Job(kind, content, functools.partial(self._hear, index)) for index, content in enumerate(contents)
        ]
        self._open = set(range(len(self._jobs)))  # jobs whose last event has not come
        self.expired = False  # whether the time was up before the end
        try:
            batcher.submit(self._jobs)
        except QueueFullError as full:
            raise Refusal(
                429,
                f"{batcher.waiting} texts are waiting, and {batcher.max_queue} may. Try again in {full.seconds} s",
                code="queue_full",
                headers={"Retry-After": str(full.seconds)},
            ) from None
        except ClosingError:
            raise refuse_closing() from None

    def _hear(self, index, event):
        self._events.put_nowait((index, event))

    async def __aiter__(self):
        """(index of the job, event), as they come, until every job has had its last one.

        When the time is up, jobs that run end with what they have said, and those that wait are left out; if all do,
        nothing was said and nothing can be answered.

        Raises:
            Refusal: 503, the time was up before anything was begun; 500, the model failed.
            ClientLeftError: see `leave`.
        """
        while self._open:
            try:
                async with asyncio.timeout(max(0.0, self._deadline - time.monotonic())):
                    index, event = await self._events.get()
            except TimeoutError:
                self._expire()
                continue
            if event is LEFT:
                raise ClientLeftError
            if isinstance(event, BatchFailedError):
                raise Refusal(500, "the model failed; the server's log says why")
            if event.last:
                self._open.discard(index)
            yield index, event

    def _expire(self):
        self._metrics.expired.inc()
        if self.expired or not any(job.started for job in self._jobs):
            raise refuse_late()
        self.expired, self._deadline = True, time.monotonic() + PATIENCE
        self._open -= {index for index in self._open if self._batcher.stop(self._jobs[index])}

    def leave(self):
        """There is nobody any more who would hear an answer."""
        self._metrics.left.inc()
        self.forget()
        self._hear(None, LEFT)

    def forget(self):
        """Nobody wants the rest: jobs that wait make room, jobs that run cost no further step."""
        for index in self._open:
            self._batcher.stop(self._jobs[index])


def refuse_late():
    """What is said where the time was up before there was anything to answer."""
    return Refusal(503, "the server is too busy: the time was up. Try again", headers={"Retry-After": "5"})


@contextlib.asynccontextmanager
async def watch_client(receive, answers):
    """Within the `async with` block, a client that leaves is noticed. Behind it, what is left of the jobs is forgotten.

    Args:
        receive: ASGI's, of which the body has been read.
        answers: `Answers`, whose iteration raises `ClientLeftError` then.
    """

    async def watch():
        while (await receive())["type"] != "http.disconnect":
            pass
        answers.leave()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        answers.forget()
