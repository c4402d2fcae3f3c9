"""Does an index that is killed in the middle of an update lose anything, or keep half of it?

    python examples/benchmarks/crash_safe_search.py            50 kills, about 3 minutes on 2 cores
    python examples/benchmarks/crash_safe_search.py --quick    5 kills, under a minute

A process updates an index round by round: in round r every one of its entries says "r7" and has a vector of r, a
few others are removed and come back, and every fourth round makes a whole new generation. When a round is done, it says
so. At a moment that was drawn it is killed with SIGKILL, and what it left is opened as any program would: all entries
must be of one and the same round, the last one that was done or the one behind it, each with the vector of that round
and found by its words; and the next process goes on with it. You should see "50 of 50".
"""

import json
import random
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from absl import app, flags

from tf_llm.contracts import UserError

ENTRIES, GOING = 300, 10  # in all, and those that come and go
WIDTH = 4  # of a vector
LONGEST = 1.5  # seconds from the first round to a kill

_QUICK = flags.DEFINE_bool("quick", False, "5 kills.")
_KILLS = flags.DEFINE_integer("kills", 50, "How many kills.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")
_CHILD = flags.DEFINE_string("child", None, "The folder of an index: be the process that is killed.")


def embed(texts):
    """A direction for each round: texts that name one, r7 -> [N, D]."""
    rounds = np.array([int("0" + "".join(re.findall(r"\br(\d+)", text))) for text in texts])
    return np.stack([np.cos(rounds), np.sin(rounds), np.ones(len(texts)), np.zeros(len(texts))], axis=1)


def make_entries(number):
    from tf_llm.apps.search import Entry

    return [Entry(f"https://a.example/{i}", f"Entry {i}", f"This is r{number}") for i in range(ENTRIES)]


def run_rounds(folder):
    """What the process does until it is killed: prints the number of each round that is done."""
    from tf_llm.apps.search import SearchIndex

    index = SearchIndex.open(folder, embed)
    number = find_round(index) if len(index) else 0
    print("ready", flush=True)
    while True:
        number += 1
        index.update(make_entries(number))
        print(number, flush=True)
        index.remove(entry.address for entry in make_entries(number)[:GOING])
        if number % 4 == 0:
            index.rebuild()


def find_round(index):
    """The round that an index is at.

    Raises:
        ValueError: it is at no round, or at several.
    """
    entries = index.list_entries()
    rounds = {entry.text for entry in entries}
    if len(rounds) != 1 or len(entries) not in (ENTRIES, ENTRIES - GOING):
        raise ValueError(f"{len(entries)} entries of {sorted(rounds)[:5]}")
    number = int(rounds.pop().removeprefix("This is r"))
    snapshot = index._look()
    rows = snapshot.list_rows(snapshot.list_places())
    expected = embed([f"r{number}"]) / np.linalg.norm(embed([f"r{number}"]))
    if not np.allclose(snapshot.vectors[rows], expected, atol=1e-6):
        raise ValueError(f"vectors that are not of round {number}")
    found = index.search(f"r{number}", count=5)
    if found.total != len(entries) or len(found.hits) != 5 or index.search(f"r{number - 1}").total:
        raise ValueError(f"{found.total} of {len(entries)} are found")
    return number


def kill_once(folder, rng):
    """Starts a process, kills it, looks at what it left: (rounds that were done, the round there, a fault)."""
    from tf_llm.apps.search import SearchIndex

    command = [sys.executable, __file__, f"--child={folder}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()  # it is ready
        try:
            process.wait(timeout=rng.uniform(0, LONGEST))
            return None, None, f"ended by itself: {process.returncode}"
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        said = [int(line) for line in process.stdout.read().split()]
    try:
        index = SearchIndex.open(folder, embed)
        there = find_round(index) if len(index) else 0
    except (UserError, ValueError) as error:
        return said, None, str(error)
    return said, there, ""


def main(_):
    if _CHILD.value:
        run_rounds(_CHILD.value)
    try:
        import rapidfuzz  # noqa: F401
        import Stemmer  # noqa: F401
        import tantivy  # noqa: F401
    except ImportError as error:
        print(f'could not run: {error}; pip install "tf_llm[search]"')
        sys.exit(2)
    kills, rng, faults, last = 5 if _QUICK.value else _KILLS.value, random.Random(_SEED.value), 0, 0
    print(f"{'kill':>5}{'round before':>14}{'done':>6}{'found':>7}  fault")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "index")
        for number in range(1, kills + 1):
            said, there, fault = kill_once(folder, rng)
            done = max(said or [], default=last)  # of the process that was killed, or of the one before
            if not fault and there not in (done, done + 1):
                fault = "lost" if there < done else "never written"
            print(f"{number:5}{last:14}{done:6}{there!s:>7}  {fault}", flush=True)
            if fault:
                faults += 1
                break
            last = there
    good = kills - faults if not faults else number - 1
    print(f"{good} of {kills}: nothing lost, nothing torn")
    result = {"name": "crash_safe_search", "value": good, "goal": kills, "unit": "kills survived"}
    print(json.dumps(result | {"holds": good == kills}))
    sys.exit(0 if good == kills else 1)


if __name__ == "__main__":
    app.run(main)
