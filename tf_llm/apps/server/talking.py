"""The threads in which the applications of the page do their work, and an answer that is told while it is made.

Chatbots and assistants are ordinary Python: they take their time, and one model serves all who ask. So each application
has a thread of its own, in which one request is answered after the other; a few may wait, more are refused.
"""

import asyncio
import contextlib
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tf_llm.apps.chatbot.chatbot import NOTICE, STOPPED
from tf_llm.apps.server.answers import refuse_late
from tf_llm.apps.server.errors import ClientLeftError, Refusal
from tf_llm.apps.server.limits import refuse_closing
from tf_llm.contracts import UserError

logger = logging.getLogger(__name__)

WAITING = 16  # requests that may wait for each application
TOO_LONG = "This took too long and was stopped."
END, LEFT = object(), object()


class Worker:
    """Does what is handed in, in the order in which it came.

    Args:
        name: of what works here, for what is said about it.
        threads: that work at once.
        waiting: what may be handed in and not be done yet.
    """

    def __init__(self, name, threads=1, waiting=WAITING):
        self._name, self._most, self._open, self._closing = name, threads + waiting, 0, False
        self._lock, self._pool = threading.Lock(), ThreadPoolExecutor(threads, thread_name_prefix=name)

    def submit(self, act, *arguments):
        """Hands in a function; its `concurrent.futures.Future`.

        Raises:
            Refusal: 429, too many wait; 503, the server stops.
        """
        with self._lock:
            if self._closing:
                raise refuse_closing()
            if self._open >= self._most:
                raise Refusal(
                    429,
                    f"the {self._name} has {self._open} requests to answer, and no room for more. Try again in 5 s",
                    code="queue_full",
                    headers={"Retry-After": "5"},
                )
            self._open += 1
        future = self._pool.submit(act, *arguments)
        future.add_done_callback(self._count_down)
        return future

    def _count_down(self, future):
        with self._lock:
            self._open -= 1

    async def run(self, seconds, act, *arguments):
        """What a function returns.

        Raises:
            Refusal: see `submit`; 400 for a `UserError` of the function, 500 for any other, 503 when the time is up.
        """
        future = self.submit(act, *arguments)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except TimeoutError:
            raise refuse_late() from None
        except UserError as error:
            raise Refusal(400, str(error)) from error
        except Exception as error:
            raise self.refuse_failure() from error

    def refuse_failure(self):
        """Logs the error that is being handled; what a client is told of it."""
        logger.exception("the %s failed", self._name)
        return Refusal(500, f"the {self._name} failed; the server's log says why")

    def close(self):
        """Has nothing more handed in, and what waits never begin."""
        with self._lock:
            self._closing = True
        self._pool.shutdown(wait=False, cancel_futures=True)


class Talk:
    """One answer of a chatbot: made in the worker's thread, told in that of the event loop, in which it is created.

    Args:
        worker: a `Worker`.
        bot: a `Chatbot`, whose `stop` ends the answer.
        act: () -> the bot's events.
        seconds: after which the answer is stopped.

    Raises:
        Refusal: see `Worker.submit`.
    """

    def __init__(self, worker, bot, act, seconds):
        self._worker, self._bot, self._act = worker, bot, act
        self._loop, self._events = asyncio.get_running_loop(), asyncio.Queue()
        self._deadline, self._is_stopped = time.monotonic() + seconds, False
        self._future = worker.submit(self._tell)

    def _tell(self):
        try:
            for event in self._act():
                if self._is_stopped:
                    self._bot.stop()  # also where it was stopped before it had begun
                self._put({"kind": event.kind, "text": event.text})
        except Exception:
            self._put(self._worker.refuse_failure())
        self._put(END)

    def _put(self, event):
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody listens any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    @property
    def is_open(self):
        """Whether the answer is not given yet."""
        return not self._future.done()

    async def __aiter__(self):
        """The events, {"kind", "text"} each.

        Raises:
            Refusal: 500, the chatbot failed.
            ClientLeftError: see `leave`.
        """
        while True:
            try:
                async with asyncio.timeout(None if self._is_stopped else max(0.0, self._deadline - time.monotonic())):
                    event = await self._events.get()
            except TimeoutError:
                self.stop()
                yield {"kind": NOTICE, "text": TOO_LONG}
                continue
            if event is LEFT:
                raise ClientLeftError
            if event is END:
                return
            if isinstance(event, Refusal):
                raise event
            yield event

    def stop(self):
        """Ends the answer, or has it never begin."""
        self._is_stopped = True
        if self._future.cancel():
            self._events.put_nowait({"kind": NOTICE, "text": STOPPED})
            self._events.put_nowait(END)
        else:
            self._bot.stop()

    def leave(self):
        """There is nobody any more who would hear the answer."""
        self.forget()
        self._events.put_nowait(LEFT)

    def forget(self):
        """Nobody wants the rest."""
        if self.is_open:
            self.stop()
