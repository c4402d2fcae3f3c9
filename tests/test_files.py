"""A file is there whole or not at all, whatever happens while it is written."""

import concurrent.futures
import doctest
import errno
import os
import signal
import subprocess
import sys

import pytest

from tf_llm import files
from tf_llm.contracts import UserError
from tf_llm.files import write_atomically


def test_docstring_examples():
    result = doctest.testmod(files)
    assert result.attempted and result.failed == 0


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failed_write_leaves_what_there_was(tmp_path, monkeypatch, call):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_atomically(tmp_path / "a", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(*{"fsync": (os, "fsync"), "replace": (type(tmp_path), "replace")}[call], fail)
        text = f"cannot write {tmp_path / 'a'}: expected room for 3 bytes, received No space left on device; "
        for own, remedy in ({}, "free some space or choose another folder"), ({"remedy": "ask me"}, "ask me"):
            with pytest.raises(UserError) as error:
                write_atomically(tmp_path / "a", b"new", **own)
            assert str(error.value) == text + remedy
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"old"
    write_atomically(str(tmp_path / "a"), b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_bytes_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    seen = []

    def look(descriptor):
        seen.append((os.fstat(descriptor).st_size, (tmp_path / "a").exists()))

    monkeypatch.setattr(os, "fsync", look)
    write_atomically(tmp_path / "a", b"new")
    assert seen == [(3, False)] and (tmp_path / "a").read_bytes() == b"new"


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", b"new")
    assert not list(tmp_path.iterdir())


def test_killed_write_leaves_the_old_file(tmp_path):
    write_atomically(tmp_path / "a", b"old")
    code = (
        "import os, signal, sys; from tf_llm.files import write_atomically; "
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL); write_atomically(sys.argv[1], b'new')"
    )
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], check=False)
    assert result.returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_bytes() == b"old"
    write_atomically(tmp_path / "a", b"new")  # what the other left does not stand in the way
    assert (tmp_path / "a").read_bytes() == b"new"


def test_of_several_writers_one_wins(tmp_path):
    """None of them writes into the file of another."""
    contents = [bytes([letter]) * 100_000 for letter in b"abcd"]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda content: write_atomically(tmp_path / "a", content), contents * 3))
    assert (tmp_path / "a").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*received Not a directory; free some space or choose another"):
        write_atomically(tmp_path / "file" / "a", b"new")
