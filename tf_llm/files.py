"""Files that are there whole or not at all, whatever stops the writing: an error, a signal, a power cut."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from tf_llm.contracts import UserError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None


def write_atomically(
    path: str | os.PathLike, content: bytes, remedy: str = "free some space or choose another folder"
) -> None:
    """Writes bytes so that `path` holds all of them or is not touched, also when the machine stops in between.

    They go to a file beside it, of a name that no other writer has, and on to the disk; then that one is renamed. Of
    several that write the same path at once, the last one wins. Only what is killed leaves its `.partial` file behind.

    Args:
        path: of a file in a folder that exists.
        content: all of it.
        remedy: what an error tells people to do.

    Raises:
        UserError: the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(f"{folder}/a.json", b"[]")
    ...     Path(folder, "a.json").read_bytes()
    b'[]'
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a power cut may find the new name before the bytes
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: expected room for {len(content):,} bytes, received {error.strerror or error}; "
            f"{remedy}"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it is only there if something went wrong
            partial.unlink()


@contextlib.contextmanager
def make_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Makes a folder so that `path` holds all that is written inside the `with` block, or is not touched.

    What is yielded is an empty folder beside it, which is renamed at the end. Only what is killed leaves it behind.

    Raises:
        UserError: there is something at `path` already, or it cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with make_folder(f"{folder}/a") as partial:
    ...         _ = (partial / "b").write_text("c")
    ...     Path(folder, "a", "b").read_text()
    'c'
    """
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        received = "a file" if path.is_file() else f"one that holds {sorted(each.name for each in path.iterdir())[:5]}"
        raise UserError(
            f"expected a new or an empty folder at {path}. Received: {received}. Name another one, or remove it"
        )
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        for written in partial.rglob("*"):
            if written.is_file():
                sync_file(written)
        if path.is_dir():
            path.rmdir()
        partial.rename(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # it is only there if something went wrong


def sync_file(path: str | os.PathLike) -> None:
    """Waits until what was written to a file is on the disk."""
    file = os.open(path, os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextlib.contextmanager
def lock_folder(path: str | os.PathLike, wait: bool = True) -> Iterator[None]:
    """Keeps a folder to this process inside the `with` block; a process that ends, however, lets go of it.

    Args:
        path: of a folder that exists.
        wait: whether to wait for one that another process has.

    Raises:
        BlockingIOError: another process has it, and `wait` is False.
    """
    if fcntl is None:
        yield
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(folder)
