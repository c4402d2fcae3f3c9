"""A standalone cluster of Apache Spark on this machine: one master and a few workers, each a process of its own.

    python examples/benchmarks/spark_cluster.py        # prints spark://127.0.0.1:…, for --master; ends with Ctrl-C

Not a benchmark, but what spark_equals_local.py and tests/test_prepare_spark.py run on. Needs Linux, the package pyspark
and Java 17. Everything listens on 127.0.0.1 alone.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

SECONDS_TO_START = 120  # on a machine that has other things to do
QUICK_START = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # Java compiles less thoroughly: half the time to start
# What a session needs to run on two workers here, and small.
SETTINGS = {
    "spark.driver.extraJavaOptions": QUICK_START,
    "spark.executor.extraJavaOptions": QUICK_START,
    "spark.driver.host": "127.0.0.1",
    "spark.locality.wait": "0",  # or a task waits 3 s for the machine that has its data, once that is lost
    "spark.driver.memory": "512m",
    "spark.executor.memory": "512m",
    "spark.cores.max": "2",
    "spark.scheduler.minRegisteredResourcesRatio": "1",  # nothing begins before both workers are there
    "spark.sql.shuffle.partitions": "4",
    "spark.ui.enabled": "false",
}


class Cluster:
    """Starts a cluster; a context manager, which leaves no process behind.

    Args:
        folder: for logs and the files of the workers.
        workers: how many, of one core each.

    Attributes:
        master: its address.
        workers: the names of those that were not killed.
    """

    def __init__(self, folder: Path, workers: int = 2):
        folder.mkdir(exist_ok=True)
        self.folder, self.workers, self._processes = folder, [], {}
        with contextlib.ExitStack() as undo:
            undo.callback(self.__exit__)
            self.master = f"spark://127.0.0.1:{find_free_port()}"
            port = self.master.rpartition(":")[2]
            self._start("master", "master.Master", "--host", "127.0.0.1", "--port", port, "--webui-port", "0")
            self._await("master", "New state: ALIVE")
            for name in [self.start_worker(wait=False) for _ in range(workers)]:
                self._await(name, "Successfully registered with master")
            undo.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._processes.values():
            kill_session(process)

    def start_worker(self, wait: bool = True) -> str:
        """One more worker; returns its name."""
        name = f"worker{len(self._processes)}"
        options = ["--host", "127.0.0.1", "--cores", "1", "--memory", "1g", "--webui-port", "0"]
        self._start(name, "worker.Worker", *options, "--work-dir", str(self.folder / name), self.master)
        self.workers.append(name)
        if wait:
            self._await(name, "Successfully registered with master")
        return name

    def kill_worker(self, name: str) -> int:
        """Kills a worker and all that it has started, as if its machine lost power. Returns how many processes."""
        self.workers.remove(name)
        return kill_session(self._processes[name])

    def _start(self, name, module, *arguments):
        import pyspark

        home = Path(pyspark.__file__).parent
        command = [home / "bin" / "spark-class", f"org.apache.spark.deploy.{module}", *arguments]
        environment = {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m"}
        environment["SPARK_DAEMON_JAVA_OPTS"] = QUICK_START
        with self._log(name).open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | environment,
                start_new_session=True,
            )

    def _await(self, name, words):
        deadline = time.monotonic() + SECONDS_TO_START
        process = self._processes[name]
        while words not in self._log(name).read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                text = self._log(name).read_text(errors="replace")
                raise RuntimeError(f"Spark's {name} did not start within {SECONDS_TO_START} s:\n{text[-3000:]}")
            time.sleep(0.1)

    def _log(self, name):
        return self.folder / f"{name}.log"


def find_free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def kill_session(process: subprocess.Popen) -> int:
    """Kills a process that leads a session, and all of the session, whatever groups they have made themselves."""
    killed = set()
    while members := list_session(process.pid):  # it may have started others in between
        for member in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        killed.update(members)
        time.sleep(0.01)
    process.wait()
    return len(killed)


def list_session(leader: int) -> list[int]:
    """The processes of a session that have not ended."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                members.append(int(stat.parent.name))
    return members


if __name__ == "__main__":
    place = Path(tempfile.mkdtemp())
    try:
        with Cluster(place) as cluster:
            print(cluster.master, flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        shutil.rmtree(place)
