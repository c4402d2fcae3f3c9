"""Files that lie elsewhere: at an address http(s)://, s3:// or gs://. They are copied to the cache folder to be read.

What is on the web is fetched as politely as Common Crawl, see download.py; buckets by way of fsspec
(https://filesystem-spec.readthedocs.io), which finds keys and endpoints where their own tools do, in the environment
and in ~/.aws or ~/.config/gcloud. A bucket can be listed: patterns work there, and the copy in the cache is known by
the entity tag, so that a file that has changed is fetched anew. What is on the web is fetched once.
"""

import contextlib
import dataclasses
import hashlib
import logging
import re
import time
import urllib.parse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tf_llm.contracts import UserError
from tf_llm.crawl.cache import CHUNK, Part, cache_folder
from tf_llm.crawl.manners import DownloadConfig, TransientError, choose_wait

logger = logging.getLogger(__name__)

WEB, BUCKETS = ("http", "https"), ("s3", "gs")
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # of two letters at least: C: is a disk
MD5 = re.compile(r'"?([0-9a-f]{32})"?')


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file that is not here, and what is known of it without asking for its content."""

    address: str
    size: int | None = None  # None: it would have to be asked
    version: str | None = None

    def local_path(self) -> Path:
        """Where its copy is, or is to be."""
        key = hashlib.sha256(f"{self.address} {self.version}".encode()).hexdigest()[:16]
        name = urllib.parse.unquote(urllib.parse.urlsplit(self.address).path).rstrip("/").rpartition("/")[2]
        return cache_folder() / "remote" / key / (re.sub(r"[^\w.-]", "_", name, flags=re.ASCII).strip(".") or "file")

    def fetch(self, path: Path) -> None:
        """Copies it to a path, where it is not there yet. Raises UserError where that fails for good."""
        if path.exists():
            return
        parts = urllib.parse.urlsplit(self.address)
        if parts.scheme in WEB:
            from tf_llm.crawl.download import Host  # which brings all of http and e-mail with it, into every worker

            host = Host(f"{parts.scheme}://{parts.netloc}")
            host.download(urllib.parse.unquote(parts.path).lstrip("/"), path, query=parts.query)
        else:
            copy_from_bucket(self, path)


def divide_paths(paths: Iterable[Any], noun: str) -> tuple[list[Any], dict[Path, RemoteFile]]:
    """(the paths on this machine, the files at the others by where their copies are to be, in the addresses' order)."""
    paths = list(paths)
    files = {file for path in paths if is_remote(path) for file in find_remote(str(path), noun)}
    files = sorted(files, key=lambda file: file.address)
    return [path for path in paths if not is_remote(path)], {file.local_path(): file for file in files}


def is_remote(path: Any) -> bool:
    """Whether a path is an address. Raises UserError where it is one of a kind that is not known.

    >>> is_remote("https://example.org/a.jsonl"), is_remote("texts/a.jsonl"), is_remote("C:/texts")
    (True, False, False)
    """
    found = ADDRESS.match(str(path))
    if found and found[1].lower() not in WEB + BUCKETS:
        raise UserError(
            f"expected a path, or an address of {', '.join(f'{scheme}://' for scheme in WEB + BUCKETS)}. "
            f"Received: {str(path)!r}. Download it first"
        )
    return found is not None


def find_remote(address: str, noun: str) -> list[RemoteFile]:
    """The file at an address, or those in a bucket that match a pattern; errors call one a `noun`.

    Raises UserError where there is none, and where the packages for buckets are not installed.
    """
    scheme = urllib.parse.urlsplit(address).scheme
    if scheme in WEB:
        return [RemoteFile(address)]
    with refuse_unreachable(address):
        filesystem = open_bucket(scheme)
        found = filesystem.glob(address, detail=True) if re.search(r"[*?\[]", address) else [filesystem.info(address)]
        infos = found.values() if isinstance(found, dict) else found
        files = [
            RemoteFile(filesystem.unstrip_protocol(info["name"]), int(info["size"]), name_version(info))
            for info in infos
            if info["type"] == "file"
        ]
    if not files:
        raise UserError(
            f"expected a {noun}. Received: {address!r}, where there is no file. Check the address, and your rights"
        )
    return sorted(files, key=lambda file: file.address)


def open_bucket(scheme: str):
    """fsspec's view of a kind of bucket; raises UserError where its packages are missing."""
    try:
        import fsspec

        return fsspec.filesystem(scheme)
    except ImportError as error:
        raise UserError(
            f'expected the packages that read {scheme}://. Received: {error}. Install them: pip install "tf_llm[cloud]"'
        ) from error


def name_version(info: dict) -> str:
    """What tells a file from a later one of the same name, by whatever name the kind of bucket calls it."""
    names = ("ETag", "etag", "generation", "LastModified", "mtime", "created")
    return str(next((info[name] for name in names if info.get(name)), info["size"])).strip('"')


def read_digest(filesystem, address: str) -> str | None:
    """The MD5 of a file in base 16, where its bucket knows it."""
    if address.startswith("s3://"):
        bucket, key, _ = filesystem.split_path(address)
        head = filesystem.call_s3("head_object", Bucket=bucket, Key=key)
        # The entity tag is the digest unless the file came in parts or is encrypted with somebody's key.
        plain = head.get("ServerSideEncryption", "AES256") == "AES256" and "SSECustomerAlgorithm" not in head
        tag = MD5.fullmatch(head.get("ETag", ""))
        return tag[1] if tag and plain else None
    return None  # gcsfs checks what it reads


def copy_from_bucket(
    file: RemoteFile, path: Path, config: DownloadConfig | None = None, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Copies a file of a bucket to a path, and goes on where an earlier run stopped.

    Raises:
        UserError: it is not there any more, has changed, may not be read, or the connection fails again and again.
    """
    config = config or DownloadConfig()
    with refuse_unreachable(file.address), Part(path) as part:
        if path.exists():  # another process had the lock, and has finished
            part.discard()
            return
        filesystem = open_bucket(urllib.parse.urlsplit(file.address).scheme)
        if (part.version, part.total) != (file.version, file.size):
            part.restart(file.version, file.size, read_digest(filesystem, file.address))
        for tries in range(1, config.lost_attempts + 1):
            try:
                with filesystem.open(file.address, "rb") as stream:
                    stream.seek(part.size)
                    while chunk := stream.read(CHUNK):
                        part.write(chunk)
                if part.size == file.size and (not part.digest or part.has_digest()):
                    part.finish()
                    logger.info("copied %s: %s bytes", file.address, f"{file.size:,}")
                    return
                part.restart(file.version, file.size, part.digest)
                problem = "another length or digest than the bucket names"
            except (FileNotFoundError, PermissionError):
                raise
            except OSError as error:
                problem = str(error)
            wait = choose_wait(TransientError("lost", problem), tries, config)
            logger.warning("%s: %s; next try in %.1f s", file.address, problem, wait)
            sleep(wait)
        raise UserError(f"expected {file.address}. Received: {problem} ({tries} times in a row). Try again later")


@contextlib.contextmanager
def refuse_unreachable(address: str):
    """Turns whatever the packages for buckets raise into a `UserError`: they have no errors in common."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"expected {address}. Received: {type(error).__name__}: {error}. Check the address, and the keys in the "
            "environment"
        ) from error
