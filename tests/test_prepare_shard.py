"""One stage of one part: done once, whole or not there, and taken up where it was left, in the process of the test."""

import dataclasses
import doctest
import json
import threading
import time

import numpy as np
import pytest
from archives import write_html, write_record

from tf_llm.contracts import Document, Rejected
from tf_llm.crawl.warc import Warc
from tf_llm.data.shards import ShardConfig
from tf_llm.files import lock_folder
from tf_llm.prepare import count, documents, pulse, read, shard, task
from tf_llm.prepare.count import KEPT, load_kept
from tf_llm.prepare.documents import DOCUMENTS, DocumentLog, load_documents, read_entry, write_entry
from tf_llm.prepare.encode import TOKENIZER
from tf_llm.prepare.engine import write_tokenizer
from tf_llm.prepare.local import load_keys, save_repeats
from tf_llm.prepare.pulse import Pulse, lose_rest
from tf_llm.prepare.shard import process_shard
from tf_llm.prepare.task import Preparation, Task, place_of, publish
from tf_llm.text.builders import make_builder
from tf_llm.text.duplicate_keys import DuplicatesConfig
from tf_llm.text.duplicates import find_repeated_pages
from tf_llm.text.filters import FilterConfig
from tf_llm.text.html import HtmlConfig
from tf_llm.text.words import WordsConfig

PAGES = 12
STAGES = ("read", "count", "encode")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("TF_LLM_OFFLINE", "1")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Twelve pages, of which the third says nothing and the sixth repeats the second."""
    records = [write_record(f"https://example.org/{n}", write_html(2 if n == 5 else n + 1)) for n in range(PAGES)]
    records[2] = write_record("https://example.org/2", "<script>tea()</script>")
    records[1] = write_record("https://example.org/1", write_html(2))
    path = tmp_path_factory.mktemp("archive") / "pages.warc.gz"
    path.write_bytes(b"".join(records))
    return Warc(path)


def make_tasks(folder, source):
    """The stages of the only part of a corpus."""
    preparation = Preparation(
        html=HtmlConfig(),
        filters=FilterConfig(),
        duplicates=DuplicatesConfig(),
        shards=ShardConfig(validation_fraction=0.2, blocks_per_shard=10),
        builder=make_builder("words", WordsConfig(), 0),
    )
    tasks = {
        stage: Task(stage=stage, number=0, folder=str(folder), preparation=preparation, priced_fraction=1.0)
        for stage in STAGES
    }
    return tasks | {"read": dataclasses.replace(tasks["read"], source=source)}


def prepare_for(stage, tasks):
    """What comes before a stage: the stages before it, and the joins in between."""
    folder, preparation = place_of(tasks["read"].folder, 0, "").parent.parent, tasks["read"].preparation
    if stage in ("count", "encode"):
        process_shard(tasks["read"])
        (pages,) = find_repeated_pages([load_keys(folder, 0)], preparation.duplicates)
        save_repeats(folder, 0, pages, None)
    if stage == "encode":
        process_shard(tasks["count"])
        counts = json.loads((tasks["count"].place("count") / "counts.json").read_bytes())
        write_tokenizer(folder, 1, preparation, counts, None)


@pytest.fixture(scope="module")
def expected(source, tmp_path_factory):
    """What each stage makes when nothing stops it: {stage: {name: bytes}}."""
    tasks = make_tasks(tmp_path_factory.mktemp("expected"), source)
    prepare_for("encode", tasks)
    process_shard(tasks["encode"])
    return {stage: read_files(tasks[stage].place(stage)) for stage in STAGES}


def read_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("module", [documents, pulse, task], ids=lambda module: module.__name__)
def test_docstring_examples(module):
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0


class Stop(BaseException):
    """What ends a worker in these tests; nobody catches it."""


class Trap(Pulse):
    """Ends the worker when it looks for an item, or behind the last one."""

    def __init__(self, position=None):
        super().__init__()
        self.trap, self.looked = position, []

    def looks(self, position):
        super().looks(position)
        self.looked.append(position)
        if position == self.trap:
            raise Stop


def test_stages_hold_what_they_say(expected):
    assert sorted(expected["read"]) == ["documents.jsonl", "keys.npz", "statistics.json"]
    assert sorted(expected["count"]) == ["counts.json", "kept.npy", "statistics.json"]
    shards = {"train-00000.ids", "train-00001.ids", "validation-00000.ids"}
    assert expected["encode"].keys() >= {"residual.json", "statistics.json"} | shards
    read_pages, counted, encoded = (json.loads(expected[stage]["statistics.json"]) for stage in STAGES)
    assert (read_pages["pages"], read_pages["rejected"]) == (PAGES, {"no text": 1})
    assert (counted["documents"], counted["rejected"]) == (PAGES - 2, {"duplicate page": 1})
    assert sum(split["pages"] for split in encoded["splits"].values()) == PAGES - 2


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_done_is_not_done_again(source, expected, tmp_path, monkeypatch, stage):
    tasks = make_tasks(tmp_path, source)
    prepare_for(stage, tasks)
    statistics = process_shard(tasks[stage])
    assert statistics == json.loads(expected[stage]["statistics.json"])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setitem(shard.STAGES, stage, None)
    assert process_shard(tasks[stage]) == statistics
    assert process_shard(dataclasses.replace(tasks[stage], attempt="-2")) == statistics
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("position", [0, 4, 9, "behind"])
def test_a_stage_that_was_stopped_makes_the_same(source, expected, tmp_path, monkeypatch, stage, position):
    """Stopped between two items, and behind the last one with its statistics half written."""
    tasks = make_tasks(tmp_path, source)
    prepare_for(stage, tasks)
    place = tasks[stage].place(stage)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        if position == "behind":
            patch.setattr(shard, "write_atomically", stop_writing)
        process_shard(tasks[stage], Trap(position))
    assert not place.exists() and place.with_name(f"{stage}.partial").exists()
    process_shard(tasks[stage])
    files = read_files(place)
    assert files.pop("statistics.json.0.partial", b"{") == b"{"  # litter, of which nobody takes notice
    assert files == expected[stage]
    assert not place.with_name(f"{stage}.partial").exists()


def stop_writing(path, content):
    path.with_name(f"{path.name}.0.partial").write_bytes(b"{")
    raise Stop


def test_pages_are_not_read_again(source, expected, tmp_path, monkeypatch):
    first, second = make_tasks(tmp_path, source)["read"], Trap()
    with pytest.raises(Stop):
        process_shard(first, Trap(7))
    log = tmp_path / "parts" / "00000" / "read.partial" / DOCUMENTS
    with log.open("ab") as file:
        file.write(b'{"url": "https://example.org/7", "text": "Te')  # it was killed while it wrote
    read_pages = []
    clean_page = read.clean_page
    monkeypatch.setattr(read, "clean_page", lambda page, *rest: read_pages.append(page.url) or clean_page(page, *rest))
    process_shard(first, second)
    assert read_pages == [f"https://example.org/{n}" for n in range(7, PAGES)]
    assert second.counted[0] == PAGES - 7
    assert second.looked[:7] == [0] * 7  # it was heard of for every line of the log
    assert read_files(first.place("read")) == expected["read"]


RESULTS = [
    Document("http://a.example/", "Green\ntea.", ("eng",)),
    Rejected("http://b.example/\ud83d", "no text", "half a pair"),
    Document("http://c.example/", "茶 \u2028 👩"),
]


def test_a_log_goes_on_from_every_byte_at_which_it_can_be_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(documents.os, "fsync", lambda file: None)  # two hundred times: disks are slow
    entries = [write_entry(result, number, {"phone": number}) for number, result in enumerate(RESULTS)]
    with DocumentLog(tmp_path) as log:
        for entry in entries:
            log.append(entry)
    whole = (tmp_path / DOCUMENTS).read_bytes()
    ends = [0, *(place + 1 for place, byte in enumerate(whole) if byte == ord("\n"))]
    assert len(ends) == 4
    for length in range(len(whole) + 1):
        (tmp_path / DOCUMENTS).write_bytes(whole[:length])
        with DocumentLog(tmp_path) as log:
            done = list(log.replay())
            assert len(done) == sum(end <= length for end in ends[1:]) and done == entries[: len(done)]
            assert (tmp_path / DOCUMENTS).stat().st_size == ends[len(done)]
            for entry in entries[len(done) :]:
                log.append(entry)
        assert (tmp_path / DOCUMENTS).read_bytes() == whole
    assert [read_entry(entry) for entry in entries] == RESULTS
    assert list(load_documents(tmp_path)) == [RESULTS[0], RESULTS[2]]


def test_what_a_power_cut_leaves_in_a_log_is_removed(tmp_path):
    """Blocks of zeros in place of what had not reached the disk; nothing behind them is believed."""
    entry = write_entry(RESULTS[0], 1)
    line = json.dumps(entry).encode() + b"\n"
    (tmp_path / DOCUMENTS).write_bytes(line + bytes(100) + b"\n" + line)
    with DocumentLog(tmp_path) as log:
        assert list(log.replay()) == [entry]
    assert (tmp_path / DOCUMENTS).read_bytes() == line


def test_two_at_one_part_wait_for_each_other(source, expected, tmp_path):
    """An orphan of a run that was killed may write on for a moment: until it is gone, nobody else begins."""
    begun = make_tasks(tmp_path, source)["read"]
    place = begun.place("read")
    place.parent.mkdir(parents=True)
    with lock_folder(place.parent):  # by the orphan
        thread = threading.Thread(target=process_shard, args=[begun])
        thread.start()
        time.sleep(0.2)
        assert not list(place.parent.iterdir())
    thread.join(timeout=20)
    assert read_files(place) == expected["read"]


def test_of_two_attempts_at_once_one_wins(source, expected, tmp_path, monkeypatch):
    """As where a cluster starts a part again on another machine; locks do not reach so far."""
    tasks = [dataclasses.replace(make_tasks(tmp_path, source)["read"], attempt=attempt) for attempt in ("-1", "-2")]

    def be_slow(*arguments):
        monkeypatch.undo()
        assert process_shard(tasks[1]) == json.loads(expected["read"]["statistics.json"])
        return read.read_pages(*arguments)

    monkeypatch.setitem(shard.STAGES, "read", be_slow)
    assert process_shard(tasks[0]) == json.loads(expected["read"]["statistics.json"])
    assert [path.name for path in (tmp_path / "parts" / "00000").iterdir()] == ["read"]
    assert read_files(tasks[0].place("read")) == expected["read"]


def test_a_folder_gets_its_name_when_all_its_files_are_on_the_disk(source, tmp_path, monkeypatch):
    tasks, synced = make_tasks(tmp_path, source), set()

    def sync(path):
        assert path.parent.suffix == ".partial" and not path.parent.with_suffix("").exists()
        synced.add(path.relative_to(tmp_path / "parts" / "00000").as_posix())

    monkeypatch.setattr(task, "sync_file", sync)
    process_shard(tasks["read"])
    save_repeats(tmp_path, 0, np.zeros(2, np.uint8), np.zeros(3, bool))
    assert synced == {
        *(f"read.partial/{path.name}" for path in tasks["read"].place("read").iterdir()),
        "repeats.partial/pages.npy",
        "repeats.partial/lines.npy",
    }


def test_a_folder_that_cannot_have_its_name_is_an_error(tmp_path):
    (tmp_path / "repeats.partial").mkdir()
    (tmp_path / "repeats").write_text("in the way")
    with pytest.raises(OSError, match="repeats"):
        publish(tmp_path / "repeats.partial", tmp_path / "repeats")
    assert (tmp_path / "repeats.partial").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_items_that_ended_workers_are_passed_over_and_counted(source, tmp_path, stage):
    tasks = make_tasks(tmp_path, source)
    prepare_for(stage, tasks)
    faults = {3: ("out of time", "10 s"), lose_rest(6): ("worker died", "exit code -11")}
    rejected = process_shard(tasks[stage], Trap(), faults)["rejected"]
    assert (rejected["out of time"], rejected["rest of the part lost"]) == (1, 1)


def test_what_lies_behind_a_lost_rest_is_never_touched(source, tmp_path, monkeypatch):
    """Nor in the stages that follow, in which it would end workers again."""
    tasks = make_tasks(tmp_path, source)
    prepare_for("count", tasks)
    process_shard(tasks["count"], None, {lose_rest(6): ("worker died", "exit code -11")})
    assert len(np.load(tasks["count"].place("count") / KEPT)) == 6

    def load_all(folder):
        for number, document in enumerate(load_documents(folder)):
            assert number < 6
            yield document

    monkeypatch.setattr(count, "load_documents", load_all)
    kept = list(load_kept(tmp_path, 0, tasks["read"].preparation))
    assert [document.url[-1] for document in kept] == ["0", "1", "3", "4", "6"]  # the sixth document is a repetition
    counts = json.loads((tasks["count"].place("count") / "counts.json").read_bytes())
    write_tokenizer(tmp_path, 1, tasks["read"].preparation, counts, None)
    assert (tmp_path / TOKENIZER).exists()
    splits = process_shard(tasks["encode"])["splits"]
    assert sum(split["pages"] for split in splits.values()) == 5


def test_an_error_of_the_code_costs_its_page(source, tmp_path, monkeypatch):
    tasks = make_tasks(tmp_path, source)
    monkeypatch.setattr(read, "strip_html", lambda page, config: 1 / 0)
    statistics = process_shard(tasks["read"])
    assert statistics["rejected"] == {"worker error": PAGES}
    assert statistics["examples"]["worker error"][0]["detail"] == "ZeroDivisionError('division by zero')"

    def fill(page, config):
        raise MemoryError

    monkeypatch.setattr(read, "strip_html", fill)
    with pytest.raises(MemoryError):  # the worker has to end: what filled its memory may be there still
        process_shard(dataclasses.replace(tasks["read"], number=1))
