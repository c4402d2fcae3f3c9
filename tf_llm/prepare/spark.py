"""The driver for many machines: Apache Spark has the parts processed, and joins by shuffles what they have found.

    from tf_llm.prepare.spark import Spark
    tf_llm.prepare(pages, run, "/shared/runs/crawl/data", driver=Spark("spark://host:7077"))

What Spark's machines need:

- The folder of the preparation, and whatever files the source reads, under the same path: a shared file system whose
  renames are atomic (NFS, Lustre, a mounted volume; not an object store).
- This package and the Python of the driver, of the same version: nothing is shipped. `pip install "tf_llm[spark]"` on
  every machine, or its folder in their PYTHONPATH. Another path to Python than here is named by PYSPARK_PYTHON.
- Java 17 or newer.
- Servers that do not mind: pages that come over a network are fetched by as many processes at once as Spark has cores
  (`spark.cores.max` limits them), and each keeps the pace of one.

A part is a task of Spark's, and a task that was lost with its machine is begun anew on another. Each attempt works in a
folder of its own, which is renamed when all is done (shard.py), so neither a second attempt beside the first one
(`spark.speculation`) nor one that is believed dead and goes on can spoil anything. Pages are parsed in a process of
their own below Spark's, under the same limits as on one machine (worker.py). Both drivers write the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tf_llm.contracts import UserError
from tf_llm.prepare.local import work
from tf_llm.prepare.progress import Progress
from tf_llm.prepare.task import Task
from tf_llm.prepare.worker import WorkerConfig, WorkerPool
from tf_llm.text.duplicate_keys import DuplicatesConfig

if TYPE_CHECKING:
    from pyspark import Accumulator
    from pyspark.sql import SparkSession

LEAST_JAVA = 17
COUNTS = ("pages", "bytes", "rejected", "parts")  # that the progress shows
LOOK_SECONDS = 1.0  # between two looks at how far Spark has come


class Spark:
    """A `Driver` (local.py) that leaves the work to a cluster.

    Args:
        master: "spark://host:7077" of a standalone cluster, "yarn", "k8s://…", or "local[2]" to try it on two cores;
            None leaves it to `spark-submit` and its settings, and is all the cores of this machine without those.
        session: a SparkSession to use; by default the one that is active here, or a new one, which ends with the
            `with` block.
        limits: what a page may cost on the machines of the cluster, as `run.workers`; how many processes there are is
            up to Spark.
        settings: of a new session, such as {"spark.executor.memory": "4g"}.

    Raises (in the `with` statement):
        UserError: pyspark or Java is missing; another session is active than `master` asks for.

    >>> shards = tf_llm.prepare(pages, run, "data", driver=Spark("local[2]"))    # doctest: +SKIP
    """

    def __init__(
        self,
        master: str | None = None,
        session: SparkSession | None = None,
        limits: WorkerConfig | None = None,
        settings: Mapping[str, str] | None = None,
    ):
        self.master, self.settings = master, settings or {}
        self.limits = dataclasses.replace(limits or WorkerConfig(), processes=1)
        self._session, self._is_ours = session, False

    def __enter__(self) -> Spark:
        require_pyspark()
        from pyspark.sql import SparkSession

        if self._session is None:
            self._session = SparkSession.getActiveSession()
            self._is_ours = self._session is None
        if self._is_ours:
            require_java()
            self._session = open_session(self.master, self.settings)
        elif self.master not in (None, self._session.sparkContext.master):
            raise UserError(
                f"expected no other Spark session than one of {self.master}. Received: one of "
                f"{self._session.sparkContext.master}. Stop it, or leave the master out to use it"
            )
        return self

    def __exit__(self, *_) -> None:
        if self._is_ours:
            self._session.stop()
            self._session = None

    def process(self, tasks: Sequence[Task], title: str, pages: int = 0) -> None:
        context = self._session.sparkContext
        context.setJobDescription(title)  # Spark's own page shows it
        done = {name: context.accumulator(0) for name in COUNTS}
        attempt = functools.partial(process_task, limits=self.limits, done=done)
        with Progress(title, len(tasks), total_pages=pages) as progress, show(progress, done):
            errors = context.parallelize(tasks, len(tasks)).map(attempt).collect()
        for error in errors:
            if error is not None:
                raise error

    def find_repeats(self, folder: Path, parts: int, config: DuplicatesConfig) -> dict[str, int]:
        from tf_llm.prepare import spark_joins

        self._session.sparkContext.setJobDescription("finding duplicates")
        with pass_on_errors():
            return spark_joins.find_repeats(self._session, folder, parts, config)

    def add_counts(self, folder: Path, parts: int) -> Counter[str]:
        from tf_llm.prepare import spark_joins

        self._session.sparkContext.setJobDescription("adding up the counts of words")
        with pass_on_errors():
            return spark_joins.add_counts(self._session, folder, parts)


def require_pyspark() -> None:
    """Raises UserError where a package is missing."""
    for package in ("pyspark", "pandas", "pyarrow"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"preparing on Spark expected the packages pyspark, pandas and pyarrow. Received: no {package}. "
                "pip install 'tf_llm[spark]'"
            )


def require_java() -> None:
    """Raises UserError where there is no Java in which Spark runs."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    version = find_java_version(java) if java else None
    if not version or version < LEAST_JAVA:
        received = f"Java {version} at {java}" if version else f"none at {java}" if java else "none on the PATH"
        raise UserError(
            f"preparing on Spark expected Java {LEAST_JAVA} or newer. Received: {received}. Install it "
            "(apt-get install openjdk-17-jre-headless), or name its folder in JAVA_HOME"
        )


def find_java_version(java: str) -> int | None:
    """The first number of its version: 17 of "17.0.15", 8 of "1.8.0_452". None where it does not say."""
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    return int(version[1]) if version else None


def open_session(master: str | None, settings: Mapping[str, str]) -> SparkSession:
    """A new session, whose machines run the same Python as this one."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("tf_llm").config("spark.ui.showConsoleProgress", "false")
    if master is not None:
        builder = builder.master(master)
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


@contextlib.contextmanager
def show(progress: Progress, done: Mapping[str, Accumulator]) -> Iterator[None]:
    """Shows what Spark's machines have done so far, while the job is under way in the `with` block."""
    is_over = threading.Event()

    def look():
        while not is_over.wait(LOOK_SECONDS):
            progress.set(**{name: count.value for name, count in done.items()})

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        progress.set(**{name: count.value for name, count in done.items()})


@contextlib.contextmanager
def pass_on_errors() -> Iterator[None]:
    """Raises again in the `with` block what Spark's machines have raised for people to see to, such as a full disk.

    What comes from there is an error of Spark's with the text of the traceback.
    """
    try:
        yield
    except Exception as error:
        if said := re.findall(rf"^{UserError.__module__}\.UserError: (.+)$", str(error), re.MULTILINE):
            raise UserError(said[-1]) from error
        if said := re.findall(r"^\w+Error: \[Errno (\d+)\] (.+)$", str(error), re.MULTILINE):
            number, text = said[-1]
            raise OSError(int(number), text) from error
        raise


def process_task(task: Task, limits: WorkerConfig, done: Mapping[str, Accumulator]) -> UserError | OSError | None:
    """Does a task in one of Spark's own processes. Returns what would be met again by another attempt: it is for
    people, and not for Spark to retry. Anything else is raised, and retried."""
    pool = start_pool(limits)
    before = pool.counted
    try:
        if task.source is not None and not task.place(task.stage).exists():
            task.source.fetch()
        for _ in pool.run([dataclasses.replace(task, attempt=f".{uuid.uuid4().hex}")]):
            pass
    except (UserError, OSError) as error:
        return error
    counted = (now - then for now, then in zip(pool.counted, before, strict=True))
    for name, more in zip(COUNTS, (*counted, 1), strict=True):
        done[name].add(more)
    return None


@functools.cache
def start_pool(limits: WorkerConfig) -> WorkerPool:
    """The pool of this process, which Spark keeps for several tasks; a pool takes a second to start."""
    return WorkerPool(work, limits)
