"""How long, how often, how many: pure, so each promise is a line of a table. What comes of it: test_plan.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framelane_celery.watching import looks

FEW, MANY, SINGLY = "long_poll", "sweep", "read"


@pytest.mark.parametrize(
    ("before", "count", "long_polls", "wait_works", "list_works", "way"),
    [
        (FEW, 1, 40, True, True, FEW),
        (FEW, 40, 40, True, True, FEW),
        (FEW, 41, 40, True, True, MANY),
        (MANY, 31, 40, True, True, MANY),
        (MANY, 30, 40, True, True, FEW),
        (FEW, 41, 40, True, False, SINGLY),
        (FEW, 9, 40, False, True, MANY),
        (FEW, 8, 40, False, True, SINGLY),
        (FEW, 1, 0, True, True, SINGLY),
        (SINGLY, 1000, 0, True, True, MANY),
        (SINGLY, 1, 1, True, True, FEW),
    ],
)
def test_a_few_are_long_polled_many_are_listed_and_else_they_are_read(
    before: looks.Way, count: int, long_polls: int, wait_works: bool, list_works: bool, way: str
) -> None:
    chosen = looks.way(before, count, long_polls=long_polls, wait_works=wait_works, list_works=list_works)
    assert chosen == way


@pytest.mark.parametrize(
    ("count", "age_s", "left_s", "wait_s"),
    [
        (1, 0.0, None, 2),
        (1, 10.0, None, 5),
        (1, 3600.0, None, 25),
        (40, 0.0, None, 10),
        (1, 3600.0, 7.2, 8),
        (1, 3600.0, -10.0, 1),
    ],
)
def test_how_long_a_look_is_held(count: int, age_s: float, left_s: float | None, wait_s: int) -> None:
    assert looks.wait_s(count, 240, age_s=age_s, left_s=left_s) == wait_s


@given(count=st.integers(1, 100), per_minute=st.integers(60, 10_000), age_s=st.floats(0, 1e6))
def test_long_polls_of_all_stay_within_the_budget(count: int, per_minute: int, age_s: float) -> None:
    held_s = looks.wait_s(count, per_minute, age_s=age_s, left_s=None)
    assert held_s == looks.WAIT_S or count * 60 / held_s <= per_minute


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


@pytest.mark.parametrize(
    ("age_s", "percent", "trust", "every_s"),
    [
        (0.0, 0, 0.0, 1.0),
        (60.0, 0, 0.0, 3.0),
        (60.0, 90, 0.0, 60 / 9 / 4),
        (3600.0, 0, 0.0, 30.0),
        (3600.0, 50, 0.0, 30.0),
        (60.0, 0, 0.8, 3.0),
        (60.0, 0, 1.0, 30.0),
    ],
)
def test_how_often_a_job_is_read(age_s: float, percent: int, trust: float, every_s: float) -> None:
    found_s = looks.read_every_s(5, 600, age_s=age_s, percent=percent, trust=trust)
    assert found_s == pytest.approx(every_s)


@given(
    count=st.integers(1, 1_000_000),
    per_minute=st.integers(1, 10_000),
    age_s=st.floats(0, 1e6),
    percent=st.integers(0, 100),
    trust=st.floats(0, 1),
)
def test_single_reads_of_all_stay_within_the_budget(
    count: int, per_minute: int, age_s: float, percent: int, trust: float
) -> None:
    pause_s = looks.read_every_s(count, per_minute, age_s=age_s, percent=percent, trust=trust)
    assert looks.LOOK_AGAIN_S <= pause_s <= looks.LOOK_LATEST_S
    assert pause_s == looks.LOOK_LATEST_S or count * 60 / pause_s <= per_minute * 1.0001


@pytest.mark.parametrize(
    ("count", "usual_s", "trust", "every_s"),
    [
        (1000, 30.0, 0.0, 30 / (3 * 0.35 * 1000 / 11)),
        (1000, 180.0, 0.0, 180 / (0.35 * 1000 / 11)),
        (10_000, 180.0, 0.0, 180 / (0.35 * 10_000 / 10**0.5 / 101)),
        (1000, 180.0, 1.0, 10 * 180 / (0.35 * 1000 / 11)),
        (1000, 36_000.0, 0.0, looks.SWEEP_MOST_S),
        (10, 1.0, 0.0, looks.SWEEP_LEAST_S),
    ],
)
def test_how_often_the_list_is_swept(count: int, usual_s: float, trust: float, every_s: float) -> None:
    found_s = looks.sweep_every_s(count, count // 100 + 1, 6000, usual_s=usual_s, trust=trust)
    assert found_s == pytest.approx(every_s)


@given(
    count=st.integers(1, 1_000_000),
    pages=st.integers(1, 10_000),
    per_minute=st.integers(1, 10_000),
    usual_s=st.floats(1, 1e5),
    trust=st.floats(0, 1),
)
def test_sweeps_take_half_of_the_budget_at_most(
    count: int, pages: int, per_minute: int, usual_s: float, trust: float
) -> None:
    every_s = looks.sweep_every_s(count, pages, per_minute, usual_s=usual_s, trust=trust)
    assert pages * 60 / every_s <= per_minute / 2 * 1.0001


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
    assert max(waits) == 30
