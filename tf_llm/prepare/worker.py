"""Work on untrusted pages in processes of their own, which may hang, die or eat memory without harm to the rest.

`concurrent.futures` gives up the whole pool when one worker dies, and cannot stop a worker that hangs. Here a worker
answers page by page, so it is known which page it was at: that page becomes a `Rejected` with the reason, the worker is
replaced, and the next one goes on with the page behind it.

    reason             what happened to the worker
    "out of time"      killed, `seconds_per_page` after it began with the page
    "worker died"      a crash, or the system killed it; the detail has the exit code
    "out of memory"    replaced: what filled its memory may be there still
    "worker error"     nothing: the function raised an ordinary exception; the detail has it
"""

import collections
import contextlib
import dataclasses
import itertools
import logging
import math
import multiprocessing
import pickle
import signal
import sys
import threading
import time
import types
from multiprocessing.connection import wait

from tf_llm.contracts import Rejected, UserError

logger = logging.getLogger(__name__)

START_SECONDS = 300.0  # a worker first imports what it needs; one that is not up by then is replaced
MAX_FAILED_STARTS = 3  # so many in a row are no accident
TASKS_AHEAD = 4  # tasks a worker that are read before their results can be yielded
DETAIL_LENGTH = 300  # an exception may quote the whole page
OUT_OF_TIME, DIED, OUT_OF_MEMORY, FAILED = "out of time", "worker died", "out of memory", "worker error"

_main_lock = threading.Lock()


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What workers may cost."""

    processes: int = 0  # workers; 0 takes as many as there are cores
    seconds_per_page: float = 10.0  # a page that takes longer is given up
    megabytes: int = 4096  # address space of a worker, on systems that can limit it
    pages_per_task: int = 16  # pages that travel together

    def __post_init__(self):
        if self.processes < 0:
            raise ValueError(f"processes is expected to be at least 0. Received: {self.processes}")
        for name in ("seconds_per_page", "megabytes", "pages_per_task"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is expected to be above 0. Received: {getattr(self, name)}")


@dataclasses.dataclass
class Task:
    """Some pages on their way through a worker, or through several, where one broke."""

    number: int  # results are yielded in this order
    items: list
    results: list = dataclasses.field(default_factory=list)  # of the first items, as far as they are done

    def is_done(self):
        """Whether every item has its result."""
        return len(self.results) == len(self.items)


class Worker:
    """One process and the pipe to it."""

    def __init__(self, context, function, megabytes):
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, function, megabytes), daemon=True)
        with hide_main():
            self.process.start()
        theirs.close()  # from here on the end of the process is the end of the pipe
        self.is_up, self.task, self.seconds_per_page = False, None, math.inf
        self.deadline = time.monotonic() + START_SECONDS

    def is_idle(self):
        """Whether it waits for a task."""
        return self.is_up and self.task is None and self.process.is_alive()

    def send(self, task, seconds_per_page):
        """Gives the worker what is left of a task."""
        items = [pickle.dumps(item) for item in task.items[len(task.results) :]]
        with contextlib.suppress(OSError):  # it is dead, which `receive` will notice
            self.pipe.send(items)
        self.task, self.seconds_per_page = task, seconds_per_page
        self.deadline = time.monotonic() + seconds_per_page

    def receive(self):
        """Takes in one message. Returns why there is no result of an item, (reason, detail), or None."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):  # OSError: it died within a message
            self.process.join(1)
            return DIED, f"exit code {self.process.exitcode}"
        if not self.is_up:
            self.is_up, self.deadline = True, math.inf
            return None
        self.deadline = time.monotonic() + self.seconds_per_page
        result, fault = message
        if fault is None:
            self.task.results.append(result)
        return fault

    def release(self):
        """Takes the task away from a worker that is done with it; returns it."""
        task, self.task, self.deadline = self.task, None, math.inf
        return task

    def kill(self):
        """Ends the process at once."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


@contextlib.contextmanager
def hide_main():
    """Lets processes start as if the running program had no script.

    "spawn" has every process run the script of its parent again, in case the function stands in it. That takes seconds
    where the script imports TensorFlow, and starts the script's work once more where it has no
    `if __name__ == "__main__":`. Our functions stand in modules: a blank `__main__` leaves nothing to run.
    """
    with _main_lock:  # two pools that start at once in two threads must not take the blank for the real one
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def serve(pipe, function, megabytes):
    """A worker's whole life: says that it is up, then takes lists of items and answers them one by one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent ends this one
    limit_memory(megabytes)
    bytearray(2**24)  # a limit that leaves no room to work in ends the worker here, before pages are blamed for it
    pipe.send(None)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while True:
            for item in pipe.recv():
                pipe.send_bytes(answer(function, item))


def answer(function, item):
    """What a worker says of a pickled item, pickled: (function(item), None), or (None, (reason, detail))."""
    try:
        return pickle.dumps((function(pickle.loads(item)), None))
    except MemoryError:
        fault = OUT_OF_MEMORY, ""
    except Exception as error:
        fault = FAILED, repr(error)[:DETAIL_LENGTH]
    return pickle.dumps((None, fault))


def limit_memory(megabytes):
    """Limits this process's address space where the system can (Windows and macOS cannot)."""
    try:
        import resource
    except ImportError:
        return
    limit = megabytes * 2**20
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


class WorkerPool:
    """Maps a function over items in worker processes; results come in the order of the items.

    Args:
        function: item -> result; importable from a module, not from the script that runs, and quick to import, since
            each worker imports it anew.
        config: a `WorkerConfig`.

    Raises:
        ValueError: workers could not import the function.

    >>> with WorkerPool(abs, WorkerConfig(processes=1)) as pool:
    ...     list(pool.map([-1, "tea", 2]))
    [1, Rejected(url='', reason='worker error', detail='TypeError("bad operand type for abs(): \\'str\\'")'), 2]
    """

    def __init__(self, function, config):
        self.config, self.function = config, function
        self._context = multiprocessing.get_context("spawn")  # a fork would copy TensorFlow's locks
        self._failed_starts = 0
        self._workers = []
        try:
            for _ in range(config.processes or multiprocessing.cpu_count()):
                self._workers.append(self._start())
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for worker in self._workers:
            worker.kill()

    def map(self, items):
        """Yields function(item) for each item, in order, or a `Rejected` where there is no such result.

        At most `TASKS_AHEAD * pages_per_task` items a worker are read before their results are yielded. One map at a
        time: a new one ends the one before.

        Raises:
            UserError: workers die before they are up.
        """
        for index, worker in enumerate(self._workers):  # of an earlier map that was not read to its end
            if worker.task:
                self._replace(index)
        items = iter(items)
        batches = iter(lambda: list(itertools.islice(items, self.config.pages_per_task)), [])
        tasks = map(Task, itertools.count(), batches)
        waiting, done = collections.deque(), {}
        begun, yielded = 0, 0  # tasks
        while True:
            while len(waiting) < len(self._workers) and begun - yielded < TASKS_AHEAD * len(self._workers):
                task = next(tasks, None)
                if task is None:
                    break
                waiting.append(task)
                begun += 1
            if begun == yielded:
                return
            for worker in self._workers:
                if waiting and worker.is_idle():
                    worker.send(waiting.popleft(), self.config.seconds_per_page)
            for task in self._collect():
                if task.is_done():
                    done[task.number] = task.results
                else:
                    waiting.appendleft(task)
            while yielded in done:
                yield from done.pop(yielded)
                yielded += 1

    def _start(self):
        try:
            return Worker(self._context, self.function, self.config.megabytes)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                "function is expected to stand at the top of a module that workers can import, not in the script that "
                f"runs, in a notebook or in another function. Received: {self.function!r}"
            ) from error

    def _replace(self, index):
        """Ends a worker and starts another in its place."""
        worker = self._workers[index]
        worker.kill()
        self._failed_starts += not worker.is_up
        if self._failed_starts == MAX_FAILED_STARTS:
            raise UserError(
                f"worker processes are expected to start. Received: {MAX_FAILED_STARTS} in a row that did not, the "
                f"last with exit code {worker.process.exitcode}. See what they printed; workers.megabytes, now "
                f"{self.config.megabytes}, may be too few"
            )
        self._workers[index] = self._start()

    def _collect(self):
        """Waits for an answer, a death or a deadline; returns the tasks that no worker has any more."""
        patience = min(worker.deadline for worker in self._workers) - time.monotonic()
        answered = wait([worker.pipe for worker in self._workers], timeout=min(max(patience, 0.0), 60.0))
        now = time.monotonic()  # before anything else takes time: who answered until now was in time
        free = []
        for index, worker in enumerate(self._workers):
            fault = None
            if worker.pipe in answered:
                fault = worker.receive()
                if worker.is_up:
                    self._failed_starts = 0
            elif now >= worker.deadline:
                fault = OUT_OF_TIME, f"{worker.seconds_per_page:g} s"
            task = worker.task
            if fault and task:
                self._give_up_next(task, *fault)
            if fault and fault[0] != FAILED:
                self._replace(index)
                free += [task] if task else []
            elif task and task.is_done():
                free.append(worker.release())
        return free

    @staticmethod
    def _give_up_next(task, reason, detail):
        """Rejects the item that its worker was at."""
        url = getattr(task.items[len(task.results)], "url", "")
        logger.warning("gave up a page: %s (%s): %s", reason, detail, url)
        task.results.append(Rejected(url, reason, detail))
