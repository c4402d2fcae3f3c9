"""A source, some pages of which go off. Workers import this module, hence no TensorFlow, which the tests import."""

import os
import signal
import time
from collections import Counter

from tf_llm.contracts import Page


class Mines:
    """A source that workers can import, of texts, some of which go off."""

    parts = 1

    def __init__(self, contents):
        self.contents, self.rejections = contents, Counter()

    def __repr__(self):
        return f"Mines({len(self.contents)})"

    def __iter__(self):
        for number, content in self.contents:
            if content == "source dies":
                os.kill(os.getpid(), signal.SIGKILL)
            yield Page(f"https://mines.example/{number}", Mine(content.encode()), "text/plain")

    def shard(self, index, count):
        return Mines(self.contents[index::count])

    def fetch(self):
        pass


class Mine(bytes):
    """Bytes that can be counted; whoever decodes them, however, looks for a byte order mark first."""

    def startswith(self, *_):
        match bytes(self):
            case b"hang":
                time.sleep(60)
            case b"kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case b"fill":
                bytearray(8 << 30)
            case b"raise":
                raise ZeroDivisionError("not this one")
        return False
