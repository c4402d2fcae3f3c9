"""Progress on a clock of its own: rates, share, time left; a bar on a terminal, lines in the log elsewhere."""

import io
import logging

import pytest

from tf_llm.prepare.progress import Progress


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="tf_llm.prepare.progress")
    return lambda: caplog.messages


def test_a_line_in_the_log_every_ten_seconds_and_one_at_the_end(clock, lines):
    with Progress("reading pages", total_parts=4, clock=clock, stream=io.StringIO()) as progress:
        for second in range(1, 26):
            clock.now = 100.0 + second
            progress.update(pages=100, bytes=2_500_000, rejected=3, parts=second % 10 == 0)
    assert lines() == [
        "reading pages: 25 %, 1,000 pages, 30 rejected, 100 pages/s, 2.5 MB/s, 30 s left",
        "reading pages: 50 %, 2,000 pages, 60 rejected, 100 pages/s, 2.5 MB/s, 20 s left",
        "reading pages: done in 25 s, 2,500 pages, 75 rejected, 100 pages/s, 2.5 MB/s",
    ]


def test_an_empty_run_says_so(clock, lines):
    with Progress("reading pages", total_parts=1, clock=clock, stream=io.StringIO()):
        pass
    assert lines() == ["reading pages: done in 0 s, 0 pages, 0 rejected"]


def test_a_run_that_fails_was_stopped(clock, lines):
    with pytest.raises(KeyboardInterrupt), Progress("encoding", clock=clock, stream=io.StringIO()) as progress:
        clock.now += 90
        progress.update(pages=45)
        raise KeyboardInterrupt
    assert lines() == [
        "encoding: 45 pages, 0 rejected, 0.5 pages/s",
        "encoding: stopped after 1 min 30 s, 45 pages, 0 rejected, 0.5 pages/s",
    ]


def test_bytes_say_more_than_parts_where_their_total_is_known(clock):
    progress = Progress("reading", total_parts=2, total_bytes=1_000, clock=clock, stream=io.StringIO())
    assert progress.share() == 0.0 and progress.seconds_left() is None
    clock.now += 30
    progress.update(bytes=250, parts=1)
    assert progress.share() == 0.25 and progress.seconds_left() == 90.0
    clock.now += 30  # nothing comes: the time left grows
    assert progress.seconds_left() == 180.0
    progress.update(bytes=2_000)  # more than was said
    assert progress.share() == 1.0 and progress.seconds_left() == 0.0 and "left" not in progress.describe()


def test_what_an_earlier_run_did_counts_for_the_share_but_not_for_the_speed(clock):
    progress = Progress("reading", total_parts=100, clock=clock, stream=io.StringIO())
    progress.skip(parts=80, pages=8_000, rejected=80)
    assert progress.share() == 0.8 and progress.seconds_left() is None
    clock.now += 20
    progress.update(parts=10, pages=1_000)
    assert progress.share() == 0.9 and progress.seconds_left() == 20.0
    assert progress.describe() == "9,000 pages, 80 rejected, 50.0 pages/s, 20 s left"


def test_polling_sets_what_it_found(clock):
    progress = Progress("reading", total_parts=10, clock=clock, stream=io.StringIO())
    clock.now += 2
    for pages in (10, 10, 30):
        progress.set(pages=pages, bytes=pages * 10**6, parts=5)
    assert progress.describe() == "30 pages, 0 rejected, 15.0 pages/s, 15.0 MB/s, 2 s left"
    with pytest.raises(ValueError, match=r"expected counts of pages, bytes, rejected, parts\. Received: page"):
        progress.set(page=3)


def test_a_bar_on_a_terminal(clock, lines):
    terminal = Terminal()
    with Progress("reading pages", total_parts=4, clock=clock, stream=terminal) as progress:
        for _ in range(1_000):
            clock.now += 0.01
            progress.update(pages=1)
        clock.now += 1
        progress.update(pages=100, rejected=7, parts=1)
        drawn = terminal.getvalue()
    assert "reading pages:  25%|" in drawn and "| 1,100 pages, 7 rejected, 100 pages/s, 33 s left" in drawn
    assert 20 < drawn.count("\r") < 100, "redrawn at every update, or hardly ever"
    assert lines() == ["reading pages: done in 11 s, 1,100 pages, 7 rejected, 100 pages/s"]
    assert terminal.getvalue().endswith("\r"), "the bar was left behind"


def test_a_bar_without_a_total(clock):
    terminal = Terminal()
    with Progress("reading pages", clock=clock, stream=terminal) as progress:
        clock.now += 2
        progress.update(pages=5)
        assert "reading pages: 5 pages, 0 rejected, 2.5 pages/s" in terminal.getvalue()
        assert "%" not in terminal.getvalue()


def test_no_standard_error_is_no_terminal(clock, lines, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)  # as under pythonw
    with Progress("reading", clock=clock) as progress:
        clock.now += 10
        progress.update(pages=1)
    assert len(lines()) == 2
