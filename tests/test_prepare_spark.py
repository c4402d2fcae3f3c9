"""Spark as a driver: what one machine makes, byte for byte, also when machines are lost on the way."""

import collections
import dataclasses
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from archives import write_html, write_prose, write_record
from trying_sources import Slow, Unreachable

import tf_llm
from tf_llm.contracts import UserError
from tf_llm.crawl.warc import Warc
from tf_llm.prepare import spark
from tf_llm.prepare.count import COUNTS
from tf_llm.prepare.local import Local, save_repeats
from tf_llm.prepare.read import KEYS
from tf_llm.prepare.spark import Spark
from tf_llm.prepare.task import place_of
from tf_llm.prepare.worker import WorkerConfig
from tf_llm.text.duplicate_keys import DuplicatesConfig, KeyWriter

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.append(str(REPOSITORY / "examples" / "benchmarks"))
from spark_cluster import SETTINGS, Cluster  # noqa: E402

EVERYTHING = DuplicatesConfig(names="addresses,pages,near,lines")
PARTS = 6


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("TF_LLM_OFFLINE", "1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two machines, which find this package where the tests do."""
    pytest.importorskip("pyspark", reason="needs pyspark: pip install 'tf_llm[spark]'")
    try:
        spark.require_pyspark()
        spark.require_java()
    except UserError as error:
        pytest.skip(str(error))
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs Linux's /proc, to end all that Spark has started")
    paths = [str(REPOSITORY), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        patch.setenv("TF_LLM_OFFLINE", "1")
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def session(cluster):
    session = spark.open_session(cluster.master, SETTINGS)
    yield session
    session.stop()


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Three archives that have addresses, pages, lines and nearly all of some pages in common."""
    folder, draw = tmp_path_factory.mktemp("archives"), random.Random(0)
    for file in range(3):
        pages = [(f"https://example.org/{file}/{n}", write_html(100 * file + n)) for n in range(20)]
        pages += [(f"https://example.org/shared/{n}", write_html(900 + n)) for n in range(2)]
        pages += [(f"https://copy{file}.example/{n}", write_html(800 + n)) for n in range(3)]
        for n in range(3):
            for word in ("new", "odd"):
                html = write_html(700 + n).replace("old", word + str(file), 1)
                pages.append((f"https://near{file}.example/{n}/{word}", html))
        draw.shuffle(pages)
        pages = [(url, html.replace("</main>", "<p>All rights reserved.</p></main>")) for url, html in pages]
        (folder / f"{file}.warc.gz").write_bytes(b"".join(write_record(*page) for page in pages))
    return str(folder / "*.warc.gz")


@pytest.fixture(scope="module")
def expected(archives, tmp_path_factory):
    """What one machine makes of them."""
    return tf_llm.prepare(Warc(archives), make_run(), tmp_path_factory.mktemp("local") / "data").folder


def make_run():
    run = tf_llm.recipes.article()
    shards = dataclasses.replace(run.shards, validation_fraction=0.2, blocks_per_shard=50, parts=PARTS)
    return dataclasses.replace(run, shards=shards, duplicates=EVERYTHING, workers=WorkerConfig(processes=1))


def read_folder(folder):
    """Everything in the files of a folder, but for how long it took. The report is made of the statistics."""
    contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "report.html"}
    return {
        name: drop_seconds(json.loads(content)) if ".json" in name else content for name, content in contents.items()
    }


def drop_seconds(value):
    if isinstance(value, dict):
        return {name: drop_seconds(inner) for name, inner in value.items() if "second" not in name}
    return value


def test_the_same_shards_as_on_one_machine(session, archives, expected, tmp_path):
    shards = tf_llm.prepare(Warc(archives), make_run(), tmp_path / "data", driver=Spark(session=session))
    contents = read_folder(shards.folder)
    assert contents == read_folder(expected)
    assert len([name for name in contents if name.startswith("train-")]) >= PARTS
    rejections = shards.about["rejections"]
    assert rejections["duplicate address"] == 4 and rejections["duplicate page"] == 6
    assert rejections["near-duplicate page"] == 15
    assert not (tmp_path / "data.partial").exists()


def test_a_machine_that_is_lost_costs_nothing(cluster, session, archives, expected, tmp_path):
    """While both workers are at a part, one is killed with its executor and all that they have started."""
    places, killed, is_over = tmp_path / "data.partial" / "parts", [], threading.Event()

    def kill():
        while len(list(places.glob("*/read.*.partial"))) < 2:
            if is_over.wait(0.02):
                return
        time.sleep(0.2)  # a few pages on
        killed.append((cluster.kill_worker(cluster.workers[-1]), len(list(places.glob("*/read")))))

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    shards = tf_llm.prepare(Slow(archives), make_run(), tmp_path / "data", driver=Spark(session=session))
    is_over.set()
    thread.join(10)
    ((processes, parts_done),) = killed
    assert processes >= 4  # the worker, its executor, Spark's Python, and below that our own worker
    assert parts_done <= PARTS - 2
    assert read_folder(shards.folder) == read_folder(expected)


def write_keys(folder, parts):
    """The keys of made-up pages, with all kinds of repetitions between parts and within them; one part is empty."""
    draw = random.Random(5)
    texts = [write_prose(seed, 60).replace(". ", ".\n") for seed in range(12)]
    for part in range(parts):
        writer = KeyWriter(EVERYTHING)
        for number in range(0 if part == 2 else 25):
            words = draw.choice(texts).split(" ")
            for _ in range(draw.choice([0, 0, 1, 4, 16, 64])):
                words[draw.randrange(len(words))] = draw.choice(["jar", "JAR", "pot\nlid"])
            address = draw.choice([f"http://example.org/{part}/{number}", f"http://example.org/{draw.randrange(40)}"])
            writer.add(address, draw.choice(["", " ".join(words), " ".join(words)]))
        place_of(folder, part, "read").mkdir(parents=True)
        with (place_of(folder, part, "read") / KEYS).open("wb") as file:
            np.savez(file, **writer.close())


@pytest.mark.parametrize("names", ["addresses,pages,near,lines", "lines"])
def test_repeats_are_those_that_one_machine_finds(session, names, tmp_path):
    config = DuplicatesConfig(names=names)
    found = []
    for name, driver in (("local", Local(WorkerConfig(processes=1))), ("spark", Spark(session=session))):
        write_keys(tmp_path / name, parts=4)
        with driver:
            numbers = driver.find_repeats(tmp_path / name, 4, config)
        places = [place_of(tmp_path / name, part, "repeats") for part in range(4)]
        found.append((numbers, [{path.name: path.read_bytes() for path in place.iterdir()} for place in places]))
    assert found[0] == found[1]
    assert found[0][0]["lines"] > 100
    verdicts = [np.load(tmp_path / "spark" / "parts" / f"{part:05d}" / "repeats" / "pages.npy") for part in range(4)]
    assert set(np.concatenate(verdicts)) == ({0, 1, 2, 3} if "near" in names else {0}) and len(verdicts[2]) == 0


def test_what_a_machine_cannot_write_in_a_join_is_one_line(session, tmp_path):
    write_keys(tmp_path, parts=2)
    in_the_way = place_of(tmp_path, 1, "repeats.lines.npy")
    in_the_way.mkdir()
    with Spark(session=session) as driver:
        with pytest.raises(UserError, match=r"^cannot write .*repeats\.lines\.npy: expected room for .* bytes, rec.*$"):
            driver.find_repeats(tmp_path, 2, DuplicatesConfig(names="lines"))
        in_the_way.rmdir()
        place_of(tmp_path, 0, "repeats").symlink_to("nowhere")
        with pytest.raises(NotADirectoryError, match=r"^\[Errno 20\] Not a directory: .*/repeats'$"):
            driver.find_repeats(tmp_path, 2, DuplicatesConfig(names="lines"))


def test_other_errors_of_sparks_stay_what_they_are():
    with pytest.raises(RuntimeError, match="lost"), spark.pass_on_errors():
        raise RuntimeError("a machine was lost: [Errno 28] and UserError: are only mentioned")
    text = "Traceback:\n  File\nOSError: [Errno 28] No space left on device\n\n\tat java.lang.Thread.run\n"
    with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device$"), spark.pass_on_errors():
        raise RuntimeError(text)


def test_words_of_any_characters_are_counted(session, tmp_path):
    words = ["tea", "", "a\0b", "\ud800", "\udfff\ud800", "茶", "\U0001f375", "\0", "ÿ"]
    draw = random.Random(0)
    for part in range(3):
        place_of(tmp_path, part, "count").mkdir(parents=True)
        counts = {word: draw.randrange(1, 2**40) for word in draw.sample(words, 6 if part else 0)}
        (place_of(tmp_path, part, "count") / COUNTS).write_text(json.dumps(counts))
    with Spark(session=session) as driver, Local(WorkerConfig(processes=1)) as local:
        counts = driver.add_counts(tmp_path, 3)
        assert counts == local.add_counts(tmp_path, 3) and len(counts) > 6 and type(counts) is collections.Counter


def test_what_people_have_to_see_to_arrives_as_it_was_raised(session, archives, tmp_path):
    with pytest.raises(UserError, match=r"^expected an answer\. Received: silence\. Ask again tomorrow$"):
        tf_llm.prepare(Unreachable(archives), make_run(), tmp_path / "data", driver=Spark(session=session))


def test_another_session_than_the_master_asked_for_is_refused(session):
    with pytest.raises(UserError, match=r"than one of spark://elsewhere:7077\. Received: one of spark://127\.0\.0\.1:"):
        Spark("spark://elsewhere:7077").__enter__()


def test_missing_packages_and_java_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(spark.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"Received: no pyspark\. pip install 'tf_llm\[spark\]'$"):
        Spark().__enter__()
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"expected Java 17 or newer\. Received: none on the PATH\. Install it"):
        spark.require_java()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"Received: none at .*nowhere/bin/java\. Install it"):
        spark.require_java()


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_452"', 8),
        ('openjdk version "21" 2023-09-19 LTS', 21),
        ("command not found", None),
    ],
)
def test_the_version_of_java(monkeypatch, said, version):
    answer = subprocess.CompletedProcess([], 0, stdout="", stderr=f"{said}\nOpenJDK Runtime Environment\n")
    monkeypatch.setattr(spark.subprocess, "run", lambda *_, **__: answer)
    assert spark.find_java_version("java") == version
    if version == 8:
        with pytest.raises(UserError, match=r"Received: Java 8 at "):
            spark.require_java()


def test_two_attempts_at_the_verdicts_of_a_part_do_not_meet(tmp_path):
    place_of(tmp_path, 0, "").mkdir(parents=True)
    for attempt in (".one", ".two"):
        save_repeats(tmp_path, 0, np.array([0, 2], np.uint8), None, attempt)
    assert [path.name for path in place_of(tmp_path, 0, "").iterdir()] == ["repeats"]
