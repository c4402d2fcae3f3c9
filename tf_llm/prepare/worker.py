"""Work on untrusted bytes in processes of their own, which may hang, die or eat memory without harm to the rest.

`concurrent.futures` gives up the whole pool when one worker dies, and cannot stop a worker that hangs. Here a worker
goes through a long task item by item, and shows in shared memory which item it is at and until when it should be done
with it. A worker that is overdue is killed; one that dies or is killed is replaced, and the task begins again in the
new one with the knowledge of what went wrong where: the function passes over that item, and over all that it has
finished before, since it keeps a log (shard.py).

    reason             what happened to the worker
    "out of time"      killed, `seconds_per_page` after it began with the item
    "worker died"      a crash, or the system killed it, twice at the same item; the detail has the exit code
    "out of memory"    ended itself: what filled its memory may be there still

What comes back from a worker is a few numbers and a line of JSON; what it has made lies on the disk. So nothing that a
page could have done to the process that parsed it is unpickled here.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from typing import Any

from tf_llm.contracts import UserError
from tf_llm.prepare.pulse import PATIENCE, Faults, Pulse, lose_rest

logger = logging.getLogger(__name__)

POLL = 0.2  # seconds between two looks at the clock
MAX_FAILED_STARTS = 3  # so many in a row are no accident
MAX_DEATHS = 3  # of workers at one place of a task: to leave out what is there has not helped
MAX_ANSWER = 2**20  # bytes
OUT_OF_MEMORY_STATUS = 77  # with which a worker ends itself
OUT_OF_TIME, DIED, OUT_OF_MEMORY = "out of time", "worker died", "out of memory"

_main_lock = threading.Lock()


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What workers may cost."""

    processes: int = 0  # workers; 0 takes as many as there are cores
    seconds_per_page: float = 10.0  # a page that takes longer is given up
    megabytes: int = 4096  # address space of a worker, on systems that can limit it

    def __post_init__(self):
        if self.processes < 0:
            raise ValueError(f"processes is expected to be at least 0. Received: {self.processes}")
        for name in ("seconds_per_page", "megabytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is expected to be above 0. Received: {getattr(self, name)}")


Function = Callable[[Any, Pulse, Faults], None]


class Worker:
    """One process, the pipe to it, and its pulse."""

    def __init__(self, context, function: Function, config: WorkerConfig):
        self.pipe, theirs = context.Pipe()
        numbers = context.Array("d", Pulse.SIZE, lock=False)
        self.pulse = Pulse(numbers, config.seconds_per_page)
        self.pulse.clear()
        arguments = (theirs, numbers, function, config)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        with hide_main():
            self.process.start()
        theirs.close()  # from here on the end of the process is the end of the pipe
        self.is_up, self.job = False, None

    def send(self, job: Job) -> None:
        """Gives an idle worker something to do."""
        self.job = job
        self.pulse.clear()
        with contextlib.suppress(OSError):  # it is dead, which `receive` will notice
            self.pipe.send((job.task, job.faults))

    def receive(self) -> dict[str, Any] | None:
        """One message; None where there will be no more, since the process is dead or talks nonsense."""
        try:
            return json.loads(self.pipe.recv_bytes(MAX_ANSWER))
        except (EOFError, OSError, ValueError):
            return None

    def is_overdue(self) -> bool:
        """Whether it should have been heard of."""
        return (self.job is not None or not self.is_up) and time.monotonic() > self.pulse.deadline

    def kill(self) -> None:
        """Ends the process at once."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


@dataclasses.dataclass
class Job:
    """A task on its way, perhaps through several workers."""

    task: Any
    faults: Faults = dataclasses.field(default_factory=dict)
    deaths: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)  # by key of `faults`

    def blame(self, pulse: Pulse, reason: str, detail: str) -> None:
        """Notes where a worker ended.

        One that died may have been killed by anybody: nobody is to blame before the second time. Between two items
        it is the rest of the task that is given up then, see `pulse.lose_rest`. Raises UserError where workers end all
        the same.
        """
        place = pulse.position if pulse.is_working else lose_rest(pulse.position)
        self.deaths[place] += 1
        if self.deaths[place] > MAX_DEATHS:
            raise UserError(
                f"expected workers to get on without what had ended others. Received: {self.deaths[place]} that ended "
                f"at item {pulse.position} of a part ({reason}, {detail}). Raise workers.megabytes, now too few "
                "perhaps, or divide the corpus further with shards.parts"
            )
        if self.deaths[place] > 1 or (pulse.is_working and reason != DIED):
            self.faults[place] = reason, detail


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


def serve(pipe, numbers, function: Function, config: WorkerConfig) -> None:
    """A worker's whole life: says that it is up, then takes tasks and says of each what came of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent ends this one
    threading.Thread(target=end_with_parent, daemon=True).start()
    limit_memory(config.megabytes)
    bytearray(2**24)  # a limit that leaves no room to work in ends the worker here, before pages are blamed for it
    pulse = Pulse(numbers, config.seconds_per_page)
    pipe.send_bytes(b"{}")
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while True:
            content = pipe.recv_bytes()
            pipe.send_bytes(json.dumps(answer(function, content, pulse)).encode())


def end_with_parent() -> None:
    """Ends this process when its parent is gone, however that ended: nobody would wait for what it does."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def answer(function: Function, content: bytes, pulse: Pulse) -> dict[str, Any]:
    """What came of a task, which comes pickled with its faults: nothing to say, or the error to raise in its place."""
    try:
        task, faults = pickle.loads(content)  # our parent's; it fails where a class stands in the script that runs
        function(task, pulse, faults)
    except MemoryError:
        os._exit(OUT_OF_MEMORY_STATUS)
    except UserError as error:
        return {"error": str(error)}
    except OSError as error:
        return {"errno": error.errno, "error": str(error.strerror or error), "file": str(error.filename or "")}
    except Exception:
        return {"error": traceback.format_exc()[-2000:], "is_fault": True}
    return {}


def limit_memory(megabytes: int) -> None:
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
    """Carries out tasks in worker processes.

    Args:
        function: (task, pulse, faults) -> None; importable from a module, not from the script that runs, and quick to
            import, since each worker imports it anew. It tells `pulse` of every item, and does not touch an item that
            `faults` names. It may be called again for a task that it has begun, in another process.
        config: a `WorkerConfig`.

    Raises:
        ValueError: workers could not import the function.

    A pool does one `run` at a time. The work of a run that was left, or raised an error, is given up with the next.

    >>> with WorkerPool(print_task, WorkerConfig(processes=2)) as pool:    # doctest: +SKIP
    ...     for task in pool.run(["tea", "coffee"]): ...
    """

    def __init__(self, function: Function, config: WorkerConfig):
        self.config, self.function = config, function
        self._context = multiprocessing.get_context("spawn")  # a fork would copy TensorFlow's locks
        self._failed_starts, self._counted = 0, [0, 0, 0]
        self._workers: list[Worker] = []
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

    @property
    def counted(self) -> list[int]:
        """[items done, their bytes, how many of them were rejected], of all tasks until now."""
        now = (worker.pulse.counted for worker in self._workers)
        return [sum(each) for each in zip(self._counted, *now, strict=True)]

    def run(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """Yields each task when it is done, in the order in which that happens, and None now and then in between.

        `tasks` may yield None as well: there is no task yet, but there may be one later.

        Raises:
            UserError: the function raised it, or workers die before they are up.
            OSError: the function raised it: the disk is full.
            RuntimeError: the function raised anything else; the text has its traceback.
        """
        for index, worker in enumerate(self._workers):
            if worker.job:
                self._replace(index)
        tasks, is_over = iter(tasks), False
        waiting: collections.deque[Job] = collections.deque()
        while True:
            idle = [worker for worker in self._workers if worker.is_up and worker.job is None]
            while not is_over and len(waiting) < len(idle):
                task = next(tasks, StopIteration)
                is_over = task is StopIteration
                if is_over or task is None:
                    break
                waiting.append(Job(task))
            for worker in idle[: len(waiting)]:
                self._counted = [sum(each) for each in zip(self._counted, worker.pulse.counted, strict=True)]
                worker.send(waiting.popleft())
            if is_over and not waiting and not any(worker.job for worker in self._workers):
                return
            for job, is_done in self._collect():
                if is_done:
                    yield job.task
                else:
                    waiting.appendleft(job)
            yield None

    def _start(self) -> Worker:
        try:
            return Worker(self._context, self.function, self.config)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                "function is expected to stand at the top of a module that workers can import, not in the script that "
                f"runs, in a notebook or in another function. Received: {self.function!r}"
            ) from error

    def _collect(self) -> Iterator[tuple[Job, bool]]:
        """Waits a moment for answers and deaths; yields the jobs that no worker has any more, and whether each is
        done."""
        answered = wait([worker.pipe for worker in self._workers], timeout=POLL)
        for index, worker in enumerate(self._workers):
            if worker.pipe in answered:
                message = worker.receive()
                if message is None:
                    worker.process.join(1)
                    status = worker.process.exitcode
                    reason = OUT_OF_MEMORY if status == OUT_OF_MEMORY_STATUS else DIED
                    yield from self._give_up(index, reason, f"exit code {status}")
                elif not worker.is_up:
                    worker.is_up, self._failed_starts = True, 0
                else:
                    job, worker.job = worker.job, None
                    raise_error(message)
                    yield job, True
            elif worker.is_overdue():
                worker.process.kill()
                worker.process.join()
                if not worker.is_overdue():  # it went on at the last moment: let nobody else be blamed
                    worker.pulse.looks(-1)
                seconds = self.config.seconds_per_page if worker.pulse.is_working else PATIENCE
                yield from self._give_up(index, OUT_OF_TIME, f"{seconds:g} s")

    def _replace(self, index: int) -> Worker:
        """Has a new worker in the place of one, which is ended and returned."""
        worker = self._workers[index]
        worker.kill()
        self._counted = [sum(each) for each in zip(self._counted, worker.pulse.counted, strict=True)]
        self._workers[index] = self._start()
        return worker

    def _give_up(self, index: int, reason: str, detail: str) -> Iterator[tuple[Job, bool]]:
        """Replaces a worker; its job is to be begun again."""
        worker = self._replace(index)
        self._failed_starts += not worker.is_up
        if self._failed_starts == MAX_FAILED_STARTS:
            raise UserError(
                f"worker processes are expected to start. Received: {MAX_FAILED_STARTS} in a row that did not, the "
                f"last with exit code {worker.process.exitcode}. See what they printed; workers.megabytes, now "
                f"{self.config.megabytes}, may be too few"
            )
        if worker.job:
            if worker.pulse.position >= 0:
                worker.job.blame(worker.pulse, reason, detail)
            logger.warning("a worker ended (%s, %s) at item %d", reason, detail, worker.pulse.position)
            yield worker.job, False


def raise_error(message: dict[str, Any]) -> None:
    """Raises here what a worker has caught there."""
    if "errno" in message:
        raise OSError(message["errno"], message["error"], message["file"])
    if "is_fault" in message:
        raise RuntimeError(f"a worker failed:\n{message['error']}")
    if "error" in message:
        raise UserError(message["error"])
