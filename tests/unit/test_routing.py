"""The decisions are one pure table, and its test is the same table."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framelane_celery.errors import CODE_TO_ERROR, SettingsError
from framelane_celery.routing import (
    DEFAULTS,
    DeadLetter,
    Decision,
    Fail,
    Failure,
    Hold,
    Retry,
    Route,
    decide,
    default_routes,
    parse_routes,
)

ANY = {"code": "*", "action": "dead_letter"}
"""The last of the defaults."""


def failure(code: str, kind: str = "render", task: str = "framelane.render", account: str = "default") -> Failure:
    return Failure(code, kind, task, account)


def letter(route: dict[str, Any], *, queue: str | None = None, keep_waiting: bool = False) -> DeadLetter:
    return DeadLetter(queue, keep_waiting, route)


# --- the defaults ------------------------------------------------------------------------------------------------

OF_A_JOB = (*CODE_TO_ERROR, "render_timeout", "a_code_of_tomorrow", "unknown")
"""framelane_api.md §10 and §11."""

OWN = ("timed_out", "cancelled", "outcome_unknown", "not_found", "worker_lost", "spend_guard", "operator")
"""design.md §4."""

BY_DEFAULT: dict[str, Decision] = {
    "internal": Retry(10.0, None),
    "quota_exceeded": Hold(None),
    "spend_guard": Hold(None),
    "operator": Hold(None),
    "cancelled": Fail(),
}
"""All others are dead letters."""


@pytest.mark.parametrize("code", dict.fromkeys((*OF_A_JOB, *OWN)))
def test_the_default_for_every_code(code: str) -> None:
    assert decide([], failure(code), attempts=1, chance=1.0) == BY_DEFAULT.get(code, letter(ANY))


@pytest.mark.parametrize("code", BY_DEFAULT)
def test_a_default_that_is_spent_is_a_dead_letter(code: str) -> None:
    spent = decide([], failure(code), attempts=4, chance=1.0, may_hold=False)
    assert spent == (Fail() if code == "cancelled" else letter(ANY))


def test_the_default_retries_are_three() -> None:
    made = [decide([], failure("internal"), attempts=attempts, chance=1.0) for attempts in (1, 2, 3, 4)]
    assert made == [Retry(10.0, None), Retry(20.0, None), Retry(40.0, None), letter(ANY)]


def test_the_defaults_are_read_once_and_are_rules_like_others() -> None:
    assert default_routes() == default_routes() == parse_routes(DEFAULTS)


# --- the table ---------------------------------------------------------------------------------------------------

RETRY = {"code": "internal", "action": "retry"}
RETRY_2 = {**RETRY, "max_attempts": 2}
RETRY_9 = {**RETRY, "max_attempts": 9}
SOURCES = {"code": "source_*", "action": "dead_letter", "queue": "sources"}
KEPT = {"code": "internal", "action": "dead_letter", "keep_waiting": True}
FAIL = {"code": "internal", "action": "fail"}
HOLD = {"code": "internal", "action": "hold", "hold_max_s": 60}

Row = tuple[list[dict[str, Any]], Failure, dict[str, Any], Decision]
TABLE: dict[str, Row] = {
    # which rule
    "the first that matches": ([FAIL, KEPT], failure("internal"), {}, Fail()),
    "the first that matches, the other way": ([KEPT, FAIL], failure("internal"), {}, letter(KEPT, keep_waiting=True)),
    "a user's rule before the default": (
        [{"code": "quota_exceeded", "action": "fail"}],
        failure("quota_exceeded"), {}, Fail(),
    ),
    "no rule of the user's: the default": ([FAIL], failure("quota_exceeded"), {}, Hold(None)),
    "a pattern": ([SOURCES], failure("source_too_large"), {}, letter(SOURCES, queue="sources")),
    "a pattern matches the whole": ([SOURCES], failure("re_source_1"), {}, letter(ANY)),
    "one letter": ([{"code": "http_5?3", "action": "fail"}], failure("http_503"), {}, Fail()),
    "a set of letters": ([{"code": "http_50[234]", "action": "fail"}], failure("http_503"), {}, Fail()),
    "not in the set": ([{"code": "http_50[!3]", "action": "fail"}], failure("http_503"), {}, letter(ANY)),
    "the case counts": ([{"code": "Internal", "action": "fail"}], failure("internal"), {"attempts": 4}, letter(ANY)),
    "of this kind": ([{"kind": "task", "action": "fail"}], failure("internal", "task"), {}, Fail()),
    "of another kind": ([{"kind": "task", "action": "fail"}], failure("timed_out"), {}, letter(ANY)),
    "of this task": ([{"task": "shop.*", "action": "fail"}], failure("x", task="shop.promo"), {}, Fail()),
    "of another task": ([{"task": "shop.*", "action": "fail"}], failure("x"), {}, letter(ANY)),
    "of this account": ([{"account": "ac*", "action": "fail"}], failure("x", account="acme"), {}, Fail()),
    "of another account": ([{"account": "ac*", "action": "fail"}], failure("x"), {}, letter(ANY)),
    "all four must match": (
        [{"code": "x", "kind": "render", "task": "t", "account": "other", "action": "fail"}],
        failure("x", task="t"), {}, letter(ANY),
    ),
    # how often
    "attempts are left": ([RETRY_9], failure("internal"), {"attempts": 8, "chance": 0.0}, Retry(0.0, None)),
    "all attempts are made": ([RETRY_9], failure("internal"), {"attempts": 9}, letter(ANY)),
    "more than all were made": ([RETRY_9], failure("internal"), {"attempts": 99}, letter(ANY)),
    "a retry counts four by default": ([RETRY], failure("internal"), {"attempts": 4}, letter(ANY)),
    "spent: the default retries no more": ([RETRY_2], failure("internal"), {"attempts": 2}, letter(ANY)),
    "spent: the next of the user's": (
        [RETRY_2, KEPT],
        failure("internal"), {"attempts": 2}, letter(KEPT, keep_waiting=True),
    ),
    "spent: the user's next retry": ([RETRY_2, RETRY_9], failure("internal"), {"attempts": 2}, Retry(20.0, None)),
    "spent: then a letter": (
        [{**RETRY_2, "then": "dead_letter"}, FAIL], failure("internal"), {"attempts": 2},
        letter({**RETRY_2, "then": "dead_letter"}),
    ),
    "spent: then fail": ([{**RETRY_2, "then": "fail"}, KEPT], failure("internal"), {"attempts": 2}, Fail()),
    "spent: then hold": ([{**RETRY_2, "then": "hold"}], failure("internal"), {"attempts": 2}, Hold(None)),
    "spent: then hold, spent too": (
        [{**RETRY_2, "then": "hold"}], failure("internal"), {"attempts": 2, "may_hold": False},
        letter({**RETRY_2, "then": "hold"}),
    ),
    "its queue is of the retries, not of the letter": (
        [{**RETRY_2, "queue": "q", "then": "dead_letter"}], failure("internal"), {"attempts": 2},
        letter({**RETRY_2, "queue": "q", "then": "dead_letter"}),
    ),
    # how long on hold
    "a hold of its own length": ([HOLD], failure("internal"), {}, Hold(60.0)),
    "held for long enough": ([HOLD], failure("internal"), {"may_hold": False, "attempts": 4}, letter(ANY)),
    "held enough: the default retries": ([HOLD], failure("internal"), {"may_hold": False}, Retry(10.0, None)),
    "held enough: then fail": ([{**HOLD, "then": "fail"}], failure("internal"), {"may_hold": False}, Fail()),
    "held enough: then a letter": (
        [{**HOLD, "then": "dead_letter"}], failure("internal"), {"may_hold": False},
        letter({**HOLD, "then": "dead_letter"}),
    ),
    "held enough: the default holds no more": (
        [{"code": "operator", "action": "hold"}], failure("operator"), {"may_hold": False}, letter(ANY),
    ),
    # the spend guard
    "the guard caps a rule": ([RETRY_9], failure("internal"), {"attempts": 3, "max_attempts": 3}, letter(ANY)),
    "the guard caps the default": ([], failure("internal"), {"attempts": 2, "max_attempts": 2}, letter(ANY)),
    "the guard allows one": ([RETRY_9], failure("internal"), {"max_attempts": 1}, letter(ANY)),
    "the guard gives none": ([RETRY_2], failure("internal"), {"attempts": 2, "max_attempts": 9}, letter(ANY)),
    "the guard holds nobody": ([], failure("quota_exceeded"), {"attempts": 9, "max_attempts": 1}, Hold(None)),
    # where to
    "a retry's queue": ([{**RETRY, "queue": "q"}], failure("internal"), {}, Retry(10.0, "q")),
    "a letter says which rule": ([{**SOURCES, "keep_waiting": False}], failure("source_not_found"), {},
                                 letter({**SOURCES, "keep_waiting": False}, queue="sources")),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_the_table(name: str) -> None:
    rules, what, given, decision = TABLE[name]
    assert decide(parse_routes(rules), what, **{"attempts": 1, "chance": 1.0, **given}) == decision


# --- when to try again -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "longest_s"),
    [
        ({}, [10, 20, 40, 80, 160, 320, 600, 600]),
        ({"backoff_s": 1}, [1, 2, 4, 8, 16, 32, 64, 128]),
        ({"backoff_s": 0.5, "backoff_max_s": 3}, [0.5, 1, 2, 3, 3, 3, 3, 3]),
        ({"backoff_s": 900}, [900, 900, 900, 900, 900, 900, 900, 900]),
        ({"backoff_max_s": 86400}, [10, 20, 40, 80, 160, 320, 640, 1280]),
    ],
)
def test_a_backoff_doubles_up_to_its_cap_and_starts_at_nothing(rule: dict[str, Any], longest_s: list[float]) -> None:
    routes = parse_routes([{"action": "retry", "max_attempts": 99, **rule}])
    for attempts, span_s in enumerate(longest_s, start=1):
        waits = [decide(routes, failure("x"), attempts=attempts, chance=chance) for chance in (0.0, 0.25, 1.0)]
        assert waits == [Retry(0.0, None), Retry(span_s / 4, None), Retry(span_s, None)]


CODES = st.sampled_from((*OF_A_JOB, *OWN))
RULES = st.lists(
    st.sampled_from((RETRY, RETRY_2, SOURCES, KEPT, HOLD, {"action": "retry", "then": "hold"}, {"action": "hold"}))
)


@given(
    rules=RULES,
    code=CODES,
    attempts=st.integers(1, 10**6),
    chance=st.floats(0, 1),
    may_hold=st.booleans(),
    cap=st.none() | st.integers(1, 10),
)
def test_every_failure_comes_to_an_end(
    rules: list[dict[str, Any]], code: str, attempts: int, chance: float, may_hold: bool, cap: int | None
) -> None:
    """No retry without a cap, no hold that was refused; whatever the rules."""
    decision = decide(
        parse_routes(rules), failure(code), attempts=attempts, chance=chance, max_attempts=cap, may_hold=may_hold
    )
    if isinstance(decision, Retry):
        assert attempts < min(4, cap or 4)
        assert 0 <= decision.wait_s <= 600
    assert may_hold or not isinstance(decision, Hold)


# --- bad rules ---------------------------------------------------------------------------------------------------

KEYS = (
    "action, code, kind, task, account, max_attempts, backoff_s, backoff_max_s, queue, hold_max_s, keep_waiting, then"
)
LONG = "q" * 201
BAD: dict[str, tuple[Any, str]] = {
    # the list
    "no list": ({"code": "*"}, "routes must be a list of rules, not dict"),
    "a word": ("retry", "routes must be a list of rules, not str"),
    "nothing": (None, "routes must be a list of rules, not NoneType"),
    "no dict": (
        [{"action": "fail", "code": "x"}, "retry"],
        'routes[1]: must be a dict such as {"code": "internal", "action": "retry"}, not \'retry\'',
    ),
    "a list in it": (
        [["retry"]],
        'routes[0]: must be a dict such as {"code": "internal", "action": "retry"}, not [\'retry\']',
    ),
    # keys and types
    "no action": ([{"code": "x"}], "routes[0]: has no 'action': use retry, hold, dead_letter or fail"),
    "an unknown action": (
        [{"action": "drop"}],
        "routes[0].action: Input should be 'retry', 'hold', 'dead_letter' or 'fail'",
    ),
    "a near key": (
        [{"action": "retry", "max_attempt": 3}],
        "routes[0]: unknown key 'max_attempt'; did you mean 'max_attempts'?",
    ),
    "an upper-case key": ([{"action": "retry", "QUEUE": "q"}], "routes[0]: unknown key 'QUEUE'; did you mean 'queue'?"),
    "a far key": ([{"action": "fail", "zzz": 3}], f"routes[0]: unknown key 'zzz'; the keys are {KEYS}"),
    "a number as key": ([{"action": "fail", 7: 3}], f"routes[0]: unknown key '7'; the keys are {KEYS}"),
    "a code that is no text": ([{"action": "fail", "code": 404}], "routes[0].code: Input should be a valid string"),
    "a yes for a number": (
        [{"action": "retry", "max_attempts": True}],
        "routes[0].max_attempts: Input should be a valid integer",
    ),
    "a number in text": (
        [{"action": "retry", "max_attempts": "3"}],
        "routes[0].max_attempts: Input should be a valid integer",
    ),
    "a broken number": (
        [{"action": "retry", "max_attempts": 2.5}],
        "routes[0].max_attempts: Input should be a valid integer",
    ),
    "one attempt": (
        [{"action": "retry", "max_attempts": 1}],
        "routes[0].max_attempts: Input should be greater than or equal to 2",
    ),
    "a yes for a span": (
        [{"action": "retry", "backoff_s": True}],
        "routes[0].backoff_s: Input should be a valid number",
    ),
    "a span in text": ([{"action": "retry", "backoff_s": "10"}], "routes[0].backoff_s: Input should be a valid number"),
    "no span": ([{"action": "retry", "backoff_s": 0}], "routes[0].backoff_s: Input should be greater than 0"),
    "NaN": ([{"action": "retry", "backoff_s": float("nan")}], "routes[0].backoff_s: Input should be a finite number"),
    "for ever": (
        [{"action": "hold", "hold_max_s": float("inf")}],
        "routes[0].hold_max_s: Input should be a finite number",
    ),
    "a number for a yes": (
        [{"action": "dead_letter", "keep_waiting": 1}],
        "routes[0].keep_waiting: Input should be a valid boolean",
    ),
    # patterns and names
    "an empty pattern": (
        [{"action": "fail", "code": ""}],
        "routes[0].code: '' matches nothing; use a name, or a pattern such as 'source_*'",
    ),
    "a pattern with a space": (
        [{"action": "fail", "code": "x "}],
        "routes[0].code: 'x ' matches nothing; use a name, or a pattern such as 'source_*'",
    ),
    "an open set": (
        [{"action": "fail", "task": "shop.[ab"}],
        "routes[0].task: 'shop.[ab' opens a '[' that it does not close",
    ),
    "an empty set": (
        [{"action": "fail", "task": "shop.[]"}],
        "routes[0].task: 'shop.[]' opens a '[' that it does not close",
    ),
    "no kind": (
        [{"action": "fail", "kind": "renders"}],
        "routes[0].kind: 'renders' matches no kind of job; the kinds are render, task and import",
    ),
    "an empty queue": ([{"action": "retry", "queue": ""}], "routes[0].queue: '' is no name for a queue"),
    "a queue with a space": ([{"action": "retry", "queue": " q"}], "routes[0].queue: ' q' is no name for a queue"),
    "a queue in two lines": ([{"action": "retry", "queue": "q\nr"}], "routes[0].queue: 'q\\nr' is no name for a queue"),
    "a long queue": ([{"action": "retry", "queue": LONG}], f"routes[0].queue: {LONG!r:.60} is no name for a queue"),
    # what does not go together
    "a queue of a hold": (
        [{"action": "hold", "queue": "q"}],
        "routes[0]: 'queue' goes with action retry or dead_letter, not with hold",
    ),
    "attempts of a letter": (
        [{"action": "dead_letter", "max_attempts": 3}],
        "routes[0]: 'max_attempts' goes with action retry, not with dead_letter",
    ),
    "a backoff of a failure": (
        [{"action": "fail", "backoff_s": 3}],
        "routes[0]: 'backoff_s' goes with action retry, not with fail",
    ),
    "a cap of a hold": (
        [{"action": "hold", "backoff_max_s": 3}],
        "routes[0]: 'backoff_max_s' goes with action retry, not with hold",
    ),
    "a hold of a retry": (
        [{"action": "retry", "hold_max_s": 3}],
        "routes[0]: 'hold_max_s' goes with action hold, not with retry",
    ),
    "a retry that waits": (
        [{"action": "retry", "keep_waiting": True}],
        "routes[0]: 'keep_waiting' goes with action dead_letter, not with retry",
    ),
    "an end and then": (
        [{"action": "fail", "then": "hold"}],
        "routes[0]: 'then' goes with action retry or hold, not with fail",
    ),
    "a cap below the first wait": (
        [{"action": "retry", "backoff_s": 60, "backoff_max_s": 7}],
        "routes[0]: 'backoff_max_s' must not be less than 'backoff_s'",
    ),
    "the same again": ([{"action": "hold", "then": "hold"}], "routes[0]: 'then' must be another action than hold"),
    "then a retry": (
        [{"action": "hold", "then": "retry"}],
        "routes[0].then: Input should be 'hold', 'dead_letter' or 'fail'",
    ),
    # what is never reached
    "after a letter for all": (
        [{"code": "x", "action": "fail"}, {"action": "dead_letter"}, FAIL],
        "routes[2] is never reached: routes[1] takes everything before it",
    ),
    "after a failure for all": (
        [{"action": "fail"}, {"action": "fail"}],
        "routes[1] is never reached: routes[0] takes everything before it",
    ),
    # two at once
    "two mistakes": (
        [{"action": "retry", "max_attempts": 1, "backoff_s": 0}],
        "routes[0].max_attempts: Input should be greater than or equal to 2; "
        "routes[0].backoff_s: Input should be greater than 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_rule_is_refused_in_one_line(name: str) -> None:
    rules, message = BAD[name]
    with pytest.raises(SettingsError) as caught:
        parse_routes(rules)
    assert str(caught.value) == message
    assert "\n" not in message


def test_the_error_says_whose_rules_they_are() -> None:
    with pytest.raises(SettingsError, match=r"^shop\.promo: routes\[0\]\.action: "):
        parse_routes([{"action": 7}], "shop.promo: routes")


@pytest.mark.parametrize(
    "rules",
    [
        [],
        (),
        [{"action": "retry"}, {"action": "dead_letter"}],  # a retry for all leaves something for the next
        [{"action": "hold"}, {"action": "fail"}],
        [{"action": "fail", "kind": "render"}, {"action": "fail"}],
        [{"action": "fail", "code": "[[]x]"}],
        [{"action": "retry", "max_attempts": None, "queue": None}],  # None: not given
        [{"action": "retry", "backoff_s": 10, "queue": "q" * 200}],
    ],
)
def test_rules_that_are_taken(rules: list[dict[str, Any]]) -> None:
    routes = parse_routes(rules)
    assert len(routes) == len(rules)
    assert parse_routes(routes) == routes  # what was read is not read again


def test_a_rule_is_shown_as_its_author_wrote_it() -> None:
    for rule in (RETRY_2, SOURCES, {**SOURCES, "keep_waiting": False}, HOLD):
        assert parse_routes([rule])[0].to_json() == rule
    assert Route(action="fail").to_json() == {"action": "fail"}
