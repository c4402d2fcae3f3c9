"""Sources that try the patience of who reads them; in a module of their own, which workers elsewhere can import."""

import time

from tf_llm.contracts import UserError
from tf_llm.crawl.warc import Warc


class Slow(Warc):
    """Takes so long for each page that somebody can meet it at work, and else passes for a Warc."""

    def __iter__(self):
        for page in super().__iter__():
            time.sleep(0.1)
            yield page

    def __repr__(self):
        return super().__repr__().replace("Slow(", "Warc(")


class Unreachable(Warc):
    """Cannot be fetched."""

    def fetch(self):
        raise UserError("expected an answer. Received: silence. Ask again tomorrow")
