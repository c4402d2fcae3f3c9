"""Files of the web, fetched politely: a download that is interrupted goes on where it stopped.

What a server may answer, and what follows:

    206, 200             taken; where the server ignores ranges, or its file has changed, from the beginning again
    500 502 503 504 509  busy: back off, twice as long each time, at most `busy_attempts` times
    403 429              refused: the whole process leaves the server alone for `cool_down` seconds, at most
                         `refused_attempts` times
    cut, reset, stall    lost: back off, then resume, at most `lost_attempts` times
    any other error      no use in trying again: `NotFoundError`

`Retry-After` is honoured, by the whole process too, and progress starts the counts anew: see manners.py.

A file counts as whole when it has the length that the server named and the digest, where it named one. A gzip file
without a digest must end where a gzip member ends. If it does not, the server is asked for what follows: the length
that it named may have been wrong. A file that really ends there is taken. What nobody can notice, without a digest: a
length that is too short and ends between two members, and a changed byte, which the readers of archives find.

HTTP is RFC 9110: ranges are its section 14, `If-Range` 13.1.5. `Content-MD5` is RFC 1864. The entity tag of Amazon S3
is the MD5 of what was uploaded in one part and encrypted by no key of the customer's, see
https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
"""

import base64
import binascii
import http.client
import importlib.metadata
import logging
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
from tf_llm.crawl.manners import (
    BUSY,
    REFUSED,
    DownloadConfig,
    TransientError,
    choose_wait,
    keep_pace,
    leave_alone,
    read_retry_after,
)

logger = logging.getLogger(__name__)

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

    def download(self, name: str, path: Path, first_bytes: int | None = None, query: str = "") -> Path:
        """The file `name` of this host at `path`; fetched where it is not there yet.

        Args:
            name: what follows the host's address.
            path: where the file is to be; its folder is made.
            first_bytes: how much of a gzip file, from its beginning, cut back to its last whole member; None is all.
            query: what follows a question mark, quoted.

        Raises:
            NotFoundError: the server has no such file.
            UserError: it refuses or cannot be reached, or the disk has no room.
        """
        return self._download(name, path, 0, first_bytes, query, is_cut=first_bytes is not None)

    def download_span(self, name: str, path: Path, offset: int, length: int) -> Path:
        """So many bytes of the file `name` from an offset on, as `download`; fewer where the file ends before."""
        return self._download(name, path, offset, offset + length)

    def _download(
        self, name: str, path: Path, begin: int, end: int | None, query: str = "", is_cut: bool = False
    ) -> Path:
        """The bytes from `begin` to `end` of a file at `path`; cut back to whole gzip members where that is said."""
        if path.exists():
            return path
        address = f"{self.address}/{urllib.parse.quote(name)}" + (f"?{query}" if query else "")
        with Part(path, begin) as part:
            if path.exists():  # another process had the lock, and has finished
                part.discard()
                return path
            failures, furthest, doubted = Counter(), part.size, None
            while True:
                try:
                    if not part.holds(end):
                        keep_pace(urllib.parse.urlsplit(address).netloc, self.interval, self.sleep)
                        self._request(address, part, end)
                    if begin or part.size != part.total or part.size == doubted:
                        break
                    if part.digest and not part.has_digest():
                        part.restart()
                        raise TransientError("lost", "digest mismatch")
                    if part.digest or not name.endswith(".gz") or part.ends_with_member():
                        break
                    logger.warning("%s does not end with a gzip member; asking for what follows", address)
                    doubted = part.size
                    part.describe(part.version, None)
                except TransientError as failure:
                    if part.size > furthest:
                        failures, furthest = Counter(), part.size
                    failures[failure.kind] += 1
                    self._wait(address, failure, failures[failure.kind])
            if is_cut and part.size != part.total:
                part.cut_to_members()
            part.finish()
        logger.info("downloaded %s: %s bytes", address, f"{path.stat().st_size:,}")
        return path

    def _wait(self, address: str, failure: TransientError, tries: int) -> None:
        """Waits before the next try, or lets the whole process wait; raises UserError where there were enough."""
        if tries >= getattr(self.config, f"{failure.kind}_attempts"):
            raise UserError(
                f"expected {address}. Received: {failure} ({tries} times in a row). "
                f"Try again later: the download goes on where it stopped"
            ) from failure
        wait = choose_wait(failure, tries, self.config)
        logger.warning("%s: %s; next try in %.1f s", address, failure, wait)
        if failure.kind == "refused" or read_retry_after(failure.retry_after):
            leave_alone(urllib.parse.urlsplit(address).netloc, wait)
        else:
            self.sleep(wait)

    def _request(self, address: str, part: Part, end: int | None) -> None:
        """Asks once for what `part` lacks; raises TransientError unless it holds all of it then."""
        headers = {"User-Agent": format_user_agent(self.config.contact), "Accept-Encoding": "identity"}
        if part.size and part.version is None:
            part.restart()  # nothing would tell whether what follows is of the same file
        if part.size:
            headers["If-Range"] = part.version
        if part.end or end is not None:
            headers["Range"] = f"bytes={part.end}-{'' if end is None else end - 1}"
        try:
            with OPENER.open(urllib.request.Request(address, headers=headers), timeout=self.config.timeout) as response:
                receive(response, part, end)
        except urllib.error.HTTPError as error:
            error.close()
            problem, retry_after = f"{error.code} {error.reason}", error.headers.get("Retry-After")
            if error.code in BUSY:
                raise TransientError("busy", problem, retry_after) from error
            if error.code in REFUSED:
                raise TransientError("refused", problem, retry_after) from error
            if error.code == 416 and part.size and part.total is None:  # it was in doubt whether anything follows
                total = error.headers.get("Content-Range", f"bytes */{part.end}").rpartition("/")[2]
                if total == str(part.end):
                    part.describe(part.version, part.end)
                    return
            if error.code == 416 and part.size:  # the server's file is shorter than what is here: another one
                part.restart()
                raise TransientError("lost", problem) from error
            part.discard()
            raise NotFoundError(f"expected a file at {address}. Received: {problem}. Check the name") from error
        except (OSError, http.client.HTTPException) as error:
            raise TransientError("lost", str(error) or type(error).__name__) from error
        if not part.holds(end):
            raise TransientError("lost", f"the connection ended after {part.end:,} of {part.total:,} bytes")


def receive(response: http.client.HTTPResponse, part: Part, end: int | None) -> None:
    """Appends the body of a response to `part`, after what is there or in its place, as the response says."""
    version, (start, total) = read_version(response), read_extent(response)
    if start == part.begin:
        part.restart(version, total, read_digest(response))
    elif response.status == 200:
        raise TransientError("lost", "the server sends the whole file where a part of it was asked for")
    elif (start, version, total) != (part.end, part.version, part.total or total):
        part.restart()
        raise TransientError("lost", "the file on the server has changed")
    elif part.total is None:
        part.describe(version, total, part.digest)
    name, goal = response.url.rsplit("/")[-1], total if end is None else min(end, total or end)
    report = time.monotonic() + REPORT_SECONDS
    with tqdm(desc=name, initial=start, total=goal, unit="B", unit_scale=True, leave=False, disable=None) as progress:
        while not part.holds(end) and (chunk := response.read1(CHUNK)):
            part.write(chunk if end is None else chunk[: end - part.end])
            progress.update(len(chunk))
            if time.monotonic() > report:  # for those who read a log, not a terminal
                report = time.monotonic() + REPORT_SECONDS
                logger.info("%s: %s of %s bytes", name, f"{part.end:,}", f"{goal:,}" if goal else "?")
    if total is None and not part.holds(end):  # the last chunk said that this is all
        part.describe(version, part.end, part.digest)


def read_version(response: http.client.HTTPResponse) -> str | None:
    """What to send as `If-Range`: the strong entity tag, else the date of the last change, else nothing."""
    tag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if tag.startswith("W/") else tag


def read_digest(response: http.client.HTTPResponse) -> str | None:
    """The MD5 of the whole file in base 16, where the head of an answer tells it."""
    headers = response.headers
    if response.status == 200 and "Content-MD5" in headers:  # in a 206 it may be that of the part
        try:
            return base64.b64decode(headers["Content-MD5"], validate=True).hex()
        except binascii.Error:
            return None
    tag = re.fullmatch(r'"([0-9a-f]{32})"', headers.get("ETag", ""))
    plain = headers.get("x-amz-server-side-encryption", "AES256") == "AES256"
    of_amazon = any(name.lower().startswith("x-amz-") for name in headers) or headers.get("Server") == "AmazonS3"
    hidden = "x-amz-server-side-encryption-customer-algorithm" in headers
    return tag[1] if tag and of_amazon and plain and not hidden else None


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
