"""Counts that all processes of a namespace add to: nothing of them is lost, whoever writes at the same time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from framelane_celery.room import Room


def test_counts_are_added_up_and_kept(room: Room, open_again: Callable[[], Room]) -> None:
    assert room.counts() == {}
    room.add_counts({'["a"]': 1.0, '["b","käse"]': 0.25})
    open_again().add_counts({'["a"]': 2.0})
    room.add_counts({})
    assert room.counts() == {'["a"]': 3.0, '["b","käse"]': 0.25}


def test_purging_keeps_counts(room: Room) -> None:
    room.add_counts({'["a"]': 1.0})
    room.purge()
    assert room.counts() == {'["a"]': 1.0}


def test_counts_of_many_at_once_are_all_there(room: Room, open_again: Callable[[], Room]) -> None:
    rooms = [room, open_again(), open_again()]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: rooms[n % 3].add_counts({'["a"]': 1.0, f'["{n % 2}"]': 0.5}), range(60)))
    assert room.counts() == {'["a"]': 60.0, '["0"]': 15.0, '["1"]': 15.0}
