"""When a POST that may be repeated is repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framelane_celery import pacing


@given(tries=st.integers(0, 10_000), chance=st.floats(0, 1))
def test_a_backoff_is_never_at_once_and_never_above_its_cap(tries: int, chance: float) -> None:
    wait_s = pacing.backoff_s(tries, chance=chance)
    assert pacing.PAUSE_FIRST_S / 2 <= wait_s <= pacing.PAUSE_MAX_S


@pytest.mark.parametrize(("tries", "low_s", "high_s"), [(0, 0.5, 1), (1, 1, 2), (3, 4, 8), (30, 150, 300)])
def test_a_backoff_doubles_with_jitter(tries: int, low_s: float, high_s: float) -> None:
    assert pacing.backoff_s(tries, chance=0.0) == low_s
    assert pacing.backoff_s(tries, chance=1.0) == high_s


@pytest.mark.parametrize(
    ("asked_s", "low_s", "high_s"), [(47.0, 47.0, 48.0), (0.0, 0.0, 1.0), (86400.0, 3600.0, 3601.0)]
)
def test_the_servers_own_figure_is_kept_and_spread(asked_s: float, low_s: float, high_s: float) -> None:
    assert pacing.pause_s(asked_s, 9, chance=0.0) == low_s
    assert pacing.pause_s(asked_s, 9, chance=1.0) == high_s


@given(tries=st.integers(1, 10_000), chance=st.floats(0, 1))
def test_full_jitter_is_anywhere_between_nothing_and_its_cap(tries: int, chance: float) -> None:
    assert 0 <= pacing.full_jitter_s(tries, chance=chance, first_s=10, max_s=600) <= 600 * chance


@pytest.mark.parametrize(("tries", "longest_s"), [(1, 10), (2, 20), (6, 320), (7, 600), (50, 600), (10_000, 600)])
def test_full_jitter_doubles_up_to_its_cap(tries: int, longest_s: float) -> None:
    waits = [pacing.full_jitter_s(tries, chance=chance, first_s=10, max_s=600) for chance in (0.0, 0.5, 1.0)]
    assert waits == [0.0, longest_s / 2, longest_s]


@pytest.mark.parametrize(
    ("priority", "amqp_h", "redis_h"),
    [(None, 0, 9), (0, 0, 9), (3, 3, 6), (9, 9, 0), (10, 10, 0), (255, 255, 0), (999, 255, 0), (-1, 0, 9)],
)
def test_a_level_of_priority_is_an_hour_of_waiting(priority: int | None, amqp_h: float, redis_h: float) -> None:
    """RabbitMQ takes 9 before 0 (up to 255), kombu's other transports 0 before 9."""
    assert pacing.head_start_s(priority, higher_is_first=True) == amqp_h * 3600
    assert pacing.head_start_s(priority, higher_is_first=False) == redis_h * 3600
