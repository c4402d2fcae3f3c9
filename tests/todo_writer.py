"""A process that writes to-dos and says each when it is stored, to be killed while it does."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tf_llm.apps.assistant.store import Store


def kill_while_it_writes(path, after, pause=0.0):
    """(to-dos that the process said it had stored, to-dos that are there, which are its first ones without a gap).

    Args:
        path: of the file.
        after: it is killed when it has said so many.
        pause: seconds later, while it writes on.
    """
    paths = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
    process = subprocess.Popen(
        [sys.executable, __file__, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    said = [process.stdout.readline() for _ in range(after)]
    time.sleep(pause)
    process.kill()
    said += process.stdout.readlines()
    process.wait()
    acknowledged = [line for line in said if line.endswith("\n")]
    store = Store(path)
    kept = [entry.text for entry in store.list_todos()]
    store.close()
    assert kept == [f"thing {number}" for number in range(len(kept))], kept
    return len(acknowledged), len(kept)


def write(path):
    """Stores to-dos for ever."""
    store, number = Store(path), 0
    while True:
        store.add_todo(f"thing {number}", "to-do")
        print(number, flush=True)
        number += 1


if __name__ == "__main__":
    write(sys.argv[1])
