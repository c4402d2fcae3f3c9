r"""How far a run of `prepare` has come: a bar where there is a terminal, else a line in the log every ten seconds.

    >>> with Progress("reading pages", total_parts=4) as progress:                        # doctest: +SKIP
    ...     progress.update(pages=855, bytes=51_000_000, rejected=43, parts=1)
    reading pages:  25%|██▌       | 855 pages, 43 rejected, 71.2 pages/s, 4.2 MB/s, 36 s left

Whoever drives the run says what has been done, from one thread. Rates are those of this run since it began: what an
earlier run left done (`skip`) counts as done, but not for the speed. The time left goes by bytes or pages where their
total is known, else by parts.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm

from tf_llm.prepare.markup import format_count, format_rate, format_seconds

logger = logging.getLogger(__name__)

LOG_SECONDS = 10.0  # between lines of the log
DRAW_SECONDS = 0.2  # between changes of the bar
COUNTS = ("pages", "bytes", "rejected", "parts")


class Progress:
    """The progress of one stage; a context manager, which says at the end what was done.

    Args:
        title: what is being done: "reading pages".
        total_parts: how many there are; 0 where that is not known.
        total_pages, total_bytes: the same of pages and bytes; where one is known, the share that is done goes by it.
        clock: seconds, for tests.
        stream: where the bar is drawn if it is a terminal; standard error.
    """

    def __init__(
        self,
        title: str,
        total_parts: int = 0,
        total_bytes: int = 0,
        total_pages: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
    ):
        self.title, self.clock = title, clock
        totals = {"bytes": total_bytes, "pages": total_pages, "parts": total_parts}
        self.unit, self.total = next(((unit, total) for unit, total in totals.items() if total), ("parts", 0))
        self.done = dict.fromkeys(COUNTS, 0)
        self.skipped = dict.fromkeys(COUNTS, 0)
        self.begin = self.shown_at = clock()
        stream = sys.stderr if stream is None else stream
        self.bar = self._open_bar(stream) if stream is not None and stream.isatty() else None

    def update(self, *, pages: int = 0, bytes: int = 0, rejected: int = 0, parts: int = 0) -> None:
        """Adds what was done since the last call, and shows it if the time has come. Call it without arguments too,
        whenever you wait: then the speed and the time left stay true."""
        for name, more in zip(COUNTS, (pages, bytes, rejected, parts), strict=True):
            self.done[name] += more
        self._show_in_time()

    def set(self, **counts: int) -> None:
        """As `update`, but with what was done in all, `skip` included: `set(pages=855, parts=1)`."""
        if unknown := sorted(set(counts) - set(COUNTS)):
            raise ValueError(f"expected counts of {', '.join(COUNTS)}. Received: {', '.join(unknown)}")
        self.done.update(counts)
        self._show_in_time()

    def skip(self, *, pages: int = 0, bytes: int = 0, rejected: int = 0, parts: int = 0) -> None:
        """Adds what is done already and cost this run no time."""
        for name, more in zip(COUNTS, (pages, bytes, rejected, parts), strict=True):
            self.skipped[name] += more
        self.update(pages=pages, bytes=bytes, rejected=rejected, parts=parts)

    def share(self) -> float | None:
        """What is done of all, 0…1; None where the total is not known."""
        return min(self.done[self.unit] / self.total, 1.0) if self.total else None

    def seconds_left(self) -> float | None:
        """How long it takes from here on at the speed so far; None where that cannot be said yet."""
        fresh = self.done[self.unit] - self.skipped[self.unit]
        if not self.total or fresh <= 0:
            return None
        return max(self.total - self.done[self.unit], 0) * (self.clock() - self.begin) / fresh

    def describe(self, is_running: bool = True) -> str:
        """The state in one line, without title and share; the time left as long as it is running."""
        words = [f"{format_count(self.done['pages'])} pages", f"{format_count(self.done['rejected'])} rejected"]
        seconds = self.clock() - self.begin
        if seconds > 0:
            pages, size = (self.done[name] - self.skipped[name] for name in ("pages", "bytes"))
            words.append(f"{format_rate(pages / seconds)} pages/s")
            if self.done["bytes"]:
                words.append(f"{format_rate(size / 1e6 / seconds)} MB/s")
        if left := self.seconds_left() if is_running else None:
            words.append(f"{format_seconds(max(round(left), 1))} left")
        return ", ".join(words)

    def close(self, finished: bool = True) -> None:
        """Takes the bar away and writes the last line. To be called once."""
        if self.bar is not None:
            self.bar.close()
        seconds = self.clock() - self.begin
        how = "done in" if finished else "stopped after"
        logger.info("%s: %s %s, %s", self.title, how, format_seconds(seconds), self.describe(is_running=False))

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close(finished=kind is None)

    def _open_bar(self, stream: TextIO) -> tqdm:
        # The words and the clock are ours; tqdm draws, and knows the width of the terminal.
        return tqdm(total=self.total or None, file=stream, leave=False, dynamic_ncols=True, bar_format=self._form_bar())

    def _form_bar(self) -> str:
        share = "{percentage:3.0f}%|{bar}| " if self.total else ""
        return f"{self.title}: {share}{self.describe()}"

    def _show_in_time(self) -> None:
        now = self.clock()
        if now - self.shown_at < (LOG_SECONDS if self.bar is None else DRAW_SECONDS):
            return
        self.shown_at = now
        if self.bar is None:
            share = self.share()
            done = "" if share is None else f" {100 * share:.0f} %,"
            logger.info("%s:%s %s", self.title, done, self.describe())
        else:
            self.bar.n = min(self.done[self.unit], self.total) if self.total else self.done[self.unit]
            self.bar.bar_format = self._form_bar()
            self.bar.refresh()
