"""Reminders, to-dos, notes and timers, in a file of SQLite (https://sqlite.org) that a power cut does not hurt.

What a method has returned from is on the disk: each writes in a transaction of its own, with `synchronous=FULL`
(https://sqlite.org/pragma.html#pragma_synchronous). Several processes may have the same file open.
"""

import contextlib
import datetime
import sqlite3
import threading
from pathlib import Path
from typing import NamedTuple

from tf_llm.contracts import UserError

VERSION = 1
TABLES = """
CREATE TABLE reminders (id INTEGER PRIMARY KEY, text TEXT NOT NULL, time TEXT NOT NULL, told INTEGER DEFAULT 0);
CREATE TABLE todos (id INTEGER PRIMARY KEY, text TEXT NOT NULL, list TEXT NOT NULL, done INTEGER DEFAULT 0);
CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL, time TEXT NOT NULL);
CREATE TABLE timers (id INTEGER PRIMARY KEY, text TEXT NOT NULL, time TEXT NOT NULL, told INTEGER DEFAULT 0);
"""
KINDS = ("reminders", "todos", "notes", "timers")
SECONDS = 10.0  # to wait for another process that writes


class Entry(NamedTuple):
    """One of what is stored."""

    id: int
    text: str
    time: datetime.datetime | None = None  # aware, UTC; None for to-dos
    list: str = ""  # of to-dos


class Store:
    """The file, open.

    Args:
        path: of the file, which is made if there is none.

    Raises:
        UserError: what lies there is no such file, or it is damaged, or of a newer version. It is left as it is.
    """

    def __init__(self, path):
        self._path, self._lock = Path(path), threading.Lock()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self._path, timeout=SECONDS, isolation_level=None, check_same_thread=False
            )
            damage = self._connection.execute("PRAGMA quick_check").fetchone()[0]
        except (sqlite3.Error, OSError) as error:
            raise self._refuse(str(error)) from error
        if damage != "ok":
            raise self._refuse(damage)
        if self._find_version() not in (None, VERSION):
            raise self._refuse(f"version {self._find_version()} of it, and this program knows {VERSION}")
        self._read("PRAGMA journal_mode=WAL")
        self._read("PRAGMA synchronous=FULL")
        with self._write() as run:
            if self._find_version() is None:
                for statement in TABLES.strip().splitlines():
                    run(statement)
                run(f"PRAGMA user_version={VERSION}")

    def _find_version(self):
        """The version of the tables, or None in a new file."""
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        is_new = version == 0 and not self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return None if is_new else version

    def _refuse(self, received):
        return UserError(
            f"expected reminders, to-dos and notes in {self._path}. Received: {received}. "
            "Restore the file from a backup, or move it away to start afresh"
        )

    @contextlib.contextmanager
    def _write(self):
        """Inside the `with` block, statements take effect together, at its end, or not at all."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._refuse(str(error)) from error
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _read(self, statement, *values):
        with self._lock:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise self._refuse(str(error)) from error

    def close(self):
        """Lets go of the file."""
        self._connection.close()

    def add_reminder(self, text, time):
        """Stores a reminder for a moment, an aware datetime; returns its id."""
        with self._write() as run:
            return run("INSERT INTO reminders (text, time) VALUES (?, ?)", (text, write_moment(time))).lastrowid

    def list_reminders(self, begin=None, end=None):
        """The reminders that were not told yet, soonest first; those of a period, if there is one."""
        rows = self._read("SELECT id, text, time FROM reminders WHERE NOT told ORDER BY time, id")
        entries = [Entry(number, text, read_moment(time)) for number, text, time in rows]
        return [entry for entry in entries if (not begin or begin <= entry.time) and (not end or entry.time < end)]

    def add_timer(self, name, time):
        """Stores a timer that ends at a moment; returns its id."""
        with self._write() as run:
            return run("INSERT INTO timers (text, time) VALUES (?, ?)", (name, write_moment(time))).lastrowid

    def list_timers(self):
        """The timers that run, soonest end first."""
        rows = self._read("SELECT id, text, time FROM timers WHERE NOT told ORDER BY time, id")
        return [Entry(number, text, read_moment(time)) for number, text, time in rows]

    def take_due(self, now):
        """What is due: (reminders, timers) whose time has come. Each is given once."""
        due = []
        with self._write() as run:
            for kind in ("reminders", "timers"):
                rows = run(
                    f"UPDATE {kind} SET told = 1 WHERE NOT told AND time <= ? RETURNING id, text, time",
                    (write_moment(now),),
                ).fetchall()
                due.append(
                    sorted((Entry(row[0], row[1], read_moment(row[2])) for row in rows), key=lambda each: each.time)
                )
        return tuple(due)

    def add_todo(self, text, name):
        """Puts something on a list; returns its id."""
        with self._write() as run:
            return run("INSERT INTO todos (text, list) VALUES (?, ?)", (text, name)).lastrowid

    def list_todos(self, name=None):
        """What is to be done, of one list or of all."""
        rows = self._read("SELECT id, text, list FROM todos WHERE NOT done ORDER BY list, id")
        return [Entry(number, text, None, of) for number, text, of in rows if name in (None, of)]

    def complete_todo(self, number):
        """Something was done; returns whether it was there."""
        with self._write() as run:
            return run("UPDATE todos SET done = 1 WHERE id = ? AND NOT done", (number,)).rowcount == 1

    def add_note(self, text, time):
        """Stores a note of a moment; returns its id."""
        with self._write() as run:
            return run("INSERT INTO notes (text, time) VALUES (?, ?)", (text, write_moment(time))).lastrowid

    def list_notes(self):
        """The notes, oldest first."""
        rows = self._read("SELECT id, text, time FROM notes ORDER BY time, id")
        return [Entry(number, text, read_moment(time)) for number, text, time in rows]

    def remove(self, kind, number):
        """Removes an entry for good; returns whether it was there.

        Raises:
            ValueError: there is no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"a kind is expected to be one of {', '.join(KINDS)}. Received: {kind!r}")
        with self._write() as run:
            return run(f"DELETE FROM {kind} WHERE id = ?", (number,)).rowcount == 1


def write_moment(moment):
    """An aware datetime as text that sorts by time."""
    return moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds")


def read_moment(text):
    """The aware datetime that `write_moment` wrote."""
    return datetime.datetime.fromisoformat(text)
