"""What is kept survives: processes that are killed, files that are damaged, other writers."""

import datetime
import sqlite3
import threading

import pytest
from assisting import MONDAY
from todo_writer import kill_while_it_writes

from tf_llm.apps.assistant.store import Store
from tf_llm.contracts import UserError

HOUR = datetime.timedelta(hours=1)


def test_what_is_stored_is_there_again(tmp_path):
    store = Store(tmp_path / "new" / "a.sqlite")
    store.add_reminder("call “Zoë”", MONDAY + HOUR)
    store.add_reminder("first", MONDAY)
    store.add_todo("milk", "shopping")
    done = store.add_todo("taxes", "to-do")
    store.add_note("line 1\nline 2", MONDAY)
    assert store.complete_todo(done) and not store.complete_todo(done)
    store.close()
    store = Store(tmp_path / "new" / "a.sqlite")
    assert [(each.text, each.time) for each in store.list_reminders()] == [
        ("first", MONDAY),
        ("call “Zoë”", MONDAY + HOUR),
    ]
    assert [each.text for each in store.list_reminders(MONDAY + HOUR, MONDAY + 2 * HOUR)] == ["call “Zoë”"]
    assert [(each.text, each.list) for each in store.list_todos()] == [("milk", "shopping")]
    assert not store.list_todos("to-do") and store.list_notes()[0].text == "line 1\nline 2"
    assert store.remove("notes", 1) and not store.remove("notes", 1) and not store.list_notes()
    with pytest.raises(ValueError, match=r"expected to be one of reminders, todos, notes, timers. Received: 'x; DROP'"):
        store.remove("x; DROP", 1)


def test_what_is_due_is_told_once(tmp_path):
    store = Store(tmp_path / "a.sqlite")
    store.add_reminder("later", MONDAY + HOUR)
    store.add_reminder("b", MONDAY)
    store.add_reminder("a", MONDAY - HOUR)
    store.add_timer("tea", MONDAY)
    reminders, timers = store.take_due(MONDAY)
    assert [each.text for each in reminders] == ["a", "b"] and [each.text for each in timers] == ["tea"]
    assert store.take_due(MONDAY) == ([], []) and not store.list_timers()
    assert [each.text for each in store.list_reminders()] == ["later"]


def test_several_may_write_at_once(tmp_path):
    stores = [Store(tmp_path / "a.sqlite") for _ in range(3)]

    def write(number):
        for item in range(5):
            stores[number % 3].add_todo(f"{number} {item}", "to-do")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.text for each in stores[0].list_todos()} == {
        f"{number} {item}" for number in range(6) for item in range(5)
    }


def test_a_damaged_file_is_refused_and_left_alone(tmp_path):
    whole = tmp_path / "whole.sqlite"
    store = Store(whole)
    for number in range(200):
        store.add_todo(f"thing {number} " * 20, "to-do")
    store.close()
    content = whole.read_bytes()
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version=9")
    connection.close()
    other = bytearray(content)
    other[4096 * 3 : 4096 * 4] = b"\xff" * 4096
    for name, damaged in {
        "text": b"milk, eggs" * 100,
        "cut": content[: len(content) // 2],
        "page": bytes(other),
        "newer": newer.read_bytes(),
    }.items():
        path = tmp_path / f"{name}.sqlite"
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"expected reminders.*Restore the file from a backup, or move it away"):
            Store(path)
        assert path.read_bytes() == damaged, name


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    """Twice; examples/benchmarks/assistant_is_safe.py does it fifty times."""
    for number in range(2):
        acknowledged, kept = kill_while_it_writes(tmp_path / f"{number}.sqlite", after=5)
        assert acknowledged >= 5 and kept in (acknowledged, acknowledged + 1)
