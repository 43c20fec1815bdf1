"""A hold stops an account's submissions, and nothing else; nothing of what is held is lost, or paid for in vain.

Each scene has a server, a stack and a worker of its own, since a hold is about a whole account.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import chain, chord, states
from celery.exceptions import TaskRevokedError

from framelane_celery import JobFailed, dead_letters, operations
from framelane_celery.dead_letters import NoSuchLetter
from framelane_celery.room.rules import DAY_S
from framelane_celery.testing import FramelaneServer, Switches
from tests.worker.pipelines import POLL_S, Scene, Stage, opened_stack, playing
from tests.worker.project import composition
from tests.worker.stacks import Stack, jobs_of, make_server, wait_for

SOONER = ("-I", "tests.worker.sooner")  # not imported here: it changes the package
pytestmark = [pytest.mark.worker, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with playing(request, tmp_path_factory) as stage:
        yield stage


def render(stack: Stack, text: str = "hello", **metadata: str) -> Any:
    return stack.sig("framelane.render", composition(text, **metadata))


def statuses(server: FramelaneServer) -> list[int | None]:
    return [post.status for post in server.ledger.posts()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def all_until(stack: Stack, results: list[Any], *wanted: str) -> list[Any]:
    """The records of these, once all of them wait for one of that."""

    def there() -> list[Any]:
        records = [stack.record(result.id) for result in results]
        return records if all(record is not None and record.until in wanted for record in records) else []

    return wait_for(there, what=f"all until {wanted}", every_s=POLL_S)


# --- longer than results live ------------------------------------------------------------------------------------

EXPIRES_S = 6  # a machine that is slow has to be in time three times in it


class Long(NamedTuple):
    held_s: float
    states: list[str]
    results: list[list[str]]
    bodies: list[int]


def _longer_than_results(opened: ExitStack, folder: Path, name: str) -> Long:
    """Two chords, of which a member is on hold, or kept waiting, for three times as long as results live."""
    server = opened.enter_context(make_server())
    routes = [
        {"code": "holds", "action": "hold"},
        {"code": "waits", "action": "dead_letter", "keep_waiting": True},
    ]
    stack = opened_stack(
        opened, name, folder, server, celery={"result_expires": EXPIRES_S}, framelane={"routes": routes}
    )
    opened.enter_context(stack.worker("-c", "1"))
    bodies, waiting = [], []
    for code in ("waits", "holds"):
        members = [render(stack, "done"), render(stack, "suspended", fails="1", code=code)]
        bodies.append(chord(members, stack.sig("ids")).apply_async())
        done, suspended = bodies[-1].parent.children
        waiting.append(suspended)
        all_until(stack, [done], "done")
        all_until(stack, [suspended], "release")
    since = time.monotonic()
    seen: set[str] = set()
    while time.monotonic() < since + 3 * EXPIRES_S + 0.5:
        seen |= {one.state for one in waiting}
        time.sleep(POLL_S)
    operations.release(stack.app)
    dead_letters.replay(stack.app, waiting[0].id)
    results = [body.get(timeout=60) for body in bodies]
    counts = [sum(note["id"] == body.id for note in stack.journal("body")) for body in bodies]
    return Long(time.monotonic() - since, sorted(seen), results, counts)


@pytest.mark.celery55
@pytest.mark.parametrize("scene", [Scene("long", _longer_than_results, ("rabbitmq+redis",))], ids=["rabbitmq+redis"])
def test_results_and_chords_outlive_a_hold(stage: Stage, scene: Scene) -> None:
    """celery_facts row 7: else the member's state and the chord's counters are gone, and the body never runs."""
    long: Long = stage.outcome(scene)
    assert long.held_s > 3 * EXPIRES_S
    assert long.states == ["PROGRESS"]
    assert [len(result) for result in long.results] == [2, 2]
    assert long.bodies == [1, 1]


# --- a quota spent in the middle ---------------------------------------------------------------------------------

QUOTA, PERIOD_S, CHILDREN = 8, 15.0, 2  # a machine that is slow has to post nine times in a period


class Quota(NamedTuple):
    posts: list[tuple[float, int | None]]
    """When, and the answer. Instants are the server's."""
    ends_at: float
    """Of the first period."""
    jobs: list[int]
    results: list[Any]
    bodies: list[int]


def _quota(opened: ExitStack, folder: Path, name: str, status: int, stores_refusals: bool) -> Quota:
    """14 tasks of a quota of 8: alone, a chain and a chord. The period begins when the worker is ready."""
    port = free_port()
    stack = opened_stack(opened, name, folder, f"http://127.0.0.1:{port}", framelane={})
    opened.enter_context(stack.worker("-c", str(CHILDREN)))
    switches = Switches(quota_status=status, stores_refusals=stores_refusals, usage_spelling="console")  # type: ignore[arg-type]
    server = opened.enter_context(
        make_server(port=port, quota_renders=QUOTA, quota_period_s=PERIOD_S, switches=switches)
    )
    ends_at = time.time() + PERIOD_S
    alone = [render(stack, str(n), seconds="1").apply_async() for n in range(QUOTA - 1)]
    body = chord([render(stack, "m1", seconds="1"), render(stack, "m2")], stack.sig("ids")).apply_async()
    tail = chain(render(stack, "c"), stack.sig("note", tag="tail")).apply_async()
    alone += [render(stack, str(n)).apply_async() for n in range(4)]
    ours = [*alone, *body.parent.children, tail.parent]
    all_until(stack, ours, "done")
    body.get(timeout=60)
    tail.get(timeout=60)
    wait_for(lambda: stack.room.holds()[0] == [], what="nothing is left of the hold")
    return Quota(
        posts=[(post.at, post.status) for post in server.ledger.posts()],
        ends_at=ends_at,
        jobs=[len(jobs_of(server, one.id)) for one in ours],
        results=[one.result["status"] for one in ours],
        bodies=[len(stack.journal("body")), len(stack.journal("plain"))],
    )


QUOTAS = [
    pytest.param(Scene("quota 402", _quota, ("redis", 402, True)), id="402 stored, redis", marks=pytest.mark.celery55),
    pytest.param(Scene("quota 429", _quota, ("rabbitmq", 429, False)), id="429, rabbitmq"),
]


@pytest.mark.parametrize("scene", QUOTAS)
def test_a_quota_spent_in_the_middle_loses_nothing_and_is_asked_once(stage: Stage, scene: Scene) -> None:
    """Refusals that the server keeps under their key do not come back: what is held gets another key."""
    quota: Quota = stage.outcome(scene)
    assert quota.results == ["completed"] * 14
    assert quota.jobs == [1] * 14
    assert quota.bodies == [1, 1]
    refused = [at for at, status in quota.posts if status != 202]
    periods = {int((at - quota.ends_at) // PERIOD_S) for at, _ in quota.posts}
    assert 1 <= len(refused) <= CHILDREN * len(periods)
    assert len([at for at, status in quota.posts if status == 202]) == 14


# --- an operator's -----------------------------------------------------------------------------------------------

OPERATORS_RULES = [
    {"code": "operator", "task": "*.reporting", "action": "hold", "hold_max_s": 1.5, "then": "fail"},
    {"code": "operator", "task": "*.with_result", "action": "hold", "hold_max_s": 1.5},
    {"code": "holds", "action": "hold", "hold_max_s": 1.5, "then": "fail"},
    {"code": "waits", "action": "dead_letter", "keep_waiting": True},
]


class Operator(NamedTuple):
    stack: Stack
    accepted: str
    held: list[Any]
    states: list[str]
    posts_while_held: int
    order: list[str]
    given_up: list[Any]
    """Errors, of three tasks: by ``then``, by the default rules, and of a job that had failed."""
    given_up_until: list[str]
    revoked: list[Any]
    replayed: Any
    after: list[str]


def _operator(opened: ExitStack, folder: Path, name: str) -> Operator:
    server = opened.enter_context(make_server())
    stack = opened_stack(opened, name, folder, server, framelane={"routes": OPERATORS_RULES})
    opened.enter_context(stack.worker("-c", "1"))
    waits = render(stack, fails="1", code="waits").apply_async()
    waits_too = render(stack, fails="1", code="waits").apply_async()
    all_until(stack, [waits, waits_too], "release")
    accepted = render(stack, "before", seconds="1").apply_async()
    job_that_fails = render(stack, "fails", seconds="1", fails="9", code="holds").apply_async()
    wait_for(lambda: all(jobs_of(server, one.id) for one in (accepted, job_that_fails)))
    operations.hold(stack.app, reason="maintenance")
    posts = len(statuses(server))

    held = [render(stack, str(n)).apply_async() for n in range(6)]
    given_up = [stack.sig("reporting").apply_async(), stack.sig("with_result").apply_async(), job_that_fails]
    revoked = [chain(render(stack), stack.sig("note", tag="never")).apply_async().parent for _ in range(2)]
    records = all_until(stack, held, "release")
    all_until(stack, revoked, "release")
    assert accepted.get(timeout=60)["status"] == "completed"
    operations.cancel(stack.app, revoked[0].id)
    stack.app.control.revoke(revoked[1].id)
    operations.cancel(stack.app, waits.id)
    stack.app.control.revoke(waits_too.id)
    revoked += [waits, waits_too]
    all_until(stack, revoked, "done")
    all_until(stack, given_up, "done", "dead")
    wait_for(lambda: all(one.ready() for one in given_up))
    posts_while_held = len(statuses(server)) - posts
    states_while_held = [one.state for one in held]
    with pytest.raises(NoSuchLetter) as replayed:
        dead_letters.replay(stack.app, waits.id)
    assert operations.release(stack.app)
    all_until(stack, held, "done")
    order = [post.json()["metadata"]["celery_task_id"] for post in server.ledger.posts()[posts:]]
    wait_for(lambda: stack.room.holds()[0] == [])
    return Operator(
        stack,
        stack.record(accepted.id).until,
        records,
        states_while_held,
        posts_while_held,
        order,
        [one.result for one in given_up],
        [stack.record(one.id).until for one in given_up],
        [(one.state, type(one.result), stack.record(one.id).until) for one in revoked],
        replayed.value,
        [note["tag"] for note in stack.journal("plain")],
    )


OPERATORS = [
    pytest.param(Scene("operator, sql", _operator, ("redis+sql",)), id="redis+sql"),
    pytest.param(Scene("operator", _operator, ("rabbitmq+redis",)), id="rabbitmq+redis", marks=pytest.mark.celery55),
]
with_operator = pytest.mark.parametrize("scene", OPERATORS)


@with_operator
def test_an_operators_hold_stops_submissions_until_it_is_released(stage: Stage, scene: Scene) -> None:
    operator: Operator = stage.outcome(scene)
    assert operator.posts_while_held == 0
    assert {record.failure["code"] for record in operator.held} == {"operator"}
    assert {record.failure["message"] for record in operator.held} == {"maintenance"}
    assert operator.accepted == "done"


@with_operator
def test_what_is_released_goes_in_its_order(stage: Stage, scene: Scene) -> None:
    operator: Operator = stage.outcome(scene)
    assert operator.order == [record.id for record in operator.held]


@with_operator
def test_who_is_held_for_too_long_leaves_by_the_next_rule(stage: Stage, scene: Scene) -> None:
    """While the hold goes on: a rule's ``then``, or the defaults, by which it is a dead letter."""
    operator: Operator = stage.outcome(scene)
    by_then, by_default, failed_job = operator.given_up
    assert operator.given_up_until == ["done", "dead", "done"]
    assert [type(error) for error in operator.given_up] == [JobFailed] * 3
    assert [error.code for error in operator.given_up] == ["operator", "operator", "holds"]
    assert "maintenance" in str(by_then)
    assert by_default.job_id is None
    assert [each["code"] for each in failed_job.attempts] == ["holds", "holds"]


@with_operator
def test_revoked_while_held_and_while_kept_waiting(stage: Stage, scene: Scene) -> None:
    """By an operator's ``cancel`` and by Celery's ``revoke``; neither is a letter any more."""
    operator: Operator = stage.outcome(scene)
    assert operator.revoked == [(states.REVOKED, TaskRevokedError, "done")] * 4
    assert operator.after == []
    assert "no dead letter" in str(operator.replayed)


# --- a wrong key -------------------------------------------------------------------------------------------------


class Key(NamedTuple):
    before: list[int | None]
    failures: list[dict[str, Any]]
    after: list[int | None]
    results: list[str]


def _wrong_key(opened: ExitStack, folder: Path) -> Key:
    """The API takes another key, for a while."""
    port = free_port()
    stack = opened_stack(
        opened, "redis", folder, f"http://127.0.0.1:{port}",
        framelane={"routes": [{"code": "unauthorized", "action": "hold"}]},
    )  # fmt: skip
    opened.enter_context(stack.worker("-c", "1", *SOONER))
    with make_server(port=port, api_keys=("fl_another",)) as server:
        calls = [render(stack, str(n)).apply_async() for n in range(6)]
        records = all_until(stack, calls, "release")
        before = statuses(server)
    with make_server(port=port) as server:
        all_until(stack, calls, "done")
        results = [call.result["status"] for call in calls]
        return Key(before, [record.failure for record in records], statuses(server), results)


@pytest.mark.parametrize("scene", [Scene("a wrong key", _wrong_key)], ids=["redis"])
def test_a_wrong_key_holds_the_account_until_it_is_accepted(stage: Stage, scene: Scene) -> None:
    key: Key = stage.outcome(scene)
    assert key.before == [401]  # one worker process
    assert {failure["code"] for failure in key.failures} == {"unauthorized"}
    assert key.after == [202] * 6
    assert key.results == ["completed"] * 6


# --- the spend guard ---------------------------------------------------------------------------------------------


class Guarded(NamedTuple):
    statuses: list[int | None]
    held: Any
    hold: Any
    held_again: str
    revoked: tuple[str, list[str]]


def _submissions(opened: ExitStack, folder: Path) -> Guarded:
    server = opened.enter_context(make_server())
    stack = opened_stack(opened, "redis+sql", folder, server, framelane={"spend_guard": {"submissions_per_day": 3}})
    opened.enter_context(stack.worker("-c", "1"))
    calls = [render(stack, str(n), outcome="never").apply_async() for n in range(4)]
    [held] = all_until(stack, calls[3:], "release")
    all_until(stack, calls[:3], "job")
    for job_id in list(server.jobs):
        server.finish(job_id)
    all_until(stack, calls[:3], "done")
    [hold] = stack.room.holds()[0]
    assert hold.is_on
    operations.release(stack.app)  # the day is not over: it is stopped again, and costs nothing
    wait_for(lambda: stack.record(calls[3].id).step > held.step)
    [again] = all_until(stack, calls[3:], "release")
    operations.cancel(stack.app, calls[3].id)
    all_until(stack, calls[3:], "done")
    return Guarded(statuses(server), held, hold, again.failure["code"], (calls[3].state, jobs_of(server, calls[3].id)))


@pytest.mark.parametrize("scene", [Scene("submissions", _submissions)], ids=["redis+sql"])
def test_the_spend_guard_holds_what_is_too_much_and_says_why(stage: Stage, scene: Scene) -> None:
    guarded: Guarded = stage.outcome(scene)
    assert guarded.statuses == [202] * 3  # and these ended while the fourth was held
    assert guarded.held.failure["code"] == guarded.hold.code == guarded.held_again == "spend_guard"
    for reason in (guarded.held.failure["message"], guarded.hold.reason):
        assert "3 of 3 submissions" in reason
    assert guarded.hold.ends_at % DAY_S == 0  # the next day, UTC
    assert 0 < guarded.hold.ends_at - time.time() <= DAY_S
    assert guarded.revoked == (states.REVOKED, [])


class Minutes(NamedTuple):
    spent: list[int]
    error: Any
    statuses: list[int | None]


def _minutes(opened: ExitStack, folder: Path) -> Minutes:
    """Each render is 2 s of output. One fails, and is tried twice, though its rule would try it five times."""
    server = opened.enter_context(make_server())
    guard = {"minutes_per_day": 4.5 * 2 / 60, "max_attempts": 2}
    routes = [
        {"code": "spend_guard", "action": "fail"},
        {"code": "again", "action": "retry", "max_attempts": 5, "backoff_s": 0.1},
    ]
    stack = opened_stack(opened, "redis", folder, server, framelane={"spend_guard": guard, "routes": routes})
    opened.enter_context(stack.worker("-c", "1"))
    failing = render(stack, fails="9", code="again").apply_async()
    all_until(stack, [failing], "dead")
    calls = [render(stack, str(n)).apply_async() for n in range(3)]
    all_until(stack, calls, "done")
    wait_for(calls[2].ready)
    return Minutes([len(jobs_of(server, one.id)) for one in (failing, *calls)], calls[2].result, statuses(server))


@pytest.mark.parametrize("scene", [Scene("minutes", _minutes)], ids=["redis"])
def test_the_spend_guard_counts_minutes_and_attempts_and_may_fail(stage: Stage, scene: Scene) -> None:
    minutes: Minutes = stage.outcome(scene)
    assert minutes.spent == [2, 1, 1, 0]
    assert isinstance(minutes.error, JobFailed)
    assert minutes.error.code == "spend_guard"
    assert "minutes are spent" in str(minutes.error)
    assert minutes.statuses == [202] * 4
