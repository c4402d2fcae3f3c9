"""Does a preparation that is killed end as if nothing had been, and what does a damaged archive cost?

    python examples/benchmarks/crash_safe_prepare.py --data ../shared/data    50 kills, 1,000 mutations: 10 minutes
    python examples/benchmarks/crash_safe_prepare.py --quick                  4 kills, 60 mutations: under a minute

First, pages are prepared by two workers, once undisturbed. Then a run is killed with SIGKILL, and the same command goes
on. Two of three runs are killed at a moment that was drawn, one in each of as many equal stretches of the undisturbed
run; the third when a stage has begun that was drawn, for some are short; every fifth once more on its way to the end.
Mostly that hits all processes of the run; every fourth time the driver alone, whose workers have to end by themselves
while the next run begins already; and every fourth time one worker, without which the run goes on by itself. In the end
the folder must hold the same files, byte for byte, but for the times in manifest.json and statistics.json, and
report.html, which shows them; nothing may lie beside it, and no process be left.

Second, an archive is damaged in a way and at a place that were drawn: bytes changed, the end cut off, bytes inserted, a
stretch removed or doubled. It is read as prepare reads it, by crawl.Warc and the stage "read". Nothing may be raised;
every record that was not hit must arrive, and no text that was never there; and what is lost must be counted.

Pages are those of warc/real-pages.warc.gz in the folder that --data or TF_LLM_DATA names; without it, made-up ones.
You should see "every run ended byte for byte as the undisturbed one" and four columns of zeros.
"""

import contextlib
import gzip
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections import Counter
from pathlib import Path

from absl import app, flags, logging

from tf_llm.contracts import Rejected, UserError
from tf_llm.crawl.records import read_records
from tf_llm.crawl.warc import MAX_BYTES, Warc
from tf_llm.data.shards import ShardConfig
from tf_llm.prepare import engine
from tf_llm.prepare.documents import load_documents
from tf_llm.prepare.shard import process_shard
from tf_llm.prepare.task import Preparation, Task
from tf_llm.prepare.worker import WorkerConfig
from tf_llm.text.builders import make_builder
from tf_llm.text.duplicate_keys import DuplicatesConfig
from tf_llm.text.filters import FilterConfig
from tf_llm.text.html import HtmlConfig
from tf_llm.text.words import WordsConfig

SETTINGS = types.SimpleNamespace(
    html=HtmlConfig(),
    filters=FilterConfig(),
    duplicates=DuplicatesConfig(names="pages,near,lines"),
    words=WordsConfig(stop_words="own"),
    tokens="words",
    shards=ShardConfig(blocks_per_shard=500),
    workers=WorkerConfig(processes=2),
)
EVERY_AIMED, EVERY_TWICE = 3, 5  # runs: killed at the beginning of a stage, and killed again
VICTIMS = ("all", "driver", "all", "worker")
STAGES = ("starting", "reading", "duplicates", "counting", "vocabulary", "encoding", "assembling", "clearing up")
PAGES, QUICK_PAGES = 600, 120  # to prepare
KINDS = ("change", "cut", "insert", "remove", "double")
RECORDS, LARGEST_RECORD = 12, 60_000  # of the archive that is damaged
SECONDS_TO_READ = 20.0  # a damaged archive may take at most; a sound one takes a tenth of a second
SECONDS_TO_END = 20.0  # for the workers of a driver that was killed

_DATA = flags.DEFINE_string("data", os.environ.get("TF_LLM_DATA", "../shared/data"), "The folder of test data.")
_QUICK = flags.DEFINE_bool("quick", False, "4 kills and 60 mutations.")
_KILLS = flags.DEFINE_integer("kills", 50, "How many kills.")
_MUTATIONS = flags.DEFINE_integer("mutations", 1000, "How many damaged archives.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments and the damages.")
_CHILD = flags.DEFINE_list("child", None, "Folder and archives: be the process that is killed.")


# === Pages ===


def load_pages(count):
    """So many records of real pages, or of made-up ones, each as its bytes."""
    path = Path(_DATA.value) / "warc" / "real-pages.warc.gz"
    if not path.is_file():
        print(f"{path} is not there; the pages are made up")
        return [make_record(number) for number in range(count)]
    with path.open("rb") as file:
        records = (each for each in read_records(file, path.name, MAX_BYTES) if not isinstance(each, Rejected))
        return [record + b"\r\n\r\n" for record in itertools.islice(records, count)]


def make_record(number):
    """A record of words that follow each other in a pattern."""
    draw = random.Random(number)
    words = [f"word{i}" for i in range(3000)]
    lines = [" ".join(words[min(int(draw.expovariate(0.002)), 2999)] for _ in range(60)) for _ in range(40)]
    body = f"<html><body><h1>Page {number}</h1>{''.join(f'<p>{line}.</p>' for line in lines)}</body></html>"
    block = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{body}".encode()
    head = (
        f"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: https://example.org/{number}\r\n"
        f"WARC-Date: 2026-11-01T00:00:00Z\r\nWARC-Record-ID: <urn:x:{number}>\r\n"
        f"WARC-Block-Digest: sha256:{hashlib.sha256(block).hexdigest()}\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def compress(record):
    return gzip.compress(record, compresslevel=6, mtime=0)


# === Kills ===


def start(folder, archives):
    """Starts a run, or starts it again, in a session of its own."""
    command = [sys.executable, __file__, f"--child={','.join(map(str, [folder / 'data', *archives]))}"]
    environment = os.environ | {"TF_LLM_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


def list_group(leader):
    """[(process, its command)] of all living processes of a run."""
    command = ["ps", "-eo", "pid=,pgid=,stat=,args="]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    processes = (line.split(maxsplit=3) for line in lines)
    return [(int(pid), args) for pid, group, stat, args in processes if int(group) == leader and stat[0] != "Z"]


def wait(process, folder, moment, rng):
    """Waits for so many seconds, or until a stage has begun; no longer than the run takes."""
    if isinstance(moment, str):
        while process.poll() is None and STAGES.index(find_stage(folder)) < STAGES.index(moment):
            time.sleep(0.002)
        moment = rng.choice([0.0, rng.uniform(0, 0.1)])
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=moment)


def kill(process, victim, rng):
    """Kills all or some of a run. Returns who was killed, nobody where the run is over."""
    if process.poll() is not None:
        return ""
    workers = []
    if victim != "all":
        workers = [pid for pid, command in list_group(process.pid) if "spawn_main" in command]
    if victim == "worker" and workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(workers), signal.SIGKILL)
        return victim
    if victim == "driver" and workers:
        process.kill()
    else:
        victim = "all"
        os.killpg(process.pid, signal.SIGKILL)
    return victim if process.wait() == -signal.SIGKILL else ""


def find_stage(folder):
    """What a run is, or was, at by what lies there."""
    partial = folder / "data.partial"
    if (folder / "data").exists():
        return "clearing up"
    if not (partial / "parts").exists():
        return "starting"
    for stage, title in (("read", "reading"), ("count", "counting"), ("encode", "encoding")):
        if len(list(partial.glob(f"parts/*/{stage}"))) < len(list(partial.glob("parts/*"))):
            return title
        if stage == "read" and not (partial / "repeated.json").exists():
            return "duplicates"
        if stage == "count" and not (partial / "tokenizer.json").exists():
            return "vocabulary"
    return "assembling"


def read_folder(folder):
    """All that a folder of shards holds and that is the same in every run."""
    files = {path.name: path.read_bytes() for path in (folder / "data").iterdir()}
    manifest, statistics = (json.loads(files[name]) for name in ("manifest.json", "statistics.json"))
    del manifest["about"]["seconds"], statistics["seconds"], statistics["per_second"]
    return files | {"manifest.json": manifest, "statistics.json": statistics, "report.html": None}


def finish(folder, archives):
    """Runs to the end. Returns the seconds that it took; raises CalledProcessError where it fails."""
    begin = time.perf_counter()
    process = start(folder, archives)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, "prepare")
    return time.perf_counter() - begin


def count_left(leaders):
    """How many processes of killed runs are still there after a while."""
    deadline = time.monotonic() + SECONDS_TO_END
    while (left := [pid for leader in leaders for pid, _ in list_group(leader)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(left)


def draw_moments(kills, rng):
    """Shares of a run, one in each of as many stretches as there are runs that are killed by the clock."""
    count = max(1, round(kills * EVERY_TWICE / (EVERY_TWICE + 1) * (EVERY_AIMED - 1) / EVERY_AIMED))
    return [(stretch + rng.random()) / count for stretch in rng.sample(range(count), count)]


def kill_runs(folder, kills, records, rng):
    """Prints a line for each run that is killed. Returns how many went wrong."""
    archives = [folder / f"{half}.warc.gz" for half in (0, 1)]
    for half, path in enumerate(archives):
        path.write_bytes(b"".join(map(compress, records[half::2])))
    (folder / "whole").mkdir()
    seconds = finish(folder / "whole", archives)
    expected = read_folder(folder / "whole")
    start_seconds = finish(folder / "whole", archives)  # there is nothing left to do
    pages = json.loads((folder / "whole" / "data" / "statistics.json").read_bytes())["pages"]
    print(f"{pages} pages take {seconds:.1f} s undisturbed, {start_seconds:.1f} s of them to start\n")

    moments, done, wrong, stages = draw_moments(kills, rng), 0, 0, Counter()
    print(f"{'run':>4}  {'killed while':28}{'after seconds':18}{'who':18}{'left':>6}{'equal':>7}")
    for number in itertools.count():
        if done >= kills:
            break
        place, process, hits, leaders, error = folder / f"run-{number}", None, [], [], ""
        place.mkdir()
        is_aimed = number % EVERY_AIMED == EVERY_AIMED - 1 or not moments
        planned = [rng.choice(STAGES[1:]) if is_aimed else moments[-1] * seconds]
        if number % EVERY_TWICE == EVERY_TWICE - 1:
            planned.append(rng.uniform(0, seconds))
        for moment in planned[: kills - done]:
            if process is None or process.poll() is not None:
                process = start(place, archives)
                leaders.append(process.pid)
            begin = time.monotonic()
            wait(process, place, moment, rng)
            stage = find_stage(place)
            after = time.monotonic() - begin
            victim = kill(process, VICTIMS[(done + len(hits)) % len(VICTIMS)], rng)
            if not victim:
                break
            hits.append((stage, f"{after:.2f}", victim))
        try:
            if process.poll() is None:  # it goes on without a worker
                process.wait()
            if process.returncode:
                finish(place, archives)
            equal = read_folder(place) == expected and [path.name for path in place.iterdir()] == ["data"]
        except (subprocess.CalledProcessError, OSError) as failure:
            equal, error = False, f"{failure}: {place.with_suffix('.log').read_text()[-500:]}"
        if hits and not is_aimed:
            moments.pop()
        elif not hits:  # the machine is faster than it was: the moment comes again, and earlier
            seconds = after
        left = count_left(leaders)
        done, wrong = done + len(hits), wrong + (not equal or left > 0)
        stages.update(stage for stage, _, _ in hits)
        cells = [", ".join(column) for column in zip(*hits, strict=True)] or ["(over)", "", ""]
        print(f"{number:4}  {cells[0]:28}{cells[1]:18}{cells[2]:18}{left:6}{equal!s:>7} {error}", flush=True)
        if equal:
            shutil.rmtree(place)
    print(f"\n{done} kills: " + ", ".join(f"{stages[stage]} {stage}" for stage in STAGES))
    print("every run ended byte for byte as the undisturbed one" if not wrong else f"{wrong} runs went wrong")
    return wrong


# === Damage ===


def damage(parts, kind, rng):
    """Damages an archive of records, each in its part. Returns its bytes and the numbers of the records that were hit.

    Places are drawn inside records: what is cut or removed exactly between two leaves a sound archive.
    """
    content = b"".join(parts)
    ends = list(itertools.accumulate(map(len, parts)))

    def record_at(place):
        return sum(end <= place for end in ends)

    first, last = sorted(rng.sample([place for place in draw_places(rng, len(content)) if place not in ends], 2))
    if kind == "change":
        places = {first, *(rng.randrange(len(content)) for _ in range(rng.choice([0, 0, 1, 3, 7])))}
        changed = bytearray(content)
        for place in places:
            changed[place] ^= rng.randrange(1, 256)
        return bytes(changed), {record_at(place) for place in places}
    if kind == "cut":
        return content[:last], set(range(record_at(last), len(parts)))
    if kind == "insert":
        inserted = rng.randbytes(rng.choice([1, 10, 1000, 100_000]))
        return content[:first] + inserted + content[first:], {record_at(first)}
    last = min(last, first + rng.choice([1, 100, 10_000, len(content)]))
    if kind == "remove":
        return content[:first] + content[last:], set(range(record_at(first), record_at(last - 1) + 1))
    return content[:last] + content[first:], {record_at(last)}  # a stretch comes twice


def draw_places(rng, size):
    """Some places, none of them the first byte."""
    return [rng.randrange(1, size) for _ in range(20)]


def read_archive(path, folder, preparation):
    """The texts of an archive, and what the stage has counted; the folder is cleared again."""
    try:
        source = Warc(path)
    except UserError:  # it says so: there is not one sound record
        return [], {"rejected": {"refused": 1}, "pages": 1, "documents": 0}
    task = Task(stage="read", number=0, folder=str(folder), preparation=preparation, source=source)
    statistics = process_shard(task)
    texts = [document.text for document in load_documents(task.place("read"))]
    shutil.rmtree(folder)
    return texts, statistics


def damage_archives(folder, mutations, records, rng):
    """Prints a table of what was lost of damaged archives. Returns the number of faults."""
    stages = {name: getattr(SETTINGS, name) for name in ("html", "filters", "duplicates", "shards")}
    preparation = Preparation(builder=make_builder(SETTINGS.tokens, SETTINGS.words, 0), **stages)
    path = folder / "damaged.warc.gz"
    result = {(container, kind): Counter() for container in ("gzip", "uncompressed") for kind in KINDS}
    slowest = 0.0
    texts, archives = load_texts(records, path, folder, preparation)
    for number in range(mutations):
        container, kind = list(result)[number % len(result)]
        content, hit = damage(archives[container], kind, rng)
        path.write_bytes(content)
        counts, begin = result[container, kind], time.perf_counter()
        counts["archives"] += 1
        try:
            found, statistics = read_archive(path, folder / "read", preparation)
        except Exception as error:
            counts["crashed"] += 1
            print(f"mutation {number}, {kind} of {container}: {error!r}")
            shutil.rmtree(folder / "read", ignore_errors=True)
            continue
        slowest = max(slowest, time.perf_counter() - begin)
        rejected = sum(statistics["rejected"].values())
        lost = {n for n, text in enumerate(texts) if text not in found}
        counts["records hit"] += len(hit)
        counts["lost"] += len(lost)
        counts["rejections"] += rejected
        counts["sound lost"] += len(lost - hit)
        counts["altered"] += len(set(found) - set(texts))
        # Where many records are gone at once, nobody can tell how many; nor whether the one behind a damaged one, whose
        # own beginning is damaged, is another. Changed bytes that lie apart are counted one by one.
        stretches = sum(n - 1 not in lost for n in lost) if kind == "change" else bool(lost)
        counts["not counted"] += max(stretches - rejected, 0)
    columns = ("archives", "records hit", "lost", "rejections", "crashed", "sound lost", "altered", "not counted")
    print(f"\n{'archive':14}{'damage':8}" + "".join(f"{column:>13}" for column in columns))
    for (container, kind), counts in result.items():
        print(f"{container:14}{kind:8}" + "".join(f"{counts[column]:13}" for column in columns))
    print(f"the slowest took {slowest:.2f} s")
    return sum(counts[column] for counts in result.values() for column in columns[4:]) + (slowest > SECONDS_TO_READ)


def load_texts(records, path, folder, preparation):
    """The texts of some records, each of its own, and two archives of them: {container: parts}."""
    chosen, texts = [], []
    for record in records:
        if len(texts) == RECORDS:
            break
        if len(record) > LARGEST_RECORD:
            continue
        path.write_bytes(record)
        found, _ = read_archive(path, folder / "read", preparation)
        if len(found) == 1 and found[0] not in texts:
            chosen.append(record)
            texts += found
    return texts, {"gzip": [compress(record) for record in chosen], "uncompressed": chosen}


def main(_):
    if _CHILD.value:
        logging.set_verbosity(logging.INFO)
        engine.prepare(Warc(_CHILD.value[1:]), SETTINGS, _CHILD.value[0])
        return
    os.environ["TF_LLM_OFFLINE"] = "1"
    logging.set_verbosity(logging.ERROR)  # every damage would be logged
    kills, mutations = (4, 60) if _QUICK.value else (_KILLS.value, _MUTATIONS.value)
    records = load_pages(QUICK_PAGES if _QUICK.value else PAGES)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        faults = kill_runs(folder, kills, records, random.Random(_SEED.value))
        faults += damage_archives(folder, mutations, records, random.Random(_SEED.value))
    result = {"name": "crash_safe_prepare", "value": faults, "goal": 0, "unit": "faults", "holds": faults == 0}
    print(json.dumps(result))
    sys.exit(0 if faults == 0 else 1)


if __name__ == "__main__":
    app.run(main)
