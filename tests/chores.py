"""What the workers do in the tests of the pool. Every worker imports this module: it is to cost them nothing.

A task is (path of a log, items). The items are done in turn, as the pool wants it: its pulse is told of each, a line in
the log says that it is done, and a task that is begun again goes on behind the last line.
"""

import os
import signal
import time
from pathlib import Path

from tf_llm.contracts import UserError
from tf_llm.prepare.pulse import lose_rest


def do_items(task, pulse, faults):
    path, items = task
    with Path(path).open("a+") as log:
        log.seek(0)
        done = len(log.readlines())
        for position, item in enumerate(items):
            pulse.looks(position)
            if lost := faults.get(lose_rest(position)):
                print("rest lost", *lost, file=log)
                return
            if position < done:
                continue
            if item == "die before":
                os._exit(4)
            if item == "die before, once" and is_first(path):
                os._exit(4)
            pulse.works(position)
            if item == "kill, once" and is_first(path):  # by somebody else, for all that the supervisor knows
                os.kill(os.getpid(), signal.SIGKILL)
            print(*(faults.get(position) or [do_item(item)]), file=log, flush=True)
            pulse.counts(len(item), position in faults)
        pulse.looks(len(items))


def do_item(item):
    match item:
        case "hang":
            time.sleep(60)
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "fill":
            bytearray(8 << 30)
        case "wrong":
            raise UserError("expected tea. Received: coffee. Drink tea")
        case "full disk":
            raise OSError(28, "No space left on device", "tea.txt")
        case "raise":
            raise ZeroDivisionError("division of tea")
        case "process":
            return os.getpid()
        case "nap":
            time.sleep(0.3)
    return item


def is_first(path):
    """Whether nobody has asked yet."""
    mark = Path(f"{path}.died")
    if mark.exists():
        return False
    mark.touch()
    return True


def sleep(task, pulse, faults):
    time.sleep(task)
