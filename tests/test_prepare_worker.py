"""What ends a worker costs its item and nothing else, errors arrive, and no process stays behind."""

import doctest
import errno
import itertools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import chores
import pytest
from chores import do_items

import tf_llm
from tf_llm.contracts import UserError
from tf_llm.prepare import pulse, worker
from tf_llm.prepare.pulse import Pulse, lose_rest
from tf_llm.prepare.worker import MAX_DEATHS, Job, WorkerConfig, WorkerPool

POOL = {"seconds_per_page": 1.0, "megabytes": 2048}  # the harmless items take no time


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR, "tf_llm.prepare.worker")


@pytest.fixture(autouse=True)
def bare_package(tmp_path_factory, monkeypatch):
    """Has workers and scripts start with an empty `tf_llm/__init__.py`: what it imports takes them a second each."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "tf_llm").mkdir()
    (folder / "tf_llm" / "__init__.py").write_text(f"__path__ = {list(tf_llm.__path__)}")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


@pytest.fixture
def make_task(tmp_path):
    numbers = itertools.count()
    return lambda *items: (str(tmp_path / f"task{next(numbers)}"), items)


def carry_out(pool, *tasks):
    """What the logs of some tasks say when all are done."""
    done = [task for task in pool.run(tasks) if task is not None]
    assert sorted(done) == sorted(tasks)
    return [Path(path).read_text().splitlines() for path, _ in tasks]


def assert_ended(processes):
    assert not [process for process in multiprocessing.active_children() if process.pid in processes]
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_docstring_examples():
    result = doctest.testmod(pulse)
    assert result.attempted and result.failed == 0


FAULTS = {
    "hang": "out of time 1 s",
    "exit": "worker died exit code 3",
    "kill": "worker died exit code -9",
    "fill": "out of memory exit code 77",
}


def test_a_fault_costs_its_item_alone(make_task):
    contents = [f"item {number}" for number in range(40)]
    for place, fault in {5: "hang", 6: "kill", 9: "fill", 20: "kill, once", 39: "exit"}.items():
        contents[place] = fault
    tasks = [make_task(*contents[:10]), make_task(), make_task(*contents[10:30]), make_task(*contents[30:])]
    with WorkerPool(do_items, WorkerConfig(processes=2, **POOL)) as pool:
        logs = carry_out(pool, *tasks)
        assert [*itertools.chain(*logs)] == [FAULTS.get(content, content) for content in contents]
        # Of all tasks and of all workers, those that were replaced among them; each item once.
        assert pool.counted == [40, sum(map(len, contents)), 4]
        assert carry_out(pool) == []


def test_what_a_fault_does_to_its_worker(make_task):
    """An error of the function reaches the caller and leaves the worker; memory that was full may be so still."""
    with WorkerPool(do_items, WorkerConfig(processes=1, **POOL)) as pool:
        ((first,),) = carry_out(pool, make_task("process"))
        with pytest.raises(UserError, match=r"^expected tea\. Received: coffee\. Drink tea$"):
            carry_out(pool, make_task("wrong"))
        with pytest.raises(OSError, match="No space left on device") as error:
            carry_out(pool, make_task("full disk"))
        assert (error.value.errno, error.value.filename) == (errno.ENOSPC, "tea.txt")
        with pytest.raises(RuntimeError, match=r"(?s)worker failed:.*in do_item\n.*ZeroDivisionError: division of tea"):
            carry_out(pool, make_task("raise"))
        with pytest.raises(RuntimeError, match=r"(?s)a worker failed:.*invalid literal for int\(\)"):
            carry_out(pool, Unreadable())
        ((second, _, third),) = carry_out(pool, make_task("process", "fill", "process"))
        assert first == second != third
        os.kill(int(third), signal.SIGKILL)  # while it has nothing to do: no item is at fault
        ((fourth,),) = carry_out(pool, make_task("process"))
        assert fourth not in (first, third)


class Unreadable:
    """What no worker can unpickle, as a source whose class stands in the script that runs."""

    def __reduce__(self):
        return int, ("tea",)


def test_a_death_between_items_is_forgiven_once(make_task):
    with WorkerPool(do_items, WorkerConfig(processes=1, **POOL)) as pool:
        once, twice = carry_out(
            pool, make_task("green", "die before, once", "black"), make_task("green", "die before", "black")
        )
    assert once == ["green", "die before, once", "black"]
    assert twice == ["green", "rest lost worker died exit code 4"]


def test_blame():
    """What is left out in vain ends the run: else workers would die for ever."""
    job, mine = Job("task"), Pulse(seconds_per_item=10.0)
    mine.looks(3)
    job.blame(mine, "worker died", "exit code 1")
    assert job.faults == {}
    job.blame(mine, "worker died", "exit code 2")
    assert job.faults == {lose_rest(3): ("worker died", "exit code 2")}
    mine.works(4)
    job.blame(mine, "worker died", "exit code -9")  # the system was short of memory, perhaps
    assert 4 not in job.faults
    job.blame(mine, "worker died", "exit code -11")
    assert job.faults[4] == ("worker died", "exit code -11")
    mine.works(3)
    for _ in range(MAX_DEATHS):
        job.blame(mine, "out of time", "10 s")
        assert job.faults[3] == ("out of time", "10 s")
    assert len(job.faults) == 3
    text = r"expected workers to get on .*\. Received: 4 that ended at item 3 of a part \(out of time, 10 s\)\. Raise "
    with pytest.raises(UserError, match=text):
        job.blame(mine, "out of time", "10 s")


def test_pulse_can_be_read_at_any_moment():
    """The numbers change one by one: an item is only said to be worked on with its own number and its own time."""

    class Seen(list):
        def __setitem__(self, place, value):
            places = range(*place.indices(len(self))) if isinstance(place, slice) else [place]
            for each, number in zip(places, value if isinstance(place, slice) else [value], strict=True):
                super().__setitem__(each, number)
                if self[2]:
                    assert (self[1], self[0] < time.monotonic() + 11) == (working, True)

    mine, working = Pulse(Seen([0.0] * Pulse.SIZE), seconds_per_item=10.0), None
    for working in range(3):
        mine.looks(working)
        assert not mine.is_working and mine.deadline > time.monotonic() + 200
        mine.works(working)
        assert mine.is_working and mine.deadline < time.monotonic() + 11


def test_tasks_are_asked_for_when_a_worker_is_free(make_task):
    """They may wait for the network, and there may be none for a while. What was left does not disturb the next run."""
    asked = []

    def offer():
        for number, items in enumerate([["nap"], ["nap"], None, ["nap"], ["nap", "nap", "nap"], ["never"]]):
            asked.append(number)
            yield items and make_task(*items)

    with WorkerPool(do_items, WorkerConfig(processes=2, **POOL)) as pool:
        done = 0
        for task in pool.run(offer()):
            done += task is not None
            assert len([number for number in asked if number != 2]) <= done + 2
            if done == 3:
                break
        assert asked[-1] >= 4
        assert carry_out(pool, make_task("tea")) == [["tea"]]


def test_no_process_stays_behind(make_task):
    processes = []

    def use_pool():
        with WorkerPool(do_items, WorkerConfig(processes=2)) as pool:
            processes.extend(child.pid for child in multiprocessing.active_children())
            yield from filter(None, pool.run([make_task("tea"), make_task("hang"), make_task("hang")]))

    results = use_pool()
    assert next(results)[1] == ("tea",)
    assert len(processes) == 2
    results.close()
    assert_ended(processes)

    def unplug():
        yield None
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"), WorkerPool(do_items, WorkerConfig(processes=2)) as pool:
        carry_out(pool, *unplug())
    assert not multiprocessing.active_children()


@pytest.fixture
def broken_module(tmp_path, monkeypatch):
    """A module that this process can import and its workers cannot."""
    text = f"import os\nassert os.getpid() == {os.getpid()}, 'not here'\ndef work(task, pulse, faults): ...\n"
    (tmp_path / "broken_in_workers.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    import broken_in_workers

    yield broken_in_workers
    del sys.modules["broken_in_workers"]


def test_workers_that_die_at_start_are_told(broken_module, capfd):
    text = (
        "^worker processes are expected to start. Received: 3 in a row that did not, the last with exit code 1. See "
        "what they printed; workers.megabytes, now 4096, may be too few$"
    )
    with pytest.raises(UserError, match=text), WorkerPool(broken_module.work, WorkerConfig(processes=2)) as pool:
        carry_out(pool, 1)
    assert "AssertionError: not here" in capfd.readouterr().err
    assert not multiprocessing.active_children()


def test_too_little_memory_is_told(capfd, monkeypatch):
    monkeypatch.setattr(worker, "MAX_FAILED_STARTS", 1)
    config = WorkerConfig(processes=1, megabytes=20)
    text = "workers.megabytes, now 20, may be too few"
    with pytest.raises(UserError, match=text), WorkerPool(do_items, config) as pool:
        carry_out(pool, 1)
    assert "MemoryError" in capfd.readouterr().err


def test_function_that_workers_cannot_import_is_refused():
    text = (
        "function is expected to stand at the top of a module that workers can import, .* Received: <function .*lambda"
    )
    with pytest.raises(ValueError, match=text):
        WorkerPool(lambda task, pulse, faults: None, WorkerConfig(processes=1))
    assert not multiprocessing.active_children()


def run_script(folder, text):
    """A script in a process group of its own, without `if __name__ == "__main__":`."""
    (folder / "script.py").write_text(
        "import multiprocessing, signal, sys\n"
        "from pathlib import Path\n"
        "with Path('marker').open('a') as file:\n"
        "    file.write('x')\n"
        f"sys.path.append({str(Path(chores.__file__).parent)!r})\n"
        "from chores import do_items, sleep\n"
        "from tf_llm.prepare.worker import WorkerConfig, WorkerPool\n" + text
    )
    return subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_script_runs_once(tmp_path):
    script = run_script(
        tmp_path,
        "def own(task, pulse, faults): ...\n"
        "with WorkerPool(do_items, WorkerConfig(processes=2)) as pool:\n"
        "    print(sorted(filter(None, pool.run([('a', ['tea']), ('b', ['tea'])]))))\n"
        "print(sys.modules['__main__'].own is own)\n"
        "try:\n"
        "    WorkerPool(own, WorkerConfig(processes=1))\n"
        "except ValueError as error:\n"
        "    print(error)\n",
    )
    output, errors = script.communicate(timeout=60)
    assert (script.returncode, errors) == (0, "")
    results, main, refusal = output.splitlines()
    assert (results, main) == ("[('a', ['tea']), ('b', ['tea'])]", "True")
    assert "not in the script that runs" in refusal and "Received: <function own" in refusal
    assert (tmp_path / "marker").read_text() == "x"


# A worker that has slept once is up; then it sleeps long.
SLEEPING = (
    "with WorkerPool(sleep, WorkerConfig(processes=1)) as pool:\n"
    "    for task in pool.run([0, 60]):\n"
    "        if task == 0:\n"
    "            print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
)


def test_interrupt_ends_all_processes_at_once(tmp_path):
    # A shell has it ignored in what runs behind `&`.
    script = run_script(tmp_path, "signal.signal(signal.SIGINT, signal.default_int_handler)\n" + SLEEPING)
    (process,) = map(int, script.stdout.readline().split())
    os.kill(process, signal.SIGINT)  # the worker takes no notice
    time.sleep(0.3)
    begin = time.monotonic()
    os.killpg(script.pid, signal.SIGINT)  # as Ctrl-C does
    _, errors = script.communicate(timeout=20)
    assert time.monotonic() - begin < 10
    assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt")
    assert_ended([process])


def test_workers_end_with_the_process_that_started_them(tmp_path):
    script = run_script(tmp_path, SLEEPING)
    (process,) = map(int, script.stdout.readline().split())
    script.kill()
    try:
        # The worker sleeps for a minute, with an end of the pipes of the script that only its own end closes.
        script.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        os.kill(process, signal.SIGKILL)
        pytest.fail("the worker goes on")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"processes": -1}, "processes is expected to be at least 0. Received: -1"),
        ({"seconds_per_page": 0.0}, "seconds_per_page is expected to be above 0. Received: 0.0"),
        ({"megabytes": 0}, "megabytes is expected to be above 0. Received: 0"),
    ],
)
def test_wrong_settings_are_named(settings, text):
    with pytest.raises(ValueError, match=text):
        WorkerConfig(**settings)
