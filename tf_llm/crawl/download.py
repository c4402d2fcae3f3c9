"""Files of the web, fetched politely: a download that is interrupted goes on where it stopped.

What a server may answer, and what follows:

    206, 200             taken; where the server ignores ranges, or its file has changed, from the beginning again
    500 502 503 504 509  busy: back off, twice as long each time, at most `busy_attempts` times
    403 429              refused: leave the server alone for `cool_down` seconds, at most `refused_attempts` times
    cut, reset, stall    lost: back off, then resume, at most `lost_attempts` times
    any other error      no use in trying again: `NotFoundError`

`Retry-After` is honoured, and progress starts the counts anew. HTTP is RFC 9110: ranges are its section 14, `If-Range`
13.1.5, `Retry-After` 10.2.3.
"""

import dataclasses
import email.utils
import http.client
import importlib.metadata
import logging
import random
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from tf_llm.contracts import UserError
from tf_llm.crawl.cache import CHUNK, Part

logger = logging.getLogger(__name__)

BUSY = {500, 502, 503, 504, 509}
REFUSED = {403, 429}
REPORT_SECONDS = 10.0  # between two lines in the log about a file on its way

OPENER = urllib.request.OpenerDirector()
for handler in (  # neither file: nor ftp:, not even by way of a redirection
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPErrorProcessor,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.UnknownHandler,
):
    OPENER.add_handler(handler())

_lock = threading.Lock()
_next_request: dict[str, float] = {}  # host -> when it may be asked again: one pace for the whole process


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """How patient and how polite downloads are."""

    contact: str = ""  # an address at which the owner of the server can reach you; part of the User-Agent
    timeout: float = 30.0  # seconds without a byte after which a connection counts as lost
    lost_attempts: int = 8  # tries in a row that bring nothing
    busy_attempts: int = 20  # tries in a row while the server says that it is busy
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


class NotFoundError(UserError):
    """The server has no such file, and trying again would not change that."""


class Host:
    """A server, and the pace at which this process asks it.

    Args:
        address: http or https; what the names of files are appended to.
        interval: seconds between two requests to this host, of all threads and objects together.
        config: a `DownloadConfig`.
        sleep: what waits; a test may count instead.

    Raises:
        UserError: another kind of address.
    """

    def __init__(
        self,
        address: str,
        interval: float = 1.0,
        config: DownloadConfig | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.address, self.interval = check_address(address).rstrip("/"), interval
        self.config, self.sleep = config or DownloadConfig(), sleep

    def download(self, name: str, path: Path, first_bytes: int | None = None) -> Path:
        """The file `name` of this host at `path`; fetched where it is not there yet.

        Args:
            name: what follows the host's address.
            path: where the file is to be; its folder is made.
            first_bytes: how much of a gzip file, from its beginning, cut back to its last whole member; None is all.

        Raises:
            NotFoundError: the server has no such file.
            UserError: it refuses or cannot be reached, or the disk has no room.
        """
        address = f"{self.address}/{urllib.parse.quote(name)}"
        if path.exists():
            return path
        with Part(path) as part:
            if path.exists():  # another process had the lock, and has finished
                part.discard()
                return path
            failures, furthest = Counter(), part.size
            while not part.holds(first_bytes):
                self._keep_pace()
                try:
                    self._request(address, part, first_bytes)
                except TransientError as failure:
                    if part.size > furthest:
                        failures, furthest = Counter(), part.size
                    failures[failure.kind] += 1
                    tries = failures[failure.kind]
                    if tries >= getattr(self.config, f"{failure.kind}_attempts"):
                        raise UserError(
                            f"expected {address}. Received: {failure} ({tries} times in a row). "
                            f"Try again later: the download goes on where it stopped"
                        ) from failure
                    wait = choose_wait(failure, tries, self.config)
                    logger.warning("%s: %s; next try in %.1f s", address, failure, wait)
                    self.sleep(wait)
            if part.size != part.total:
                part.cut_to_members()
            part.finish()
        logger.info("downloaded %s: %s bytes", address, f"{path.stat().st_size:,}")
        return path

    def _keep_pace(self) -> None:
        host = urllib.parse.urlsplit(self.address).netloc
        with _lock:
            now = time.monotonic()
            start = max(now, _next_request.get(host, now))
            _next_request[host] = start + self.interval
        if start > now:
            self.sleep(start - now)

    def _request(self, address: str, part: Part, first_bytes: int | None) -> None:
        """Asks once for what `part` lacks; raises TransientError unless it holds all of it then."""
        headers = {"User-Agent": format_user_agent(self.config.contact), "Accept-Encoding": "identity"}
        if part.size and part.version is None:
            part.restart()  # nothing would tell whether what follows is of the same file
        if part.size:
            headers["If-Range"] = part.version
        if part.size or first_bytes is not None:
            headers["Range"] = f"bytes={part.size}-{'' if first_bytes is None else first_bytes - 1}"
        try:
            with OPENER.open(urllib.request.Request(address, headers=headers), timeout=self.config.timeout) as response:
                receive(response, part, first_bytes)
        except urllib.error.HTTPError as error:
            error.close()
            problem, retry_after = f"{error.code} {error.reason}", error.headers.get("Retry-After")
            if error.code in BUSY:
                raise TransientError("busy", problem, retry_after) from error
            if error.code in REFUSED:
                raise TransientError("refused", problem, retry_after) from error
            if error.code == 416 and part.size:  # the server's file is shorter than what is here: another one
                part.restart()
                raise TransientError("lost", problem) from error
            part.discard()
            raise NotFoundError(f"expected a file at {address}. Received: {problem}. Check the name") from error
        except (OSError, http.client.HTTPException) as error:
            raise TransientError("lost", str(error) or type(error).__name__) from error
        if not part.holds(first_bytes):
            raise TransientError("lost", f"the connection ended after {part.size:,} of {part.total:,} bytes")


def receive(response: http.client.HTTPResponse, part: Part, first_bytes: int | None) -> None:
    """Appends the body of a response to `part`, after what is there or in its place, as the response says."""
    version, (start, total) = read_version(response), read_extent(response)
    if start == 0:
        part.restart(version, total)
    elif (start, version, total) != (part.size, part.version, part.total):
        part.restart()
        raise TransientError("lost", "the file on the server has changed")
    name, goal = response.url.rsplit("/")[-1], total if first_bytes is None else min(first_bytes, total or first_bytes)
    report = time.monotonic() + REPORT_SECONDS
    with tqdm(desc=name, initial=start, total=goal, unit="B", unit_scale=True, leave=False, disable=None) as progress:
        while not part.holds(first_bytes) and (chunk := response.read1(CHUNK)):
            part.write(chunk if first_bytes is None else chunk[: first_bytes - part.size])
            progress.update(len(chunk))
            if time.monotonic() > report:  # for those who read a log, not a terminal
                report = time.monotonic() + REPORT_SECONDS
                logger.info("%s: %s of %s bytes", name, f"{part.size:,}", f"{goal:,}" if goal else "?")
    if total is None and not part.holds(first_bytes):  # the last chunk said that this is all
        part.describe(version, part.size)


def read_version(response: http.client.HTTPResponse) -> str | None:
    """What to send as `If-Range`: the strong entity tag, else the date of the last change, else nothing."""
    tag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if tag.startswith("W/") else tag


def read_extent(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """(offset of the body's first byte, length of the whole file); None where it comes in chunks."""
    if response.status == 206:
        extent = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", "").strip())
        if extent is None:
            raise TransientError("lost", "the server does not say which part of the file it sends")
        return int(extent[1]), int(extent[2])
    if response.length is None and not response.chunked:
        raise TransientError("lost", "the server does not say how long the file is")
    return 0, response.length


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


def format_user_agent(contact: str = "") -> str:
    """Who asks: name, version and, where one is set, an address for complaints."""
    try:
        version = importlib.metadata.version("tf_llm")
    except importlib.metadata.PackageNotFoundError:  # run from a folder that was not installed
        version = "0"
    return f"tf_llm/{version}" + (f" (+{contact})" if contact else "")


def check_address(address: str) -> str:
    """Returns the address; raises UserError unless it is http or https and names a host."""
    try:
        parts = urllib.parse.urlsplit(address)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        sound = False
    if not sound:
        raise UserError(f"expected an address like https://data.commoncrawl.org. Received: {address!r}. Correct it")
    return address


def answers(address: str, seconds: float = 5.0) -> bool:
    """Whether a server sends this address, within `seconds` in all; a thread asks, since looking up a name may hang."""
    check_address(address)
    answered = threading.Event()

    def ask():
        request = urllib.request.Request(address, headers={"User-Agent": format_user_agent()})
        try:
            with OPENER.open(request, timeout=seconds) as response:
                if response.read(1):
                    answered.set()
        except (OSError, http.client.HTTPException) as error:
            logger.info("%s does not answer: %s", address, error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()
