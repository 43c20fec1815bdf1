"""How long a hold lasts, and how often the usage is asked for that: tables."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from framelane_celery.models import Usage
from framelane_celery.room import Hold
from framelane_celery.watching.holds import ASK_EVERY_S, ASK_KEY_EVERY_S, LEAST_S, ask_every_s, ends_at


def instant(month: int, day: int, hour: int = 0) -> float:
    return datetime(2026, month, day, hour, tzinfo=timezone.utc).timestamp()


SINCE = instant(11, 20)
NOW = instant(11, 25)
NOVEMBER = Usage.model_validate({"period_start": "2026-11-01T00:00:00Z", "period_end": "2026-12-01T00:00:00Z"})
DECEMBER = Usage.model_validate({"period_start": "2026-12-01T00:00:00Z", "period_end": "2027-01-01T00:00:00Z"})
SHORTER = Usage.model_validate({"period_start": "2026-11-01T00:00:00Z", "period_end": "2026-11-26T00:00:00Z"})
NO_START = Usage.model_validate({"period_end": "2026-12-01T00:00:00Z"})
NO_END = Usage.model_validate({"period_start": "2026-11-01T00:00:00Z", "render_minutes": 60})
NEW_START_ALONE = Usage.model_validate({"period_start": "2026-12-01T00:00:00Z"})
EMPTY = Usage.model_validate({})


JANUARY = datetime(2027, 1, 1, tzinfo=timezone.utc).timestamp()


def hold(code: str, since: float = SINCE, ends_at: float | None = None) -> Hold:
    return Hold("default", code, "for the eye", since, ends_at)


@pytest.mark.parametrize(
    ("code", "usage", "now", "end"),
    [
        # a spent quota: until its period ends
        ("quota_exceeded", NOVEMBER, NOW, instant(12, 1)),
        ("quota_exceeded", NO_START, NOW, instant(12, 1)),
        ("quota_exceeded", SHORTER, NOW, instant(11, 26)),  # an upgrade cut it short
        ("quota_exceeded", DECEMBER, instant(12, 1, 1), SINCE),  # a new period: over
        ("quota_exceeded", DECEMBER, NOW, SINCE),  # whatever our clock says
        ("quota_exceeded", NOVEMBER, instant(12, 1), SINCE + LEAST_S),  # the server's clock is behind ours
        ("quota_exceeded", NOVEMBER, instant(12, 2), SINCE + LEAST_S),
        # periods are calendar months, where the usage does not say
        ("quota_exceeded", NO_END, NOW, instant(12, 1)),
        ("quota_exceeded", EMPTY, NOW, instant(12, 1)),
        ("quota_exceeded", None, NOW, instant(12, 1)),
        ("quota_exceeded", None, instant(12, 31), JANUARY),
        # a refused key: until it is accepted
        ("unauthorized", NOVEMBER, NOW, SINCE),
        ("unauthorized", EMPTY, NOW, SINCE),
        ("unauthorized", None, NOW, None),
        # the usage says nothing about others
        ("operator", NOVEMBER, NOW, None),
        ("operator", DECEMBER, NOW, None),
        ("spend_guard", DECEMBER, NOW, None),
        ("a_code_of_the_users_routes", NOVEMBER, NOW, None),
    ],
)
def test_when_a_hold_ends(code: str, usage: Usage | None, now: float, end: float | None) -> None:
    assert ends_at(hold(code), usage, now) == end


def test_what_was_known_stays_where_the_usage_does_not_say() -> None:
    known = hold("quota_exceeded", ends_at=NOW + 5)
    for usage in (None, EMPTY, NO_END):
        assert ends_at(known, usage, NOW) == NOW + 5
    assert ends_at(known, NOVEMBER, NOW) == instant(12, 1)


def test_a_new_period_without_an_end_tells_nothing() -> None:
    assert ends_at(hold("quota_exceeded"), NEW_START_ALONE, NOW) == instant(12, 1)


def test_a_hold_that_began_after_its_period_waits_for_that_ones_end() -> None:
    """Spent on the first day of a period: the period's start is before the hold."""
    spent = hold("quota_exceeded", since=instant(12, 1, 3))
    assert ends_at(spent, DECEMBER, instant(12, 2)) == JANUARY


@pytest.mark.parametrize(
    ("code", "every_s"),
    [
        ("quota_exceeded", ASK_EVERY_S),
        ("unauthorized", ASK_KEY_EVERY_S),
        ("operator", None),
        ("spend_guard", None),
        ("internal", None),
    ],
)
def test_how_often_the_usage_is_asked(code: str, every_s: float | None) -> None:
    assert ask_every_s(hold(code)) == every_s
