"""A failure ends where its code says: each action, of jobs that fail and of submissions that are refused.

For every transport and room all of it is started at once, in every shape, and then looked at: see `_matrix`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import states
from celery.exceptions import ChordError

from framelane_celery import FramelaneClient, JobFailed, dead_letters, operations
from framelane_celery.errors import Conflict, Forbidden, InvalidRequest, InvalidSource, QuotaExceeded, Unauthorized
from framelane_celery.models import RenderRequest
from framelane_celery.records import Record
from framelane_celery.testing import Fault, FramelaneServer
from tests.worker.pipelines import (
    FAILED,
    NOTHING_YET,
    WENT_ON,
    Pipes,
    Scene,
    Seen,
    Stage,
    opened_stack,
    playing,
    through,
)
from tests.worker.project import composition
from tests.worker.stacks import AMQP, REDIS, Stack, jobs_of, make_server, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.timeout(300)]

ACTIONS: dict[str, dict[str, Any]] = {
    "again": {"action": "retry", "max_attempts": 3, "backoff_s": 0.2},
    "spent": {"action": "retry", "max_attempts": 2, "backoff_s": 0.2},
    "dies": {"action": "dead_letter"},
    "waits": {"action": "dead_letter", "keep_waiting": True},
    "fails": {"action": "fail"},
    "holds": {"action": "hold"},
}
KINDS = ("job", "refusal")
SUSPENDED = ("waits", "holds")
SUCCEED_AT_LAST = ("again", *SUSPENDED)


def _rules(stack: Stack) -> list[dict[str, Any]]:
    jobs = [{"code": name, **rule} for name, rule in ACTIONS.items()]
    refusals = [{"code": "invalid_source", "task": f"*.refused_{name}", **rule} for name, rule in ACTIONS.items()]
    special = f"{stack.queue}-special"
    stack.more_queues.append(special)
    retry = {"action": "retry", "max_attempts": 2, "backoff_s": 0.1}
    return [
        *jobs,
        *refusals,
        {"code": "elsewhere", **retry, "queue": special},
        {"code": "shared", "kind": "render", **retry, "then": "fail"},
        {"code": "shared", "kind": "task", "action": "fail"},
        {"code": "mine", "action": "dead_letter"},
        {"code": "then_letter", **retry, "then": "dead_letter"},
        {"code": "conflict", **retry},
        {"code": "unauthorized", "kind": "task", "action": "fail"},
        {"code": "forbidden", "kind": "t*", "action": "fail"},
        {"code": "quota_exceeded", "task": "*.remove_background", "action": "fail"},
        {"code": "invalid_request", "kind": "task", "action": "fail"},
    ]


class Matrix(NamedTuple):
    """A stack on which everything has been played."""

    stack: Stack
    server: FramelaneServer
    pipes: dict[tuple[str, str], Pipes]
    suspended: dict[tuple[str, str], Seen]

    def check(self, kind: str, name: str) -> None:
        """What comes after each of the four shapes is what should."""
        pipes = self.pipes[kind, name]
        seen = pipes.wait_until("done", "dead").wait_for_ends().seen()
        if name in SUCCEED_AT_LAST:
            assert (seen.states, seen.after) == ([states.SUCCESS] * 4, WENT_ON)
            assert (pipes.chain.state, pipes.chord.state) == (states.SUCCESS, states.SUCCESS)
        else:
            assert (seen.states, seen.after) == ([states.FAILURE] * 4, FAILED)
            assert isinstance(pipes.chord.result, ChordError)
            error = pipes.alone.result
            assert isinstance(error, JobFailed if kind == "job" else InvalidSource)
            assert error.code == (name if kind == "job" else "invalid_source")
        is_letter = name in ("spent", "dies")
        assert seen.until == ["dead" if is_letter else "done"] * 4
        made = {"job": {"again": 2, "spent": 2, "waits": 2, "holds": 2}, "refusal": {}}[kind].get(
            name, int(kind == "job" or name in SUCCEED_AT_LAST)
        )
        assert [len(jobs_of(self.server, task_id)) for task_id in pipes.ids] == [made] * 4


def _make(stack: Stack, kind: str, name: str) -> Any:
    times = 1 if name in SUCCEED_AT_LAST else 99
    if kind == "refusal":
        return stack.sig(f"refused_{name}", times, name)
    seconds = "1.5" if name == "holds" else "0.1"
    return stack.sig("framelane.render", composition(name, fails=str(times), code=name, seconds=seconds))


def _matrix(opened: ExitStack, folder: Path, name: str) -> Matrix:
    """All shapes of all actions but holds at once; then the holds, which stop the whole account."""
    server = opened.enter_context(make_server())
    stack = opened_stack(opened, name, folder, server, framelane={})
    stack.framelane["routes"] = _rules(stack)
    opened.enter_context(stack.worker("-c", "2"))
    matrix = Matrix(stack, server, {}, {})

    def start(kind: str, action: str) -> None:
        matrix.pipes[kind, action] = Pipes(stack, f"{kind} {action}", lambda: _make(stack, kind, action))

    for kind in KINDS:
        for action in ACTIONS:
            if action != "holds":
                start(kind, action)
    for (_, action), pipes in matrix.pipes.items():
        pipes.wait_until("release" if action == "waits" else "dead" if action in ("spent", "dies") else "done")
        if action != "waits":
            pipes.wait_for_ends()
    for kind in KINDS:
        matrix.suspended[kind, "waits"] = matrix.pipes[kind, "waits"].seen()
        for task_id in matrix.pipes[kind, "waits"].ids:
            assert dead_letters.replay(stack.app, task_id).is_new
    for kind in KINDS:
        matrix.pipes[kind, "waits"].wait_until("done").wait_for_ends()
    for kind in KINDS:
        start(kind, "holds")
        if kind == "job":  # all are accepted before the first one fails
            wait_for(lambda: all(jobs_of(server, task_id) for task_id in matrix.pipes["job", "holds"].ids))
        matrix.pipes[kind, "holds"].wait_until("release")
        matrix.suspended[kind, "holds"] = matrix.pipes[kind, "holds"].seen()
        while not all(record.until == "done" for record in matrix.pipes[kind, "holds"].records()):
            operations.release(stack.app)  # what has not been refused yet is held once more
            matrix.pipes[kind, "holds"].wait_until("done", "release")
    return matrix


PLACES = ("redis", "redis+sql", "rabbitmq", "rabbitmq+redis")
MATRICES = [
    pytest.param(Scene(f"matrix {name}", _matrix, (name,)), id=name, marks=[pytest.mark.celery55] * (name != "redis"))
    for name in PLACES
]
everywhere = pytest.mark.parametrize("scene", MATRICES)
on_redis = pytest.mark.parametrize("scene", MATRICES[:1])
on_both_transports = pytest.mark.parametrize("scene", [MATRICES[0], MATRICES[2]])


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with playing(request, tmp_path_factory) as stage:
        yield stage


@pytest.fixture
def matrix(stage: Stage, scene: Scene) -> Matrix:
    return stage.outcome(scene)  # type: ignore[no-any-return]


# --- every action, everywhere ------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_in_every_shape(matrix: Matrix, kind: str, action: str) -> None:
    """Alone, in a chain, in a chord and linked: the tail, the body and the links run once if they should, else not;
    errbacks run once if it fails."""
    matrix.check(kind, action)


@everywhere
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", SUSPENDED)
def test_what_is_suspended_has_told_nobody_yet(matrix: Matrix, kind: str, action: str) -> None:
    seen = matrix.suspended[kind, action]
    assert seen.until == ["release"] * 4
    assert set(seen.states) <= {"PROGRESS", "PENDING"}  # PENDING: held by the other run before its own first one
    assert seen.after == NOTHING_YET


# --- what an attempt is ------------------------------------------------------------------------------------------


def posts_of(server: FramelaneServer, task_id: str) -> list[Any]:
    posts = server.ledger.posts()
    return [post for post in posts if (post.json().get("metadata") or {}).get("celery_task_id") == task_id]


def notes_of(stack: Stack, event: str, task_id: str) -> list[dict[str, Any]]:
    return [note for note in stack.journal(event) if note["id"] == task_id]


@everywhere
def test_the_error_tells_every_attempt_with_its_job_and_times(matrix: Matrix) -> None:
    result = matrix.pipes["job", "spent"].alone
    jobs = jobs_of(matrix.server, result.id)
    error = result.result
    assert error.job_id == jobs[1]
    assert [(each["attempt"], each["job_id"], each["code"]) for each in error.attempts] == [
        (1, jobs[0], "spent"),
        (2, jobs[1], "spent"),
    ]
    times = [each[name] for each in error.attempts for name in ("accepted_at", "at")]
    assert times == sorted(times)
    assert list(matrix.stack.record(result.id).history) == error.attempts


@everywhere
def test_the_error_of_a_refusal_tells_every_attempt(matrix: Matrix) -> None:
    result = matrix.pipes["refusal", "spent"].alone
    error = result.result
    assert error.status == 422
    assert [(each["attempt"], each["job_id"], each["code"]) for each in error.attempts] == [
        (1, None, "invalid_source"),
        (2, None, "invalid_source"),
    ]
    assert list(matrix.stack.record(result.id).history) == error.attempts


@everywhere
def test_what_succeeds_at_last_remembers_what_came_before(matrix: Matrix) -> None:
    result = matrix.pipes["job", "again"].alone
    jobs = jobs_of(matrix.server, result.id)
    record = matrix.stack.record(result.id)
    assert [(each["attempt"], each["job_id"], each.get("code")) for each in record.history] == [
        (1, jobs[0], "again"),
        (2, jobs[1], None),
    ]
    assert result.result["id"] == jobs[1]


@everywhere
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", ["again", "spent", *SUSPENDED])
def test_every_attempt_has_a_key_and_at_most_a_job_of_its_own(matrix: Matrix, kind: str, action: str) -> None:
    for task_id in matrix.pipes[kind, action].ids:
        posts = posts_of(matrix.server, task_id)
        if (kind, action) == ("refusal", "holds"):  # most joined the hold before they were refused themselves
            assert 1 <= len(posts) <= 2
        else:
            assert len(posts) == 2
        assert len({post.idempotency_key for post in posts}) == len(posts)
        jobs = [post.job_id for post in posts if post.job_id]
        assert len(set(jobs)) == len(jobs)


@everywhere
def test_a_letter_says_which_rule_sent_it(matrix: Matrix) -> None:
    sent = {name: matrix.stack.record(matrix.pipes["job", name].alone.id).letter for name in ("dies", "spent")}
    assert sent["dies"]["route"] == {"code": "dies", "action": "dead_letter"}
    assert sent["spent"]["route"] == {"code": "*", "action": "dead_letter"}  # the default one, by which a budget ends
    assert {letter["queue"] for letter in sent.values()} == {f"{matrix.stack.namespace}.dead"}


# --- which rule decides ------------------------------------------------------------------------------------------


def ended(stack: Stack, call: Any) -> Any:
    """The record of a call that has ended."""
    result = call.apply_async()
    record = stack.until(result.id, "done", "dead")
    wait_for(result.ready)
    return record


@on_redis
def test_kind_chooses_the_rule(matrix: Matrix) -> None:
    stack, metadata = matrix.stack, {"fails": "9", "code": "shared"}
    render = ended(stack, stack.sig("framelane.render", composition(**metadata)))
    media = ended(stack, stack.sig("framelane.transcribe", "https://files.example.com/a.mp4", metadata=metadata))
    assert [len(jobs_of(matrix.server, record.id)) for record in (render, media)] == [2, 1]


@on_redis
@pytest.mark.celery55
def test_a_tasks_own_routes_come_first(matrix: Matrix) -> None:
    """And what they say nothing of goes by the settings'."""
    stack = matrix.stack
    own = ended(stack, stack.sig("with_routes", fails="9", code="mine"))
    other = ended(stack, stack.sig("framelane.render", composition(fails="9", code="mine")))
    settings = ended(stack, stack.sig("with_routes", fails="9", code="dies"))
    assert [(record.until, len(jobs_of(matrix.server, record.id))) for record in (own, other, settings)] == [
        ("done", 2),
        ("dead", 1),
        ("dead", 1),
    ]


@on_redis
@pytest.mark.parametrize(("code", "until"), [("shared", "done"), ("then_letter", "dead")])
def test_then_names_what_comes_after_a_spent_budget(matrix: Matrix, code: str, until: str) -> None:
    record = ended(matrix.stack, matrix.stack.sig("framelane.render", composition(fails="9", code=code)))
    assert (record.until, len(jobs_of(matrix.server, record.id))) == (until, 2)
    route = (record.letter or {}).get("route")
    assert route is None if until == "done" else (route["code"], route["then"]) == ("then_letter", "dead_letter")


@on_redis
@pytest.mark.parametrize(
    ("task", "path", "status", "error"),
    [
        ("transcribe", "transcribe", 401, Unauthorized),
        ("gaze_redirect", "gaze-redirect", 403, Forbidden),
        ("remove_background", "remove-background", 402, QuotaExceeded),
        ("super_resolution", "super-resolution", 400, InvalidRequest),
    ],
)
def test_refusals_go_by_the_table_too(matrix: Matrix, task: str, path: str, status: int, error: type) -> None:
    """Though the answer is a proxy's page, without a code: its status tells one."""
    stack, server = matrix.stack, matrix.server
    fault = server.faults.add(Fault("status", method="POST", path=f"/v1/tasks/{path}", status=status, html=True))
    result = stack.sig(f"framelane.{task}", "https://files.example.com/a.mp4").apply_async()
    with pytest.raises(error) as caught:
        result.get(timeout=60)
    assert caught.value.status == status
    assert stack.until(result.id, "done").letter is None
    assert server.faults.struck(fault) == 1
    assert [hold for hold in stack.room.holds()[0] if hold.is_on] == []


@on_redis
def test_a_key_that_is_taken_gives_way_to_a_new_attempts(matrix: Matrix) -> None:
    """409: somebody has used this very key with another body."""
    stack, server = matrix.stack, matrix.server
    task_id = f"taken-{stack.namespace}"
    key = Record(id=task_id, task="framelane.render", call="", digest="").idempotency_key(stack.namespace)
    with FramelaneClient("fl_test_key", server.base_url) as client:
        client.submit("/v1/renders", RenderRequest.model_validate(composition("other")).body(metadata={}), key)
    result = stack.sig("framelane.render", composition()).apply_async(task_id=task_id)
    assert result.get(timeout=60)["id"] == jobs_of(server, task_id)[0]
    assert [post.status for post in posts_of(server, task_id)] == [409, 202]
    assert [each.get("code") for each in stack.record(task_id).history] == ["conflict", None]


@on_redis
def test_a_conflict_that_stays_ends_typed(matrix: Matrix) -> None:
    stack, server = matrix.stack, matrix.server
    server.faults.add(Fault("status", method="POST", path="/v1/renders", status=409, html=True, times=2))
    record = ended(stack, stack.sig("framelane.render", composition()))
    error = stack.app.AsyncResult(record.id).result
    assert isinstance(error, Conflict)
    assert (record.until, [each["code"] for each in error.attempts]) == ("dead", ["conflict"] * 2)


# --- the retry queue ---------------------------------------------------------------------------------------------


@on_both_transports
@pytest.mark.celery55
def test_an_attempt_comes_by_the_retry_queue_and_the_end_by_the_tasks_own(matrix: Matrix) -> None:
    stack = matrix.stack
    result = stack.sig("reporting", fails="1", code="again").apply_async()
    result.get(timeout=60)
    assert [note["queue"] for note in notes_of(stack, "first", result.id)] == [stack.queue, f"{stack.queue}.retry"]
    assert [note["queue"] for note in notes_of(stack, "second", result.id)] == [stack.queue]


@on_both_transports
def test_a_route_may_name_the_retry_queue(matrix: Matrix) -> None:
    """And the worker that serves the task serves it."""
    stack = matrix.stack
    result = stack.sig("reporting", fails="1", code="elsewhere").apply_async()
    result.get(timeout=60)
    assert [note["queue"] for note in notes_of(stack, "first", result.id)] == [stack.queue, f"{stack.queue}-special"]
    assert [note["queue"] for note in notes_of(stack, "second", result.id)] == [stack.queue]


@on_both_transports
@pytest.mark.celery55
def test_a_users_own_retry_is_no_attempt_and_goes_back_to_the_tasks_own_queue(matrix: Matrix) -> None:
    """celery_facts row 10: Celery takes the queue of ``retry()`` from the message that is running."""
    stack = matrix.stack
    result = stack.sig("returning", fails="1", code="again").apply_async()
    job = result.get(timeout=60)
    first = notes_of(stack, "first", result.id)
    assert [note["queue"] for note in first] == [stack.queue, f"{stack.queue}.retry", stack.queue]
    assert [note["retries"] for note in first] == [0, 0, 1]
    assert [note["queue"] for note in notes_of(stack, "second", result.id)] == [stack.queue]
    record = stack.until(result.id, "done")
    assert (record.attempt, jobs_of(matrix.server, result.id)[1]) == (2, job["id"])
    assert len(jobs_of(matrix.server, result.id)) == 2


def has_nothing_in_hand(stack: Stack, worker: Any) -> bool:
    """kombu's Redis transport ends a worker that loses its broker before it has acknowledged a message."""
    inspect = stack.app.control.inspect([worker.node], timeout=3)
    return [inspect.active(), inspect.reserved()] == [{worker.node: []}] * 2


def active_queues(stack: Stack, worker: Any) -> set[str]:
    inspect = stack.app.control.inspect([worker.node], timeout=3)
    answer = wait_for(inspect.active_queues, what=f"{worker.name} answers")
    return {queue["name"] for queue in answer[worker.node]}


class Served(NamedTuple):
    serves: set[str]
    other_serves: set[str]
    pids: set[int]
    own_pids: set[int]
    came_by: list[str]
    stack: Stack


def _two_workers(opened: ExitStack, folder: Path, name: str) -> Served:
    """One serves the tasks' queue, another one does not: it has time for the retries, and must not take them."""
    server = opened.enter_context(make_server())
    stack = opened_stack(opened, name, folder, server, framelane={"routes": [{"code": "again", **ACTIONS["again"]}]})
    other_queue = f"{stack.queue}-other"
    stack.more_queues += [other_queue, f"{other_queue}.retry"]
    other = opened.enter_context(stack.worker("-c", "1", name="other", queues=other_queue))
    own = opened.enter_context(stack.worker("-c", "1", name="own"))
    calls = [stack.sig("reporting", fails="1", code="again").apply_async() for _ in range(8)]
    for call in calls:
        call.get(timeout=60)
    return Served(
        active_queues(stack, own),
        active_queues(stack, other),
        {note["pid"] for note in stack.journal()},
        set(own.children()),
        [note["queue"] for call in calls for note in notes_of(stack, "first", call.id)],
        stack,
    )


@pytest.mark.parametrize("scene", [Scene("two workers", _two_workers, ("redis",))], ids=["redis"])
def test_only_who_serves_a_queue_serves_its_retries(stage: Stage, scene: Scene) -> None:
    """With -Q; the other worker is idle meanwhile."""
    served: Served = stage.outcome(scene)
    queue = served.stack.queue
    assert served.serves == {queue, f"{queue}.retry"}
    assert served.other_serves == {f"{queue}-other", f"{queue}-other.retry"}
    assert served.came_by == [queue, f"{queue}.retry"] * 8
    assert served.pids <= served.own_pids


class Cut(NamedTuple):
    stack: Stack
    served: list[set[str]]
    letters: list[int | None]
    until: str
    came_by: list[str]


def _cut(opened: ExitStack, folder: Path, name: str) -> Cut:
    """A worker without -Q publishes to the dead-letter queue, and then loses its broker for a moment."""
    server = opened.enter_context(make_server())
    url, proxy = through({"redis": f"{REDIS}/10", "rabbitmq": AMQP}[name], opened)
    routes = [{"code": "again", **ACTIONS["again"]}]
    stack = opened_stack(opened, name, folder, server, framelane={"routes": routes})
    stack.celery["broker_url"] = url  # for the worker; this process goes straight to it
    worker = opened.enter_context(stack.worker("-c", "1", queues=""))
    dead = f"{stack.namespace}.dead"
    letter = stack.sig("framelane.render", composition(fails="9", code="dies")).apply_async()
    wait_for(lambda: (stack.until(letter.id, "dead").letter or {}).get("announced"), what="the letter is announced")
    served, letters = [active_queues(stack, worker)], [stack.waiting_in(dead)]
    connected = worker.log.count("Connected to")
    wait_for(lambda: has_nothing_in_hand(stack, worker), every_s=0.1)
    proxy.cut()
    wait_for(lambda: "onnection to broker lost" in worker.log, what="the worker has lost its broker")
    proxy.restore()
    wait_for(lambda: worker.log.count("Connected to") > connected, what="the worker is back")
    again = stack.sig("reporting", fails="1", code="again").apply_async()
    again.get(timeout=90)
    served.append(active_queues(stack, worker))
    letters.append(stack.waiting_in(dead))
    came_by = [note["queue"] for note in notes_of(stack, "first", again.id)]
    return Cut(stack, served, letters, stack.record(letter.id).until, came_by)


CUTS = [Scene(f"cut {name}", _cut, (name,)) for name in ("redis", "rabbitmq")]


@pytest.mark.celery55
@pytest.mark.parametrize("scene", CUTS, ids=["redis", "rabbitmq"])
def test_without_q_a_worker_serves_retries_and_never_dead_letters(stage: Stage, scene: Scene) -> None:
    """Celery 5.5 consumes from every queue that the app has heard of, from the next reconnection on."""
    cut: Cut = stage.outcome(scene)
    queue = cut.stack.queue
    assert cut.served == [{queue, f"{queue}.retry"}] * 2
    assert cut.came_by == [queue, f"{queue}.retry"]
    assert (cut.letters, cut.until) == ([1, 1], "dead")


class Strict(NamedTuple):
    came_by: list[str]
    letters: int | None
    refused: str


def _no_missing_queues(opened: ExitStack, folder: Path) -> Strict:
    """Our own queues are made all the same; one that a route names has to be known."""
    server = opened.enter_context(make_server())
    stack = opened_stack(
        opened, "rabbitmq", folder, server,
        celery={"task_create_missing_queues": False},
        framelane={"routes": [{"code": "again", **ACTIONS["again"]}]},
    )  # fmt: skip
    stack.celery["task_queues"] = {stack.queue: {"exchange": stack.queue, "routing_key": stack.queue}}
    stack.app.conf.task_queues = stack.celery["task_queues"]
    with stack.worker("-c", "1"):
        again = stack.sig("reporting", fails="1", code="again").apply_async()
        letter = stack.sig("framelane.render", composition(fails="9", code="dies")).apply_async()
        again.get(timeout=60)
        wait_for(lambda: (stack.until(letter.id, "dead").letter or {}).get("announced"), what="announced")
        letters = stack.waiting_in(f"{stack.namespace}.dead")
    bad = [{"code": "again", "action": "retry", "queue": "nowhere"}]
    worker = stack.worker("-c", "1", name="bad", TEST_FRAMELANE=json.dumps({**stack.framelane, "routes": bad}))
    with pytest.raises(AssertionError, match="ended at once") as refused, worker:
        pass
    return Strict([note["queue"] for note in notes_of(stack, "first", again.id)], letters, str(refused.value))


@pytest.mark.parametrize("scene", [Scene("no missing queues", _no_missing_queues)], ids=["rabbitmq"])
def test_where_celery_makes_no_missing_queues(stage: Stage, scene: Scene) -> None:
    strict: Strict = stage.outcome(scene)
    assert [name.rpartition(".")[2] for name in strict.came_by][1] == "retry"
    assert strict.letters == 1
    assert "routes[0].queue: 'nowhere' is not in task_queues" in strict.refused
