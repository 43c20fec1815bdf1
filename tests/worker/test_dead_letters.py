"""Dead letters on real brokers: announced once, consumed by nobody, replayed once, and nothing changes by looking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from celery import chain, chord, states
from celery.exceptions import ChordError

from framelane_celery import JobFailed, dead_letters, operations
from framelane_celery.dead_letters import NoSuchLetter, Replay
from framelane_celery.operations import NoSuchTask
from framelane_celery.testing import FramelaneServer
from framelane_celery.wakeups import REPLAY
from tests.worker.pipelines import (
    FAILED,
    NOTHING_YET,
    POLL_S,
    WENT_ON,
    Pipes,
    Scene,
    Seen,
    Stage,
    opened_stack,
    playing,
)
from tests.worker.project import composition
from tests.worker.stacks import Stack, jobs_of, make_server, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.timeout(300)]

RULES = [
    {"code": "dies", "action": "dead_letter"},
    {"code": "waits", "action": "dead_letter", "keep_waiting": True},
]


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with playing(request, tmp_path_factory) as stage:
        yield stage


def render(stack: Stack, code: str, times: int = 1, text: str = "hello") -> Any:
    """``times``: how many of its jobs fail, under whatever task id."""
    metadata = {"fails": str(times), "code": code, "counted_as": str(uuid4()), "seconds": "0.1"}
    return stack.sig("framelane.render", composition(text, **metadata))


def keys_of(server: FramelaneServer, task_id: str) -> list[str | None]:
    posts = [post for post in server.ledger.posts() if post.json()["metadata"]["celery_task_id"] == task_id]
    return [post.idempotency_key for post in posts]


def announced(stack: Stack, ids: list[str]) -> None:
    wait_for(
        lambda: all((stack.record(task_id).letter or {}).get("announced") for task_id in ids),
        what="all are announced",
        every_s=POLL_S,
    )


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def said(call: Callable[[], Any]) -> Any:
    """What a call gives, or the NoSuchLetter or NoSuchTask that it raises."""
    try:
        return call()
    except (NoSuchLetter, NoSuchTask) as error:
        return error


def said_to(stack: Stack, body_id: str) -> list[str]:
    """What has run of a chord's body and its errback."""
    return [note["event"] for note in stack.journal() if note["id"] == body_id]


# --- letters, in every shape -------------------------------------------------------------------------------------


@dataclass
class Post:
    """What was seen of letters in every shape: kept waiting and replayed, kept waiting and discarded, and dead."""

    stack: Stack
    server: FramelaneServer
    dead_queue: str
    pipes: dict[str, Pipes] = field(default_factory=dict)
    letters: dict[str, Seen] = field(default_factory=dict)
    ends: dict[str, Seen] = field(default_factory=dict)
    replays: dict[str, list[Any]] = field(default_factory=dict)
    stale: list[Any] = field(default_factory=list)
    counts: list[int | None] = field(default_factory=list)
    consumers: int = 0
    listed: list[list[tuple[str, int, int]]] = field(default_factory=list)
    edited: dict[str, tuple[Replay, Any]] = field(default_factory=dict)
    cancelled: tuple[Any, ...] = ()
    result_of_dead: Any = None
    early_chord: list[Any] = field(default_factory=list)


def _versions(stack: Stack) -> list[tuple[str, int, int]]:
    return [(letter.id, letter.step, letter.version) for letter in dead_letters.letters(stack.room)]


def _letters(opened: ExitStack, folder: Path, name: str) -> Post:
    server = opened.enter_context(make_server())
    stack = opened_stack(opened, name, folder, server, framelane={"routes": RULES})
    opened.enter_context(stack.worker("-c", "2"))
    post = Post(stack, server, f"{stack.namespace}.dead")
    for label, code in {"replayed": "waits", "discarded": "waits", "dead": "dies"}.items():
        post.pipes[label] = Pipes(stack, label, lambda code=code: render(stack, code))  # type: ignore[misc]
    to_edit = {code: chain(render(stack, code, 9), stack.sig("note", tag=f"edited {code}")).apply_async()
               for code in ("dies", "waits")}  # fmt: skip
    body = stack.sig("ids")
    body.link_error(stack.sig("told"))
    early = chord(
        [render(stack, "dies"), stack.sig("framelane.render", composition(outcome="never"))], body
    ).apply_async()
    early_letter, late = (member.id for member in early.parent.children)
    for label, pipes in post.pipes.items():
        pipes.wait_until("dead" if label == "dead" else "release")
    post.pipes["dead"].wait_for_ends()
    ids = [task_id for pipes in post.pipes.values() for task_id in pipes.ids]
    stack.until(to_edit["dies"].parent.id, "dead")
    stack.until(to_edit["waits"].parent.id, "release")
    stack.until(early_letter, "dead")
    announced(stack, [*ids, early_letter, *(one.parent.id for one in to_edit.values())])
    post.letters = {label: pipes.seen() for label, pipes in post.pipes.items()}
    post.result_of_dead = post.pipes["dead"].alone.result

    post.counts.append(stack.waiting_in(post.dead_queue))
    post.listed.append(_versions(stack))
    for _ in range(100):
        list(dead_letters.letters(stack.room, code="dies"))
        dead_letters.find(stack.room, ids[0])
    post.listed.append(_versions(stack))
    post.counts.append(stack.waiting_in(post.dead_queue))
    if name.startswith("rabbitmq"):
        with stack.app.connection_for_write() as connection:
            post.consumers = connection.default_channel.queue_declare(post.dead_queue, passive=True).consumer_count

    for label in ("replayed", "dead"):
        old = stack.record(post.pipes[label].ids[0])
        post.stale.append(said(lambda old=old: dead_letters.replay(stack.app, old.id, step=old.step - 1)))  # type: ignore[misc]
        post.stale.append(stack.record(old.id) == old)
    for label in ("replayed", "dead"):  # by four at once
        post.replays[label] = [
            at_once([lambda task_id=task_id: said(lambda: dead_letters.replay(stack.app, task_id))] * 4)  # type: ignore[misc]
            for task_id in post.pipes[label].ids
        ]
    for task_id in post.pipes["discarded"].ids:
        dead_letters.discard(stack.app, task_id)
    for code, result in to_edit.items():
        replay = dead_letters.replay(stack.app, result.parent.id, args=[composition("right")])
        stack.until(replay.task_id, "done")
        post.edited[code] = (replay, stack.app.AsyncResult(replay.task_id).result)
    stack.until(dead_letters.replay(stack.app, early_letter).task_id, "done")
    post.early_chord = [early.state, said_to(stack, early.id)]
    server.finish(stack.until(late, "job").job_id)
    stack.until(late, "done")
    wait_for(lambda: said_to(stack, early.id))
    post.pipes["replayed"].wait_until("done").wait_for_ends()
    post.pipes["discarded"].wait_until("done").wait_for_ends()
    for pair in post.replays["dead"]:
        stack.until(pair[0].task_id, "done")
    wait_for(lambda: all(post.pipes["dead"].seen().after[name] for name in ("tail", "link")), what="tails of replays")
    post.ends = {label: pipes.seen() for label, pipes in post.pipes.items()}

    waiting = stack.sig("framelane.render", composition(outcome="never")).apply_async()
    job_id = stack.until(waiting.id, "job").job_id
    operations.cancel(stack.app, waiting.id)
    stack.until(waiting.id, "done")
    over = said(lambda: operations.cancel(stack.app, post.pipes["replayed"].alone.id))
    post.early_chord += [early.state, said_to(stack, early.id)]
    post.cancelled = (waiting.state, server.jobs[job_id]["status"], over)
    return post


LETTERS = [
    pytest.param(Scene("letters, redis", _letters, ("redis",)), id="redis", marks=pytest.mark.celery55),
    pytest.param(Scene("letters, rabbitmq", _letters, ("rabbitmq",)), id="rabbitmq", marks=pytest.mark.celery55),
]
everywhere = pytest.mark.parametrize("scene", LETTERS)


@pytest.fixture
def post(stage: Stage, scene: Scene) -> Post:
    return stage.outcome(scene)  # type: ignore[no-any-return]


@everywhere
def test_a_letter_is_announced_once_and_nobody_consumes_it(post: Post) -> None:
    assert post.counts == [15, 15]
    assert post.consumers == 0


@pytest.mark.parametrize("scene", LETTERS[1:])
def test_the_queues_of_our_own_are_durable(post: Post) -> None:
    for queue in (post.dead_queue, f"{post.stack.queue}.retry"):
        with post.stack.app.connection_for_write() as connection, pytest.raises(connection.channel_errors) as caught:
            connection.default_channel.queue_declare(queue, durable=False, auto_delete=False)
        assert "'durable'" in str(caught.value)


@everywhere
def test_a_dead_task_has_failed_with_its_typed_error(post: Post) -> None:
    error = post.result_of_dead
    assert isinstance(error, JobFailed)
    assert (error.code, error.job_id) == ("dies", jobs_of(post.server, post.pipes["dead"].alone.id)[0])
    assert (post.letters["dead"].states, post.letters["dead"].after) == ([states.FAILURE] * 4, FAILED)


@everywhere
def test_what_is_kept_waiting_has_told_nobody(post: Post) -> None:
    for label in ("replayed", "discarded"):
        assert post.letters[label] == Seen(["release"] * 4, ["PROGRESS"] * 4, NOTHING_YET)


@everywhere
def test_listing_a_hundred_times_changes_nothing(post: Post) -> None:
    before, after = post.listed
    assert before == after
    assert len(before) == 15
    assert len({letter for letter, _, _ in before}) == 15


@everywhere
def test_a_replay_of_an_earlier_step_does_nothing(post: Post) -> None:
    """What a message says that was sent before the letter moved on, and came back."""
    assert [isinstance(each, NoSuchLetter) or each is True for each in post.stale] == [True] * 4


@everywhere
def test_a_pipeline_that_was_kept_waiting_goes_on_after_its_replay(post: Post) -> None:
    """The same ids, chord included; the body, the tail and the links run once, errbacks never."""
    assert post.ends["replayed"] == Seen(["done"] * 4, [states.SUCCESS] * 4, WENT_ON)
    pipes = post.pipes["replayed"]
    assert len(pipes.chord.result) == 2
    assert pipes.chain.result["id"] == jobs_of(post.server, pipes.chain.parent.id)[1]
    for task_id in pipes.ids:
        assert len(jobs_of(post.server, task_id)) == 2
        assert len(set(keys_of(post.server, task_id))) == 2


@everywhere
def test_a_pipeline_that_was_kept_waiting_fails_when_it_is_discarded(post: Post) -> None:
    assert post.ends["discarded"] == Seen(["done"] * 4, [states.FAILURE] * 4, FAILED)
    pipes = post.pipes["discarded"]
    assert isinstance(pipes.chord.result, ChordError)
    assert pipes.alone.result.code == "waits"
    assert [len(jobs_of(post.server, task_id)) for task_id in pipes.ids] == [1] * 4
    assert isinstance(said(lambda: dead_letters.discard(post.stack.app, pipes.ids[0])), NoSuchLetter)


@everywhere
@pytest.mark.parametrize("label", ["replayed", "dead"])
def test_replayed_by_four_at_once_and_later_again_makes_one_job(post: Post, label: str) -> None:
    for task_id, four in zip(post.pipes[label].ids, post.replays[label], strict=True):
        replays = [each for each in four if isinstance(each, Replay)]
        assert [each.is_new for each in replays].count(True) == 1
        assert {each.letter_id for each in replays} == {task_id}
        [new_id] = {each.task_id for each in replays}
        assert (new_id == task_id) is (label == "replayed")
        later = said(lambda: dead_letters.replay(post.stack.app, task_id))  # noqa: B023
        assert later == Replay(task_id, new_id, is_new=False)
        made = jobs_of(post.server, new_id)
        assert len(made) == (2 if label == "replayed" else 1)


@everywhere
def test_a_replay_of_what_has_failed_runs_its_tail_under_a_new_id_outside_its_chord(post: Post) -> None:
    pipes, end = post.pipes["dead"], post.ends["dead"]
    assert end.states == [states.FAILURE] * 4  # under the old ids
    assert end.after == {"tail": 1, "link": 1, "body": 0, "told": 1, "body told": 1}
    new_ids = [four[0].task_id for four in post.replays["dead"]]
    assert [post.stack.app.AsyncResult(new_id).state for new_id in new_ids] == [states.SUCCESS] * 4
    for old_id, new_id in zip(pipes.ids, new_ids, strict=True):
        old = post.stack.record(old_id)
        assert (old.until, old.letter["replayed_as"]) == ("done", new_id)
        assert not set(keys_of(post.server, old_id)) & set(keys_of(post.server, new_id))
    assert isinstance(pipes.chord.result, ChordError)
    # Nor is the replay counted for it, where another member has not ended yet.
    assert post.early_chord == [states.PENDING, [], states.FAILURE, ["told"]]


@everywhere
@pytest.mark.parametrize("code", ["dies", "waits"])
def test_a_replay_with_other_arguments(post: Post, code: str) -> None:
    replay, result = post.edited[code]
    assert replay.is_new
    assert result["status"] == "completed"
    [sent] = [entry for entry in post.server.ledger.posts() if entry.job_id == result["id"]]
    assert sent.json()["elements"][0]["text"] == "right"
    assert len([note for note in post.stack.journal("plain") if note["tag"] == f"edited {code}"]) == 1


@everywhere
def test_an_operator_cancels_a_task_that_waits_for_its_job(post: Post) -> None:
    """(Held and kept waiting: tests/worker/test_holds.py.)"""
    state, job, over = post.cancelled
    assert (state, job) == (states.REVOKED, "cancelled")
    assert isinstance(over, NoSuchTask)  # one that had completed


# --- a worker on the dead-letter queue ---------------------------------------------------------------------------


class Replayed(NamedTuple):
    stack: Stack
    server: FramelaneServer
    ids: list[str]
    kept: Any
    by_hand: Replay
    counts: list[int | None]
    jobs_before: int
    jobs_after: int
    stale: list[str]


def _by_worker(opened: ExitStack, folder: Path, name: str) -> Replayed:
    server = opened.enter_context(make_server())
    stack = opened_stack(opened, name, folder, server, framelane={"routes": RULES})
    opened.enter_context(stack.worker("-c", "1"))
    queue = f"{stack.namespace}.dead"
    calls = [render(stack, "dies").apply_async() for _ in range(5)]
    kept = chain(render(stack, "waits"), stack.sig("note", tag="kept")).apply_async()
    ids = [call.id for call in calls]
    letters = {call.id: stack.until(call.id, "dead") for call in calls}
    letters[kept.parent.id] = stack.until(kept.parent.id, "release")
    announced(stack, list(letters))
    by_hand = dead_letters.replay(stack.app, ids[0])
    counts = [stack.waiting_in(queue)]
    with stack.worker("-c", "1", name="replays", queues=queue) as worker:
        for call in calls:
            replayed = wait_for(lambda call=call: (stack.record(call.id).letter or {}).get("replayed_as"))  # type: ignore[misc]
            stack.until(replayed, "done")
        kept.get(timeout=60)
        jobs = len(server.jobs)
        for letter in letters.values():  # as a broker may deliver it again
            stack.app.send_task(REPLAY, (letter.id, letter.step), queue=queue)
        wait_for(lambda: worker.log.count("nothing to replay") + worker.log.count("]: replayed as") >= 12)
        counts.append(stack.waiting_in(queue))
        stale = [line for line in worker.log.splitlines() if "nothing to replay" in line]
    wait_for(stack.is_idle)
    return Replayed(stack, server, ids, kept, by_hand, counts, jobs, len(server.jobs), stale)


BY_WORKER = [
    pytest.param(Scene("by a worker, redis", _by_worker, ("redis",)), id="redis"),
    pytest.param(Scene("by a worker, rabbitmq", _by_worker, ("rabbitmq",)), id="rabbitmq", marks=pytest.mark.celery55),
]


@pytest.mark.parametrize("scene", BY_WORKER)
def test_a_worker_on_the_dead_letter_queue_replays_each_letter_once(stage: Stage, scene: Scene) -> None:
    """One was replayed by hand before, so its message is stale; then all messages come again."""
    replayed: Replayed = stage.outcome(scene)
    assert replayed.counts in ([6, 0], [6, None])  # None: Redis has no empty queues
    for task_id in replayed.ids:
        new_id = replayed.stack.record(task_id).letter["replayed_as"]
        assert len(jobs_of(replayed.server, new_id)) == 1
        assert replayed.stack.app.AsyncResult(new_id).state == states.SUCCESS
    assert replayed.stack.record(replayed.ids[0]).letter["replayed_as"] == replayed.by_hand.task_id
    assert len(jobs_of(replayed.server, replayed.kept.parent.id)) == 2
    assert len([note for note in replayed.stack.journal("plain") if note["tag"] == "kept"]) == 1
    assert replayed.jobs_after == replayed.jobs_before == 12
    assert any(replayed.kept.parent.id in line for line in replayed.stale)
