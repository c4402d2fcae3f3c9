"""What proves that the files of a folder are those that were written: their sizes and sha256, in `manifest.json`.

    {"format": 1, …what is said about them…, "files": {"state.index": {"bytes": 863, "sha256": "db…"}}, "sha256": "18…"}

The last entry is the sha256 of the manifest without it: a changed byte of the manifest shows like one of any file.
"""

import errno
import hashlib
import json
import os
from pathlib import Path

from tf_llm.contracts import UserError

MANIFEST = "manifest.json"
FORMAT = 1  # a change that older code would misread takes the next number
CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # what file systems of a network say to fsync of a folder


class DamageError(Exception):
    """Files are not what was written: says which one, what was expected and what was received."""


def write_manifest(folder, about):
    """Measures the files of a folder, and writes its manifest; when it returns, all of them are on the disk.

    Args:
        folder: of files, no folders among them.
        about: a dictionary of what JSON can hold, for the manifest.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = Path(folder, "state").write_bytes(b"weights")
    ...     write_manifest(folder, {"step": 7})
    ...     manifest = check(folder)
    ...     manifest["step"], manifest["files"]["state"]["bytes"]
    (7, 7)
    """
    folder = Path(folder)
    files = {path.name: _measure(path, sync=True) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_bytes(_encode({"format": FORMAT, **about, "files": files}))
    _measure(folder / MANIFEST, sync=True)
    sync_folder(folder)


def read_manifest(folder):
    """The manifest of a folder, a dictionary, without a look at the files.

    Raises:
        DamageError: it is not there, or a byte of it is another one.
        UserError: it has another format: a later version of tf_llm wrote it.
    """
    try:
        content = (Path(folder) / MANIFEST).read_bytes()
    except OSError as error:
        raise DamageError(f"{MANIFEST}: expected a file, received: {error.strerror}") from error
    try:
        manifest = json.loads(content)
        claimed = manifest.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        received = f"{len(content)} bytes that are none"
        raise DamageError(f"{MANIFEST}: expected JSON with a sha256, received {received}") from error
    if content != _encode(manifest):
        raise DamageError(f"{MANIFEST}: expected content of sha256 {claimed}, received other content")
    if manifest["format"] != FORMAT:
        raise UserError(f"expected format {FORMAT} in {folder}. Received: {manifest['format']}. Update tf_llm")
    return manifest


def check(folder):
    """Reads all files of a folder and returns its manifest.

    Raises:
        DamageError: a file is missing, or has another size or sha256 than when it was written.
        UserError: see `read_manifest`.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        try:
            received = _measure(Path(folder) / name)
        except OSError as error:
            raise DamageError(f"{name}: expected {expected['bytes']} bytes, received: {error.strerror}") from error
        for what, value in expected.items():
            if received[what] != value:
                raise DamageError(f"{name}: expected {what} {value}, received {received[what]}")
    return manifest


def sync_folder(folder):
    """Lets the names in a folder outlast a power cut, where the system can."""
    if os.name == "nt":  # which opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def _encode(manifest):
    """Bytes of JSON that ends with the sha256 of itself without that."""
    digest = hashlib.sha256(json.dumps(manifest, indent=2).encode()).hexdigest()
    return (json.dumps(manifest | {"sha256": digest}, indent=2) + "\n").encode()


def _measure(path, sync=False):
    """Size and sha256 of a file; `sync` puts it on the disk first."""
    with path.open("rb+" if sync else "rb") as file:
        if sync:
            os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}
