"""`examples/serve.py` in a process of its own, with a model of random weights. Nothing here imports TensorFlow."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def make_run(folder, **settings):
    """`untrained_run.write_run` in another process."""
    code = f"import pathlib, untrained_run; untrained_run.write_run(pathlib.Path({str(folder)!r}), **{settings})"
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, stderr=subprocess.DEVNULL)


class ServerProcess:
    """A server that listens.

    Args:
        folder: of a run.
        arguments: flags besides --workdir and --port.
        variables: of the environment.

    Attributes:
        port: where it listens, at 127.0.0.1.
    """

    def __init__(self, folder, *arguments, **variables):
        command = [sys.executable, REPOSITORY / "examples" / "serve.py", f"--workdir={folder}", "--port=0", *arguments]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": "", **variables}
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for line in self.process.stdout:
            if found := re.search(r"listening at http://127\.0\.0\.1:(\d+)$", line):
                self.port = int(found[1])
                return
        raise RuntimeError(self.process.stderr.read()[-3000:])

    @property
    def lives(self):
        return self.process.poll() is None

    def stop(self):
        """Sends SIGTERM: -> (exit status, what was written to stderr)."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=120)
        return self.process.returncode, errors

    def kill(self):
        """Ends it, if it did not end before."""
        self.process.kill()
        self.process.wait()
