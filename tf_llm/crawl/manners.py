"""How patient and how polite this process is with the servers of others.

    the pace      one request to a host per interval, of all threads and objects of this process together
    the waits     before a request is repeated: exponential with jitter, at least what the server asks for
    the rest      a host that refuses, or says when to come back, is left alone by the whole process

`Retry-After` is RFC 9110, section 10.2.3.
"""

import dataclasses
import email.utils
import random
import re
import threading
import time
from collections.abc import Callable

BUSY = {500, 502, 503, 504, 509}
REFUSED = {403, 429}

_lock = threading.Lock()
_next_request: dict[str, float] = {}  # host -> when it may be asked again
_end_of_rest: dict[str, float] = {}  # host -> until when it is left alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """How patient and how polite downloads are."""

    contact: str = ""  # an address at which the owner of the server can reach you; part of the User-Agent
    timeout: float = 30.0  # seconds without a byte after which a connection counts as lost
    lost_attempts: int = 8  # tries in a row that bring nothing
    busy_attempts: int = 30  # tries in a row while the server says that it is busy
    refused_attempts: int = 3  # tries in a row while the server refuses this client
    first_wait: float = 1.0  # seconds before the second try; doubles with each one after it
    longest_wait: float = 60.0  # seconds to which that grows
    cool_down: float = 90.0  # seconds in which a server that refuses is left alone
    longest_retry_after: float = 900.0  # seconds that a server may ask for; more is cut to this

    def __post_init__(self):
        for name in ("timeout", "lost_attempts", "busy_attempts", "refused_attempts"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is expected to be above 0. Received: {getattr(self, name)}")
        for name in ("first_wait", "longest_wait", "cool_down", "longest_retry_after"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is expected to be at least 0. Received: {getattr(self, name)}")
        if not (self.contact.isascii() and self.contact.isprintable()):
            raise ValueError(f"contact is expected to be one line of ASCII. Received: {self.contact!r}")


class TransientError(Exception):
    """A try that may be repeated. Its kind is "lost", "busy" or "refused"."""

    def __init__(self, kind: str, problem: str, retry_after: str | None = None):
        super().__init__(problem)
        self.kind, self.retry_after = kind, retry_after


def keep_pace(host: str, interval: float, sleep: Callable[[float], None]) -> None:
    """Returns when this thread may ask the host: `interval` seconds after the latest turn, and after any rest."""
    turn = None
    while True:
        with _lock:
            end_of_rest = _end_of_rest.get(host, 0.0)
            if turn is not None and turn >= end_of_rest:  # nobody was refused while this thread waited
                return
            now = time.monotonic()
            turn = max(now, _next_request.get(host, now), end_of_rest)
            _next_request[host] = turn + interval
        if turn > now:
            sleep(turn - now)


def leave_alone(host: str, seconds: float) -> None:
    """No thread of this process asks the host for so long, those that wait for their turn included."""
    with _lock:
        _end_of_rest[host] = max(_end_of_rest.get(host, 0.0), time.monotonic() + seconds)


def choose_wait(failure: TransientError, tries: int, config: DownloadConfig) -> float:
    """Seconds until the next try: exponential with jitter, so that many clients do not come back in step."""
    wait = min(config.first_wait * 2 ** (tries - 1), config.longest_wait) * random.uniform(0.5, 1.0)
    if failure.kind == "refused":
        wait += config.cool_down
    return max(wait, min(read_retry_after(failure.retry_after), config.longest_retry_after))


def read_retry_after(value: str | None) -> float:
    """Seconds that a server asks for, as a number or as a date; 0 where it asks for none.

    >>> read_retry_after("120")
    120.0
    """
    value = (value or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    date = email.utils.parsedate_tz(value)
    try:
        return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else 0.0
    except (ValueError, OverflowError):
        return 0.0
