"""Moves the clock of a test's room together with the server's.

A room's time is its database's. Of one SQLite file, opened in this process, a test can be the clock: SQLite takes
`julianday` from the connection, so the room knows nothing of it. A room on a server keeps the server's time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

EPOCH_JD, DAY_S = 2440587.5, 86400.0


@contextlib.contextmanager
def moved(room_file: Path, ahead_s: Callable[[], float]) -> Iterator[None]:
    """Have the room in this file tell the time `ahead_s()` seconds ahead, on connections that are opened meanwhile."""
    try:
        from sqlalchemy import Engine, event
    except ModuleNotFoundError:  # then there is no such room either
        yield
        return

    def julian_day(when: str) -> float | None:
        return EPOCH_JD + (time.time() + ahead_s()) / DAY_S if when == "now" else None

    def connect(connection: Any, record: Any) -> None:
        if _is_of(connection, room_file):
            connection.create_function("julianday", 1, julian_day)

    event.listen(Engine, "connect", connect)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connect)


def _is_of(connection: Any, room_file: Path) -> bool:
    if not type(connection).__module__.startswith("sqlite3"):
        return False
    _, _, opened = connection.execute("PRAGMA database_list").fetchone()
    return bool(opened) and Path(opened) == room_file.resolve()
