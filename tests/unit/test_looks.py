"""What to look at, how and when: pure, so each promise is a line of a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framelane_celery.watching import looks


@pytest.mark.parametrize(
    ("waiting", "long_polls", "wait_works", "way"),
    [
        (1, 40, True, "long_poll"),
        (40, 40, True, "long_poll"),
        (41, 40, True, "read"),
        (1, 40, False, "read"),
        (1, 0, True, "read"),
    ],
)
def test_a_few_are_long_polled_and_many_are_read(waiting: int, long_polls: int, wait_works: bool, way: str) -> None:
    assert looks.way(waiting, long_polls=long_polls, wait_works=wait_works) == way


@pytest.mark.parametrize(
    ("way", "waiting", "age_s", "left_s", "wait_s"),
    [
        ("long_poll", 1, 0.0, None, 2),
        ("long_poll", 1, 10.0, None, 5),
        ("long_poll", 1, 3600.0, None, 25),
        ("long_poll", 40, 0.0, None, 10),
        ("long_poll", 1, 3600.0, 7.2, 8),
        ("long_poll", 1, 3600.0, -10.0, 1),
        ("read", 1, 3600.0, None, 0),
    ],
)
def test_how_long_a_look_is_held(way: looks.Way, waiting: int, age_s: float, left_s: float | None, wait_s: int) -> None:
    assert looks.wait_s(way, waiting, 240, age_s=age_s, left_s=left_s) == wait_s


@given(waiting=st.integers(1, 100), per_minute=st.integers(60, 10_000), age_s=st.floats(0, 1e6))
def test_long_polls_of_all_stay_within_the_budget(waiting: int, per_minute: int, age_s: float) -> None:
    held_s = looks.wait_s("long_poll", waiting, per_minute, age_s=age_s, left_s=None)
    assert held_s == looks.WAIT_S or waiting * 60 / held_s <= per_minute


@pytest.mark.parametrize(
    ("wait_s", "took_s", "is_terminal", "ignored"),
    [
        (25, 0.05, False, True),
        (25, 0.05, True, False),
        (25, 24.9, False, False),
        (0, 0.05, False, False),
        (1, 0.9, False, False),
    ],
)
def test_a_server_that_ignores_wait_is_noticed(wait_s: int, took_s: float, is_terminal: bool, ignored: bool) -> None:
    assert looks.is_wait_ignored(wait_s=wait_s, took_s=took_s, is_terminal=is_terminal) is ignored


def test_a_long_poll_goes_on_at_once() -> None:
    assert looks.next_look_s("long_poll", 5, 240) == 0


@given(waiting=st.integers(1, 1_000_000), per_minute=st.integers(1, 10_000))
def test_single_reads_of_all_stay_within_the_budget(waiting: int, per_minute: int) -> None:
    pause_s = looks.next_look_s("read", waiting, per_minute)
    assert looks.LOOK_AGAIN_S <= pause_s <= looks.LOOK_LATEST_S
    assert pause_s == looks.LOOK_LATEST_S or waiting * 60 / pause_s <= per_minute * 1.0001


@given(st.lists(st.floats(0, 30), min_size=1, max_size=200), st.integers(1, 600))
def test_no_more_is_read_than_the_budget_gives(pauses: list[float], per_minute: int) -> None:
    now, spent = 0.0, 0
    budget = looks.ReadBudget(per_minute)
    for pause in pauses:
        now += pause
        budget = budget.at_time(now)
        reads = int(budget.left)
        budget, spent = budget.spend(reads), spent + reads
    assert spent <= per_minute / 60 * now + max(1.0, per_minute / 6) + 1


def test_trouble_slows_looking_down_but_never_ends_it() -> None:
    waits = [looks.after_trouble_s(failures) for failures in range(1, 30)]
    assert waits[0] == 2
    assert waits == sorted(waits)
    assert max(waits) == 60
