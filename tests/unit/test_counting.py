"""Counting in a process: cheap, told in time, by whoever lives; nothing where nobody asked."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from framelane_celery import counting
from framelane_celery.counting import BUCKETS, Counts, count, key_of, tell, tell_to, timed
from framelane_celery.errors import RoomError


@pytest.fixture(autouse=True)
def tally(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tally of the test's own."""
    monkeypatch.setattr(counting, "_tally", counting._Tally())
    yield
    if counting._tally.timer is not None:
        counting._tally.timer.cancel()


def test_where_nobody_asked_nothing_is_kept() -> None:
    count("submissions", "render")
    timed("job_seconds", "render", seconds=1.0)
    assert counting._tally.counts == {}
    assert counting._tally.timer is None


def test_what_was_counted_is_told_once_and_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "TELL_AFTER_S", 0.05)
    told: list[Counts] = []
    is_told = threading.Event()

    def teller(counts: Counts) -> None:
        told.append(counts)
        is_told.set()

    tell_to("shop", teller)
    count("looks", "read")
    count("looks", "read", by=2, namespace="shop")
    assert is_told.wait(30)
    while len(told) < 2:  # "" and "shop" are two tallies of one namespace
        assert is_told.wait(30)
    assert sum(sum(counts.values()) for counts in told) == 3
    tell()
    assert len(told) == 2


def test_a_span_is_counted_into_the_first_bucket_that_holds_it() -> None:
    told: list[Counts] = []
    tell_to("", told.append)
    for seconds in (-1.0, BUCKETS[0], BUCKETS[0] + 0.01, BUCKETS[-1] + 1):
        timed("job_seconds", "render", seconds=seconds)
    tell()
    buckets = {json.loads(key)[-1]: number for key, number in told[0].items() if "_bucket" in key}
    assert buckets == {"0.1": 2.0, "0.25": 1.0, "+Inf": 1.0}
    assert told[0][key_of("job_seconds_sum", "render")] == pytest.approx(0.1 + 0.11 + 7201)


def test_while_the_room_is_away_counts_are_kept() -> None:
    told: list[Counts] = []
    is_away = True

    def teller(counts: Counts) -> None:
        if is_away:
            raise RoomError("away")
        told.append(counts)

    tell_to("shop", teller)
    count("resends", namespace="shop")
    tell()
    count("resends", namespace="shop")
    is_away = False
    tell()
    assert told == [{key_of("resends"): 2.0}]


def test_a_forked_process_counts_for_itself() -> None:
    """It inherits who is told, but no counts (they are its parent's), no lock that is held, and no timer."""
    read, write = os.pipe()
    tell_to("shop", lambda counts: os.write(write, json.dumps(counts).encode()) and None)
    count("drops", namespace="shop")
    counting._tally.lock.acquire()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # a lock that stays held would be waited for for ever
        count("drops", namespace="shop", by=7)
        tell()
        os._exit(0)
    counting._tally.lock.release()
    assert os.waitpid(pid, 0)[1] == 0
    assert json.loads(os.read(read, 1000)) == {key_of("drops"): 7.0}
    os.close(read)
    os.close(write)
