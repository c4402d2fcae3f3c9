"""Files that sources keep between runs. A file is in the cache whole or not at all: the last step is a rename."""

import contextlib
import hashlib
import json
import logging
import os
import zlib
from pathlib import Path

from tf_llm.contracts import UserError
from tf_llm.files import write_atomically

try:
    import fcntl
except ImportError:  # Windows has no such locks: there, two processes must not download the same file at once
    fcntl = None

logger = logging.getLogger(__name__)

CHUNK = 2**18
MAGIC = b"\x1f\x8b\x08"
TAIL, STARTS = 2**21, 20  # bytes at the end of a file, and places among them, where its last member is looked for
REMEDY = "make room, or name another cache_dir"


def cache_folder(cache_dir: str | os.PathLike | None = None) -> Path:
    """The folder in which sources keep files; made where it is not there. By default, `tf_llm` in the user's cache.

    Raises:
        UserError: the folder cannot be made or written.
    """
    if cache_dir is None:
        cache_dir = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "tf_llm")
    folder = Path(cache_dir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise UserError(
            f"expected a folder for the cache that can be written. Received: {folder}. "
            f"Name another one as cache_dir, or in the environment variable XDG_CACHE_HOME"
        )
    return folder


def no_room(folder: Path, error: OSError) -> UserError:
    """What is said when a file cannot be written."""
    return UserError(f"expected room for a file in {folder}. Received: {error}. {REMEDY.capitalize()}")


class Part:
    """A file on its way, `<name>.part`, and what is known of it, `<name>.part.json`, so that a later run can go on.

    It is locked while it is open: a second process that wants the same file waits.

    Attributes:
        begin: the offset in the whole file of the first byte that is here.
        size: bytes that are here.
        total: bytes of the whole file; None while that is not known.
        version: what tells this file from a later one of the same name; None while that is not known.
        digest: the MD5 of the whole file in base 16; None where nobody said it.
    """

    def __init__(self, path: Path, begin: int = 0):
        self._final, self.begin = path, begin
        self._path, self._record = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
        self.total: int | None = None
        self.version: str | None = None
        self.digest: str | None = None

    def __enter__(self):
        try:
            self._final.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_locked(self._path)
        except OSError as error:
            raise no_room(self._final.parent, error) from error
        try:
            known = json.loads(self._record.read_bytes())
            self.total, self.version, self.digest = known["total"], known["version"], known["digest"]
        except (OSError, ValueError, KeyError, TypeError):
            self._file.truncate(0)  # nothing says of which file these bytes are
        self.size = os.fstat(self._file.fileno()).st_size
        return self

    def __exit__(self, *_):
        self._file.close()

    @property
    def end(self) -> int:
        """The offset in the whole file of the next byte."""
        return self.begin + self.size

    def holds(self, end: int | None = None) -> bool:
        """Whether the file is here up to its end, or up to this offset in it."""
        return self.end == self.total or (end is not None and self.end >= end)

    def restart(self, version: str | None = None, total: int | None = None, digest: str | None = None) -> None:
        """Throws away what is here: what follows is the beginning of this version of the file."""
        self._file.truncate(0)
        self.size = 0
        self.describe(version, total, digest)

    def describe(self, version: str | None, total: int | None, digest: str | None = None) -> None:
        """Writes down what is known of the whole file."""
        self.version, self.total, self.digest = version, total, digest
        record = {"version": version, "total": total, "digest": digest}
        write_atomically(self._record, json.dumps(record).encode(), REMEDY)

    def has_digest(self) -> bool:
        """Whether what is here has the digest of the whole file."""
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest() == self.digest

    def ends_with_member(self) -> bool:
        """Whether what is here, of a gzip file, ends where a member ends."""
        return ends_with_member(self._path)

    def write(self, content: bytes) -> None:
        """Appends.

        Raises:
            UserError: the disk has no room.
        """
        try:
            written = self._file.write(content)
            while written < len(content):
                written += self._file.write(content[written:])
        except OSError as error:
            raise no_room(self._path.parent, error) from error
        self.size += len(content)

    def cut_to_members(self) -> None:
        """Takes away what follows the last whole gzip member.

        Raises:
            UserError: there is no whole member.
        """
        end = find_last_member(self._path)
        if not end:
            size = self.size
            self.discard()
            raise UserError(
                f"expected a whole gzip member in the beginning of {self._final.name}. Received: {size:,} bytes. "
                f"Ask for more megabytes, or for the whole file"
            )
        self._file.truncate(end)
        self.size = end

    def finish(self) -> None:
        """Gives the file its name."""
        try:
            os.fsync(self._file.fileno())
            self._let_go()
            self._path.replace(self._final)
        except OSError as error:
            raise no_room(self._path.parent, error) from error
        self._record.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leaves nothing behind."""
        self._let_go()
        self._path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)

    def _let_go(self) -> None:
        if fcntl is None:  # Windows neither renames nor removes a file that is open
            self._file.close()


def open_locked(path: Path):
    """Opens a file to append to, unbuffered, once no other process has it open."""
    while True:
        file = path.open("ab", buffering=0)
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process that is downloading %s", path.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        # While this one waited, the other may have renamed or removed what was opened here; a third may do so by now.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def ends_with_member(path: Path) -> bool:
    """Whether a gzip file ends where a member of it ends.

    A member that begins among the last bytes and ends with them is proof, since its last eight bytes are its check sum
    and its size. Where there is none, the whole file is read.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        tail = file.read()
    start = len(tail)
    for _ in range(STARTS):
        start = tail.rfind(MAGIC, 0, start)
        if start < 0:
            break
        member, rest = zlib.decompressobj(wbits=31), tail[start:]
        try:
            while rest and not member.eof:
                member.decompress(rest, CHUNK)
                rest = member.unconsumed_tail
        except zlib.error:  # the three bytes stood there by chance
            continue
        if member.eof and not member.unused_data:
            return True
    return scan_members(path) == (path.stat().st_size, False)


def find_last_member(path: Path) -> int:
    """The offset at which the last whole member of a gzip file ends; its size where something in it is damaged."""
    end, is_damaged = scan_members(path)
    return path.stat().st_size if is_damaged else end  # for the reader to skip and to count


def scan_members(path: Path) -> tuple[int, bool]:
    """(offset at which the last whole member of a gzip file ends, whether what follows it is no member's beginning).

    Members stand one behind the other and nothing says where one ends but decompressing it (RFC 1952).
    """
    end, member = 0, zlib.decompressobj(wbits=31)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            while chunk:
                try:
                    member.decompress(chunk)
                except zlib.error:
                    return end, True
                chunk = member.unused_data
                if member.eof:
                    end = file.tell() - len(chunk)
                    member = zlib.decompressobj(wbits=31)
    return end, False
