"""What a worker gets to do, and how it goes through it: what all stages of the unit of work share (shard.py)."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tf_llm.contracts import Rejected, Source
from tf_llm.data.shards import ShardConfig
from tf_llm.files import sync_file
from tf_llm.prepare.pulse import Faults, Pulse, lose_rest
from tf_llm.text.duplicate_keys import DuplicatesConfig
from tf_llm.text.filters import FilterConfig
from tf_llm.text.html import HtmlConfig

if TYPE_CHECKING:
    from tf_llm.text.builders import Builder

STATISTICS = "statistics.json"
REST_LOST = "rest of the part lost"
DETAIL_LENGTH = 300  # an exception may quote the whole page

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """All that decides what becomes of a page, the source apart. It travels to every worker."""

    html: HtmlConfig
    filters: FilterConfig
    duplicates: DuplicatesConfig
    shards: ShardConfig
    builder: Builder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One stage of one part, as a worker gets it."""

    stage: str
    number: int  # of the part
    folder: str  # of the whole preparation, which all workers see
    preparation: Preparation
    source: Source | None = None  # the pages of the part, for the stage that reads them
    priced_fraction: float = 0.0  # of the training documents, for the stage that encodes them
    attempt: str = ""  # names what is half done; without a name it is taken up again by the next attempt

    def place(self, stage: str) -> Path:
        """Where a stage of this part is, or will be."""
        return place_of(self.folder, self.number, stage)


def place_of(folder: str | Path, number: int, stage: str) -> Path:
    """Where a stage of a part is, once it is done."""
    return Path(folder) / "parts" / f"{number:05d}" / stage


def load_statistics(place: Path) -> dict[str, Any]:
    """What a stage has counted that is done."""
    return json.loads((place / STATISTICS).read_bytes())


def publish(partial: Path, place: Path) -> None:
    """Gives a folder in which all is done the name under which others look for it; what it holds is on the disk first.

    Where another attempt was quicker, its folder stays, for it holds the same, and this one is removed.

    Raises:
        OSError: it cannot be renamed.
    """
    for file in partial.iterdir():
        sync_file(file)  # or a power cut may find the folder before what is in it
    try:
        partial.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        shutil.rmtree(partial, ignore_errors=True)


def follow(
    items: Iterable[Item], pulse: Pulse, faults: Faults, name: str, start: int = 0
) -> Iterator[tuple[Item, Rejected | None]]:
    """The items from number `start` on, each with the fault that is known of it; tells the pulse where it is.

    What is known to end workers is not to be touched again: the item comes with a Rejected. Where the items behind one
    cannot be reached, the last pair is (None, Rejected), of the part itself, called `name`.

    >>> faults = {1: ("out of time", "10 s"), lose_rest(3): ("worker died", "exit code -11")}
    >>> for item, fault in follow("abcd", Pulse(), faults, "part 7"):
    ...     print(item, fault and fault.reason)
    a None
    b out of time
    c None
    None rest of the part lost
    """
    items = iter(items)
    for position in itertools.count():
        pulse.looks(position)
        if lost := faults.get(lose_rest(position)):
            yield None, Rejected(name, REST_LOST, ": ".join(lost))
            return
        try:
            item = next(items)
        except StopIteration:
            return
        if position < start:
            continue
        pulse.works(position)
        yield item, Rejected(getattr(item, "url", ""), *faults[position]) if position in faults else None


@contextlib.contextmanager
def survive(url: str) -> Iterator[list[Rejected]]:
    """Turns an exception that a page provokes into a Rejected, in the list that it yields. Memory is another matter:
    what filled it may be there still, and the worker has to end.

    >>> with survive("http://a.example/") as faults:
    ...     1 / 0
    >>> faults
    [Rejected(url='http://a.example/', reason='worker error', detail="ZeroDivisionError('division by zero')")]
    """
    faults: list[Rejected] = []
    try:
        yield faults
    except MemoryError:
        raise
    except Exception as error:
        faults.append(Rejected(url, "worker error", repr(error)[:DETAIL_LENGTH]))
