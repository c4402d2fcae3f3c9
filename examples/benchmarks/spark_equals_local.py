"""Does a cluster of Apache Spark make the shards that one machine makes, also when it loses machines on the way?

    python examples/benchmarks/spark_equals_local.py            5 kills: 10 minutes on 2 cores
    python examples/benchmarks/spark_equals_local.py --quick    200 records, 1 kill: 2 minutes

The real pages are cut into several archives, with some records in more than one of them. Two worker processes on this
machine prepare them, with all kinds of duplicates removed; then a standalone cluster does (one master and two workers
of one core each, as processes of their own, see spark_cluster.py), once undisturbed, and then with a worker killed
after a step and a fraction of a second that are drawn (the first time while duplicates are looked for), together with
its executor and all that they have started; another worker takes its place.
Every file must be the same, byte for byte, but for the seconds that are noted in manifest.json and statistics.json, and
report.html, which is made of the latter. Seconds are those of whole runs, on the same two cores. The cluster has not
much to gain here: its workers are no more than the local ones, and talk through Java.

You should see 0 files that differ. Needs pyspark (`pip install "tf_llm[spark]"`), Java 17, Linux, and
warc/real-pages.warc.gz in the folder that --data or the environment variable TF_LLM_DATA names.
"""

import dataclasses
import json
import os
import random
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
from absl import app, flags, logging
from spark_cluster import SETTINGS, Cluster

import tf_llm
from tf_llm.crawl.warc import Warc
from tf_llm.prepare.spark import Spark, open_session, require_java, require_pyspark
from tf_llm.prepare.worker import WorkerConfig
from tf_llm.text.duplicate_keys import DuplicatesConfig

FILES, REPEATED = 8, 10  # archives, and records of each that the next one has, too
STAGES = ("read", "count", "encode")

_DATA = flags.DEFINE_string("data", os.environ.get("TF_LLM_DATA", "../shared/data"), "The folder of test data.")
_QUICK = flags.DEFINE_bool("quick", False, "200 records, one kill.")
_KILLS = flags.DEFINE_integer("kills", 5, "How many runs lose a worker.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")


def read_records(path: Path, limit: int | None) -> list[bytes]:
    """The records of a record-gzipped archive, still compressed."""
    content, records = path.read_bytes(), []
    while content and len(records) != limit:
        member = zlib.decompressobj(31)
        member.decompress(content)
        records.append(content[: len(content) - len(member.unused_data)])
        content = member.unused_data
    return records


def write_archives(records: list[bytes], folder: Path) -> None:
    size = -(-len(records) // FILES)
    for number in range(FILES):
        mine = records[number * size : (number + 1) * size + REPEATED]
        (folder / f"{number}.warc.gz").write_bytes(b"".join(mine))


def read_folder(folder: Path) -> dict[str, object]:
    """What is compared: everything but the time that it took."""
    files = {}
    for file in folder.iterdir():
        if file.suffix == ".json":
            files[file.name] = drop_seconds(json.loads(file.read_bytes()))
        elif file.name != "report.html":
            files[file.name] = file.read_bytes()
    return files


def drop_seconds(value):
    if isinstance(value, dict):
        return {name: drop_seconds(inner) for name, inner in value.items() if "second" not in name}
    return value


def prepare(archives: Path, folder: Path, driver: Spark | None = None) -> tuple[dict[str, object], float]:
    """What is in the shards, and how many seconds they took."""
    run = tf_llm.recipes.article()
    duplicates = DuplicatesConfig(names="addresses,pages,near,lines")
    run = dataclasses.replace(run, duplicates=duplicates, workers=WorkerConfig(processes=2))
    begin = time.perf_counter()
    shards = tf_llm.prepare(Warc(str(archives / "*.warc.gz")), run, folder, driver=driver)
    return read_folder(shards.folder), time.perf_counter() - begin


def count_done(partial: Path) -> list[int]:
    """How many parts have gone through each stage."""
    return [len(list(partial.glob(f"parts/*/{stage}"))) for stage in STAGES]


def kill_when(cluster: Cluster, steps: int, seconds: float, partial: Path, killed: list[str]) -> None:
    """Kills one of the workers some seconds after so many steps; a new one takes its place."""
    while not partial.exists() or sum(count_done(partial)) < steps:
        time.sleep(0.02)
    time.sleep(seconds)
    done = ", ".join(f"{stage} {count}" for stage, count in zip(STAGES, count_done(partial), strict=True))
    processes = cluster.kill_worker(cluster.workers[0])
    killed.append(f"{processes} processes; parts done: {done}")
    cluster.start_worker()


def main(argv):
    del argv
    archive = Path(_DATA.value) / "warc" / "real-pages.warc.gz"
    try:
        require_pyspark()
        require_java()
    except tf_llm.UserError as error:
        print(f"could not run: {error}")
        sys.exit(2)
    if not archive.is_file():
        print(f"could not run: {archive} not found; name the folder of test data with --data")
        sys.exit(2)
    os.environ |= {"TF_LLM_OFFLINE": "1", "SPARK_LOCAL_IP": "127.0.0.1"}
    logging.set_verbosity(logging.WARNING)
    draw = random.Random(_SEED.value)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "archives").mkdir()
        write_archives(read_records(archive, 200 if _QUICK.value else None), folder / "archives")
        expected, seconds = prepare(folder / "archives", folder / "local")
        print(f"{'':26}{'seconds':>8}{'files':>7}{'differ':>8}  killed")
        print(f"{'two local processes':26}{seconds:8.1f}{len(expected):7}{'':>8}", flush=True)
        differ = kills = 0
        wanted = 1 if _QUICK.value else _KILLS.value
        with Cluster(folder / "cluster") as cluster:
            session = open_session(cluster.master, SETTINGS)
            session.sparkContext.setLogLevel("OFF")  # it says at length what it has lost
            for number in range(1 + wanted):
                place, killed = folder / f"spark{number}", []
                if number:
                    partial = place.with_name(f"{place.name}.partial")
                    steps = FILES if number == 1 else draw.randrange(len(STAGES) * FILES - 1)
                    arguments = (cluster, steps, draw.random(), partial, killed)
                    threading.Thread(target=kill_when, args=arguments, daemon=True).start()
                found, seconds = prepare(folder / "archives", place, Spark(session=session))
                wrong = sum(found.get(name) != expected.get(name) for name in found | expected)
                differ, kills = differ + wrong, kills + len(killed)
                name = f"Spark, run {number} of {wanted}" if number else "Spark, undisturbed"
                print(f"{name:26}{seconds:8.1f}{len(found):7}{wrong:8}  {', '.join(killed)}", flush=True)
            session.stop()
    result = {"name": "spark_equals_local", "value": differ, "goal": 0, "unit": "files that differ"}
    holds = differ == 0 and kills == wanted
    print(json.dumps(result | {"kills": kills, "holds": holds}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    app.run(main)
