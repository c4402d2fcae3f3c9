"""Hostile pages cost themselves and nothing else, in order, and no process stays behind."""

import doctest
import itertools
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tf_llm.contracts import Document, Page, Rejected, UserError
from tf_llm.prepare import worker
from tf_llm.prepare.worker import TASKS_AHEAD, WorkerConfig, WorkerPool
from tf_llm.text.html import strip_html

SECONDS = 1.0  # for a page: the harmless ones take none
POOL = {"seconds_per_page": SECONDS, "megabytes": 2048, "pages_per_task": 4}


class Unreadable:
    """What no worker can unpickle."""

    def __reduce__(self):
        return int, ("tea",)


def work(page):
    """What the page says, in a worker: the functions of a pool stand at the top of a module."""
    match page.content:
        case b"hang":
            time.sleep(60)
        case b"exit":
            os._exit(3)
        case b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case b"raise":
            return 1 / 0
        case b"quote":
            return (b"\xff" * 100_000).decode()
        case b"fill":
            return len(bytearray(8 << 30))
        case b"lambda":
            return lambda: None
        case b"process":
            return os.getpid()
    time.sleep(random.random() / 500)
    return page.url, page.content


def is_loaded(name):
    return name in sys.modules


def nap(seconds):
    time.sleep(seconds)
    return seconds


def make_pages(*contents):
    return [Page(f"http://a.example/{number}", content.encode()) for number, content in enumerate(contents)]


def assert_ended(processes):
    assert not [process for process in multiprocessing.active_children() if process.pid in processes]
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR, "tf_llm.prepare.worker")


def test_docstring_examples():
    result = doctest.testmod(worker)
    assert result.attempted == 1 and result.failed == 0


FAULTS = {
    "hang": ("out of time", "1 s"),
    "exit": ("worker died", "exit code 3"),
    "kill": ("worker died", "exit code -9"),
    "raise": ("worker error", "ZeroDivisionError('division by zero')"),
    "fill": ("out of memory", ""),
}


@pytest.mark.parametrize("processes", [1, 2])
def test_fault_costs_its_page_alone(processes):
    contents = [f"text {number}" for number in range(30)]
    for place, fault in {0: "raise", 5: "hang", 6: "kill", 14: "fill", 29: "exit"}.items():
        contents[place] = fault
    pages = make_pages(*contents)
    expected = [
        Rejected(page.url, *FAULTS[content]) if content in FAULTS else (page.url, page.content)
        for page, content in zip(pages, contents, strict=True)
    ]
    with WorkerPool(work, WorkerConfig(processes=processes, **POOL)) as pool:
        assert list(pool.map(pages)) == expected
        assert list(pool.map([])) == []
        assert list(pool.map(iter(pages[7:9]))) == expected[7:9]


def test_what_a_fault_does_to_its_worker():
    """An exception does nothing; memory that was full may still be, so the worker is replaced."""
    with WorkerPool(work, WorkerConfig(processes=1, **POOL)) as pool:
        pages = make_pages("process", "raise", "quote", "lambda", "process", "fill", "process")
        first, error, quote, function, second, memory, third = pool.map(pages)
        assert first == second != third
        assert [rejected.reason for rejected in (error, quote, function)] == ["worker error"] * 3
        assert memory == Rejected("http://a.example/5", "out of memory")
        assert quote.detail.startswith("UnicodeDecodeError('utf-8', b'") and len(quote.detail) == worker.DETAIL_LENGTH
        assert "lambda" in function.detail
        before, rejected, after = pool.map([pages[0], Unreadable(), pages[0]])
        assert before == after == third
        assert rejected.reason == "worker error" and "invalid literal for int()" in rejected.detail
        os.kill(third, signal.SIGKILL)  # while it has nothing to do: no page is at fault
        time.sleep(0.2)
        (fourth,) = pool.map(pages[:1])
        assert isinstance(fourth, int) and fourth != third


def test_reads_ahead_a_bounded_number_of_items():
    read = itertools.count()
    naps = itertools.chain([0.8], itertools.repeat(0.0, 99))
    items = (next(read) * 0 + seconds for seconds in naps)
    limit = TASKS_AHEAD * 2 * 3
    with WorkerPool(nap, WorkerConfig(processes=2, pages_per_task=3)) as pool:
        for yielded, result in enumerate(pool.map(items)):
            count = int(repr(read)[6:-1])
            assert result == (0.8 if yielded == 0 else 0)
            assert count <= yielded // 3 * 3 + limit
            if yielded == 0:
                assert count == limit  # the others did not wait for the slow one
    assert yielded == 99


def test_map_that_was_left_does_not_disturb_the_next():
    with WorkerPool(nap, WorkerConfig(processes=2, pages_per_task=1)) as pool:
        left = pool.map([0.3, 0.8, 0.8])
        assert next(left) == 0.3
        assert list(pool.map([0.6, 0.7])) == [0.6, 0.7]  # while the other worker would still have been at its 0.8


def test_no_process_stays_behind(caplog):
    processes = []
    with pytest.raises(ZeroDivisionError), WorkerPool(nap, WorkerConfig(processes=2, pages_per_task=1)) as pool:
        for _ in pool.map([0.0, 60.0, 60.0]):
            processes += [child.pid for child in multiprocessing.active_children()]
            raise ZeroDivisionError
    assert len(processes) == 2
    assert_ended(processes)

    def use_pool():
        with WorkerPool(nap, WorkerConfig(processes=1, pages_per_task=1)) as pool:
            yield from pool.map([0.0, 60.0])

    results = use_pool()
    assert next(results) == 0.0
    processes = [child.pid for child in multiprocessing.active_children()]
    assert len(processes) == 1
    results.close()
    assert_ended(processes)

    with pytest.raises(OSError, match="disk gone"), WorkerPool(nap, WorkerConfig(processes=1)) as pool:
        list(pool.map(unplug()))
    assert not multiprocessing.active_children()


def unplug():
    yield 0.0
    raise OSError("disk gone")


@pytest.fixture
def broken_module(tmp_path, monkeypatch):
    """A module that this process can import and its workers cannot."""
    text = f"import os\nassert os.getpid() == {os.getpid()}, 'not here'\ndef work(item): ...\n"
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
    with pytest.raises(UserError, match=text), WorkerPool(broken_module.work, WorkerConfig(processes=1)) as pool:
        list(pool.map([1]))
    assert "AssertionError: not here" in capfd.readouterr().err
    assert not multiprocessing.active_children()


def test_too_little_memory_is_told(capfd):
    config = WorkerConfig(processes=1, megabytes=20)
    with pytest.raises(UserError, match=r"workers.megabytes, now 20, may be too few"), WorkerPool(abs, config) as pool:
        list(pool.map([1]))
    assert "MemoryError" in capfd.readouterr().err


def test_function_that_workers_cannot_import_is_refused():
    text = (
        "function is expected to stand at the top of a module that workers can import, .* Received: <function .*lambda"
    )
    with pytest.raises(ValueError, match=text):
        WorkerPool(lambda page: page, WorkerConfig(processes=1))
    assert not multiprocessing.active_children()


def run_script(folder, text, **options):
    """A script in a process group of its own, without `if __name__ == "__main__":`."""
    (folder / "script.py").write_text(
        "from pathlib import Path\n"
        "with Path('marker').open('a') as file:\n"
        "    file.write('x')\n"
        "from tf_llm.prepare.worker import WorkerConfig, WorkerPool\n" + text
    )
    return subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_script_runs_once(tmp_path):
    script = run_script(
        tmp_path,
        "def own(item): ...\n"
        "with WorkerPool(abs, WorkerConfig(processes=2, pages_per_task=1)) as pool:\n"
        "    print(list(pool.map(range(-4, 0))))\n"
        "import sys\n"
        "print(sys.modules['__main__'].own is own)\n"
        "try:\n"
        "    WorkerPool(own, WorkerConfig(processes=1))\n"
        "except ValueError as error:\n"
        "    print(error)\n",
    )
    output, errors = script.communicate(timeout=30)
    assert (script.returncode, errors) == (0, "")
    results, main, refusal = output.splitlines()
    assert (results, main) == ("[4, 3, 2, 1]", "True")
    assert "not in the script that runs" in refusal and "Received: <function own" in refusal
    assert (tmp_path / "marker").read_text() == "x"


def test_interrupt_ends_all_processes_at_once(tmp_path):
    script = run_script(
        tmp_path,
        "import multiprocessing, signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell has it ignored in what runs behind `&`
        "with WorkerPool(time.sleep, WorkerConfig(processes=1, pages_per_task=1, seconds_per_page=60)) as pool:\n"
        "    for _ in pool.map([0, 30]):\n"
        "        print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n",
    )
    processes = [int(process) for process in script.stdout.readline().split()]
    assert len(processes) == 1
    os.kill(processes[0], signal.SIGINT)  # the worker takes no notice
    time.sleep(0.3)
    begin = time.monotonic()
    os.killpg(script.pid, signal.SIGINT)  # as Ctrl-C does
    _, errors = script.communicate(timeout=20)
    assert time.monotonic() - begin < 10
    assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt")
    assert_ended(processes)


def test_workers_do_without_tensorflow():
    """It takes seconds to import, in each of them."""
    with WorkerPool(is_loaded, WorkerConfig(processes=1)) as pool:
        assert list(pool.map(["tf_llm.prepare.worker", "tensorflow", "keras"])) == [True, False, False]


def test_hostile_page_takes_no_time():
    hostile = Page("http://a.example/", b"<a " * 20_000)
    plain = Page("http://a.example/", b"<p>Green tea.</p>")
    with WorkerPool(strip_html, WorkerConfig(processes=1)) as pool:
        list(pool.map([plain]))  # the worker is up
        begin = time.monotonic()
        first, second = pool.map([hostile, plain])
        assert time.monotonic() - begin < 2
    assert isinstance(first, Document | Rejected) and second == Document("http://a.example/", "Green tea.")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"processes": -1}, "processes is expected to be at least 0. Received: -1"),
        ({"seconds_per_page": 0.0}, "seconds_per_page is expected to be above 0. Received: 0.0"),
        ({"megabytes": 0}, "megabytes is expected to be above 0. Received: 0"),
        ({"pages_per_task": -2}, "pages_per_task is expected to be above 0. Received: -2"),
    ],
)
def test_wrong_settings_are_named(settings, text):
    with pytest.raises(ValueError, match=text):
        WorkerConfig(**settings)
