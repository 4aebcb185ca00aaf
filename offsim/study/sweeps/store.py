"""The finished points of a sweep: a SQLite file in its folder, valid whenever and however the sweep ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from offsim.inputs.errors import InputError

STORE, TABLE = "points.sqlite", "results.parquet"
CONTINUES = "what is finished is kept, --resume continues"

_SETUP = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS points (id BLOB PRIMARY KEY, outcome BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS scenarios (name TEXT PRIMARY KEY);
"""


class Store:
    """Outcomes of points by their ids. Each call of `add` is one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        (self._last_row,) = connection.execute("SELECT coalesce(max(rowid), 0) FROM points").fetchone()

    def add(self, outcomes: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep ids and their outcomes (JSON)."""
        with self._connection:
            self._connection.executemany("INSERT INTO points VALUES (?, ?)", outcomes)

    def __contains__(self, key: bytes) -> bool:
        return self._connection.execute("SELECT 1 FROM points WHERE id = ?", (key,)).fetchone() is not None

    def __getitem__(self, key: bytes) -> bytes:
        outcome: bytes
        (outcome,) = self._connection.execute("SELECT outcome FROM points WHERE id = ?", (key,)).fetchone()
        return outcome

    def had(self, key: bytes) -> bool:
        """Whether the point was there when the store was opened."""
        (rows,) = self._connection.execute(
            "SELECT count(*) FROM points WHERE id = ? AND rowid <= ?", (key, self._last_row)
        ).fetchone()
        return bool(rows)


@contextmanager
def open_store(folder: Path, scenarios: Sequence[str], *, resume: bool) -> Iterator[Store]:
    """Open the store of a sweep of these scenarios for as long as the block runs; no other process can meanwhile.

    The table of an earlier sweep goes, which may be another's. Raises InputError where the folder holds something else,
    where it holds results and `resume` is not asked for, and for what goes wrong as the block writes.
    """
    try:
        _make(folder)
        with closing(sqlite3.connect(folder / STORE, timeout=0)) as connection:
            connection.executescript(_SETUP)
            _match(connection, folder, scenarios, resume)
            (folder / TABLE).unlink(missing_ok=True)
            yield Store(connection)
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise InputError("another sweep is writing to this folder", str(folder)) from None
        if error.sqlite_errorcode in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise damaged(folder, str(error)) from None
        raise InputError(f"cannot be written: {error}; {CONTINUES}", str(folder)) from error
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}; {CONTINUES}", str(folder)) from error


def damaged(folder: Path, what: str) -> InputError:
    """The error for a store whose content no sweep has written."""
    return InputError(f"damaged ({what}); a sweep into another folder begins anew", str(folder / STORE))


def _make(folder: Path) -> None:
    where = str(folder)
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError:
        raise InputError(f"found the missing folder '{folder.parent}', expected one", where) from None
    except FileExistsError:
        raise InputError("found a file, expected a folder", where) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be written: {getattr(error, 'strerror', None) or error}", where) from None
    names = sorted(path.name for path in folder.iterdir())
    if names and STORE not in names:
        problem = f"found files that are no sweep's, such as '{names[0]}', expected an empty or a new folder"
        raise InputError(problem, where)


def _match(connection: sqlite3.Connection, folder: Path, scenarios: Sequence[str], resume: bool) -> None:
    before = {name for (name,) in connection.execute("SELECT name FROM scenarios WHERE EXISTS (SELECT 1 FROM points)")}
    if before and not resume:
        problem = f"found results of a sweep of {', '.join(sorted(before))}; --resume continues it"
        raise InputError(f"{problem}, another sweep needs an empty or a new folder", str(folder))
    if before and before.isdisjoint(scenarios):
        problem = f"found results of a sweep of {', '.join(sorted(before))}, expected those of {scenarios[0]}"
        raise InputError(f"{problem}, which --resume could continue", str(folder))
    with connection:
        if not before:
            connection.execute("DELETE FROM scenarios")
        connection.executemany("INSERT OR IGNORE INTO scenarios VALUES (?)", [(name,) for name in scenarios])
