"""Jobs that come together are run together, one kind at a time; the queue has an end; nothing accepted is lost."""

import asyncio
import threading
import time

import pytest

pytest.importorskip("fastapi", reason="needs the extra: pip install 'tf_llm[serve]'")

from tf_llm.apps.server.batching import Batcher, BatchFailedError, ClosingError, Job, QueueFullError

LAST = "last"


class Runner:
    """Says "step" as often as a job's content wants, then LAST. Waits for `gate` before each batch."""

    def __init__(self):
        self.batches, self.steps = [], 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, jobs):
        self.batches.append([job.content for job in jobs])
        assert self.gate.wait(10)
        left = {job: job.content for job in jobs}
        while left:
            self.steps += 1
            events = []
            for job in list(left):
                left[job] -= 1
                if left[job] <= 0 or job.stopped:
                    del left[job]
                    events.append((job, LAST))
                else:
                    events.append((job, "step"))
            yield events


class Heard:
    """Jobs and what each was told."""

    def __init__(self, *contents, kind="text"):
        self.events = [[] for _ in contents]
        self.jobs = [Job(kind, content, heard.append) for content, heard in zip(contents, self.events, strict=True)]


async def until(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.001)


def run(scenario, runners=None, **settings):
    """Runs `scenario(batcher, runner)` in an event loop; behind it, all that was accepted has been run."""

    async def live():
        runner = Runner()
        batcher = Batcher(runners or {"text": runner, "vector": runner}, **settings)
        batcher.start()
        try:
            await scenario(batcher, runner)
        finally:
            runner.gate.set()
            batcher.close()
            await asyncio.to_thread(batcher.join)
        await asyncio.sleep(0)

    asyncio.run(live())


def test_jobs_that_come_within_the_wait_share_a_batch():
    async def scenario(batcher, runner):
        one, two = Heard(1, 2), Heard(3)
        batcher.submit(one.jobs)
        batcher.submit(two.jobs)
        await until(lambda: two.events[0] and two.events[0][-1] == LAST)
        assert runner.batches == [[1, 2, 3]]
        assert one.events == [[LAST], ["step", LAST]] and two.events == [["step", "step", LAST]]

    run(scenario, max_wait=0.2)


def test_a_full_batch_does_not_wait():
    async def scenario(batcher, runner):
        heard = Heard(1, 1, 1)
        begin = time.monotonic()
        batcher.submit(heard.jobs)
        await until(lambda: heard.events[1])
        assert time.monotonic() - begin < 5
        assert runner.batches == [[1, 1]]

    run(scenario, max_batch=2, max_wait=10)


def test_what_arrives_during_a_batch_makes_up_the_next():
    async def scenario(batcher, runner):
        runner.gate.clear()
        batcher.submit(Heard(1).jobs)
        await until(lambda: runner.batches)
        for content in (2, 3, 4):
            batcher.submit(Heard(content).jobs)
        assert (batcher.waiting, batcher.running) == (3, 1)
        runner.gate.set()
        await until(lambda: len(runner.batches) == 2)
        assert runner.batches == [[1], [2, 3, 4]]

    run(scenario, max_wait=0)


def test_a_batch_is_of_one_kind_and_the_oldest_comes_first():
    async def scenario(batcher, runner):
        runner.gate.clear()
        batcher.submit(Heard(9).jobs)
        await until(lambda: runner.batches)
        for content, kind in ((1, "vector"), (2, "text"), (3, "vector"), (4, "text")):
            batcher.submit(Heard(content, kind=kind).jobs)
        runner.gate.set()
        await until(lambda: len(runner.batches) == 3)
        assert runner.batches == [[9], [1, 3], [2, 4]]

    run(scenario, max_wait=0)


def test_a_full_queue_takes_all_of_a_request_or_nothing():
    async def scenario(batcher, runner):
        runner.gate.clear()
        batcher.submit(Heard(1).jobs)
        await until(lambda: runner.batches)
        batcher.submit(Heard(1, 1, 1).jobs)
        with pytest.raises(QueueFullError) as error:
            batcher.submit(Heard(1, 1).jobs)
        assert error.value.seconds >= 1 and batcher.waiting == 3
        batcher.submit(Heard(1).jobs)
        with pytest.raises(QueueFullError, match="try again in 1 s"):
            batcher.submit(Heard(1).jobs)

    run(scenario, max_wait=0, max_queue=4)


def test_the_wait_that_a_full_queue_names_grows_with_what_batches_take():
    async def scenario(batcher, runner):
        batcher._seconds = 7.0
        runner.gate.clear()
        batcher.submit(Heard(1).jobs)
        await until(lambda: runner.batches)
        batcher.submit(Heard(1, 1, 1).jobs)
        with pytest.raises(QueueFullError) as error:
            batcher.submit(Heard(1).jobs)
        assert error.value.seconds == 14  # two batches are ahead

    run(scenario, max_wait=0, max_queue=3, max_batch=2)


def test_a_job_that_waits_can_be_taken_back_and_makes_room():
    async def scenario(batcher, runner):
        runner.gate.clear()
        batcher.submit(Heard(1).jobs)
        await until(lambda: runner.batches)
        heard = Heard(5, 6)
        batcher.submit(heard.jobs)
        assert batcher.stop(heard.jobs[0]) and not batcher.stop(heard.jobs[0])
        batcher.submit(Heard(7).jobs)
        runner.gate.set()
        await until(lambda: len(runner.batches) == 2)
        assert runner.batches == [[1], [6, 7]]
        assert not heard.events[0]

    run(scenario, max_wait=0, max_queue=2)


def test_a_batch_ends_when_all_its_jobs_were_stopped():
    async def scenario(batcher, runner):
        heard = Heard(10**9, 10**9)
        batcher.submit(heard.jobs)
        await until(lambda: all(heard.events))
        assert not any(batcher.stop(job) for job in heard.jobs)
        await until(lambda: all(events[-1] == LAST for events in heard.events))
        assert runner.steps < 10**9

    run(scenario, max_wait=0)


def test_a_batch_that_fails_tells_its_jobs_and_the_next_one_is_run(caplog):
    def fail(jobs):
        yield [(jobs[0], "step")]
        raise RuntimeError("no memory")

    async def scenario(batcher, runner):
        bad, good = Heard(1, 1, kind="bad"), Heard(1)
        batcher.submit(bad.jobs)
        batcher.submit(good.jobs)
        await until(lambda: good.events[0])
        assert [type(event) for event in bad.events[0]] == [str, BatchFailedError]
        assert [type(event) for event in bad.events[1]] == [BatchFailedError]
        assert "a batch of 2 jobs failed: bad" in caplog.text and "no memory" in caplog.text

    run(scenario, {"bad": fail, "text": Runner()}, max_wait=0)


def test_closing_runs_what_was_accepted_and_accepts_nothing_more():
    heard = Heard(1, 1, 1)

    async def scenario(batcher, runner):
        batcher.submit(heard.jobs)
        batcher.close()
        assert batcher.closing
        with pytest.raises(ClosingError):
            batcher.submit(Heard(1).jobs)

    run(scenario, max_batch=1, max_wait=60)
    assert heard.events == [[LAST]] * 3


def test_each_batch_is_observed():
    seen = []

    async def scenario(batcher, runner):
        heard = Heard(1, 1)
        batcher.submit(heard.jobs)
        await until(lambda: seen)
        kind, rows, seconds = seen[0]
        assert (kind, rows) == ("text", 2) and seconds >= 0

    run(scenario, observe=lambda *observed: seen.append(observed))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_batch": 0}, r"max_batch is expected to be at least 1\. Received: 0"),
        ({"max_queue": 0}, r"max_queue is expected to be at least 1\. Received: 0"),
        ({"max_wait": float("nan")}, r"max_wait is expected to be at least 0 seconds\. Received: nan"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Batcher({}, **settings)
