"""A process that competes: it stays alive, and does a piece of work each time it is asked to."""

import json
import subprocess
import sys
import tempfile


class Contestant:
    """A Python script that says who it is in a line of JSON, and then answers each line it reads with another.

    Args:
        name: what it is called in tables.
        command: the script and its arguments.
    """

    def __init__(self, name, command):
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process lives)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log, "text": True}
        self.process = subprocess.Popen([sys.executable, *map(str, command)], **pipes)
        self.about = self.hear()

    def hear(self):
        """What it answers; ends with status 2 where it has died."""
        for line in self.process.stdout:
            try:
                return json.loads(line)
            except ValueError:  # a framework's own chatter
                continue
        self.log.seek(0)
        print(f"could not run: {self.name} ended with\n{self.log.read()[-2000:]}")
        sys.exit(2)

    def ask(self, what):
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.hear()

    def end(self):
        self.process.stdin.close()
        self.process.wait()
