"""Two workspaces in one app, each with a server and a key of its own: a job of the one is unknown to the other."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from celery import chain, chord
from celery.bin.base import CLIContext
from click.testing import CliRunner

from framelane_celery import dead_letters, operations
from framelane_celery.cli.commands import framelane
from framelane_celery.errors import JobFailed
from framelane_celery.testing import Fault, FramelaneServer, Switches
from tests.worker import workspaces
from tests.worker.pipelines import POLL_S, Scene, Stage, opened_stack, playing
from tests.worker.project import composition
from tests.worker.stacks import Stack, jobs_of, make_server, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.timeout(300)]

LENIENT = {"switches": Switches(requires_https_sources=False)}
"""A link of the other workspace is one to this machine, by plain HTTP."""


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with playing(request, tmp_path_factory) as stage:
        yield stage


class Two(NamedTuple):
    """A stack with two accounts, "default" and "eu"."""

    stack: Stack
    home: FramelaneServer
    eu: FramelaneServer

    def render(self, text: str = "hello", account: str | None = "eu", **metadata: str) -> Any:
        sig = self.stack.sig("framelane.render", composition(text, **metadata))
        return sig if account is None else sig.set(framelane_account=account)

    def jobs(self, task_id: str) -> tuple[int, int]:
        """How many jobs the task has in each workspace."""
        return len(jobs_of(self.home, task_id)), len(jobs_of(self.eu, task_id))


def two_accounts(opened: ExitStack, name: str, folder: Path, **settings: Any) -> Two:
    home = opened.enter_context(make_server(api_keys=("fl_test_key",), **LENIENT))
    eu = opened.enter_context(make_server(api_keys=("fl_eu",), **LENIENT))
    accounts = {"eu": {"api_key": "fl_eu", "base_url": eu.base_url}}
    stack = opened_stack(opened, name, folder, home, framelane={"accounts": accounts, **settings})
    return Two(stack, home, eu)


def is_done(stack: Stack, *results: Any) -> bool:
    records = [stack.record(one.id) for one in results]
    return all(record is not None and record.until == "done" for record in records)


def submitted(stack: Stack) -> dict[str, float]:
    """What the workers have counted, by account."""
    found: dict[str, float] = {}
    for key, count in stack.room.counts().items():
        name, *labels = json.loads(key)
        if name == "submissions":
            found[labels[1]] = found.get(labels[1], 0.0) + count
    return found


def port(url: str) -> int | None:
    return urlsplit(url).port


# --- canvases ----------------------------------------------------------------------------------------------------


class Canvases(NamedTuple):
    chord: dict[str, Any]
    links: list[str]
    ports: list[int | None]
    jobs: dict[str, tuple[int, int]]
    downloaded: int
    submitted: dict[str, float]
    paid: dict[str, float]
    accounts: dict[str, str]


def _canvases(opened: ExitStack, folder: Path, name: str) -> Canvases:
    two = two_accounts(opened, name, folder)
    stack = two.stack
    opened.enter_context(stack.worker(*workspaces.WITH))
    both = chord([two.render("m1", None), two.render("m2", "eu")], stack.sig("joined")).apply_async()
    inherits = chain(two.render("c"), stack.sig("framelane.transcribe")).apply_async()
    named = chain(two.render("n", None), stack.sig("framelane.transcribe").set(framelane_account="eu")).apply_async()
    file = folder / "file.mp4"
    kept = chain(two.render("d"), stack.sig("framelane.download", str(file))).apply_async()
    by_class = stack.sig("european").apply_async()
    retried = stack.sig("again", "retry").apply_async(framelane_account="eu")
    replaced = stack.sig("again", "replace").apply_async(framelane_account="eu")
    linked = two.render("l")
    linked.link(stack.sig("framelane.transcribe"))
    linked = linked.apply_async()
    stack.app.send_task("framelane.render", [composition("by name")], task_id=f"by-name-{name}", framelane_account="eu")
    by_name = stack.app.AsyncResult(f"by-name-{name}")
    results = {
        "chord": both, "inherits": inherits, "named": named, "kept": kept, "by class": by_class, "retried": retried,
        "replaced": replaced, "linked": linked, "by name": by_name,
    }  # fmt: skip
    ended = {label: one.get(timeout=90) for label, one in results.items()}
    [link] = [note["links"] for note in stack.journal("joined")]
    wait_for(lambda: is_done(stack, *results.values()), every_s=POLL_S)
    [after] = wait_for(lambda: [one for one in linked.children or () if one.ready()], every_s=POLL_S)
    jobs = {label: two.jobs(one.id) for label, one in {**results, "link": after}.items()}
    paid = {"default": float(two.home.ledger.counts()["jobs"]), "eu": float(two.eu.ledger.counts()["jobs"])}
    wait_for(lambda: sum(submitted(stack).values()) >= sum(paid.values()), every_s=POLL_S)  # told now and then
    jobs |= {f"member {n}": two.jobs(one.id) for n, one in enumerate(both.parent.children)}
    return Canvases(
        chord=ended["chord"],
        links=link,
        ports=[port(two.home.base_url), port(two.eu.base_url)],
        jobs=jobs,
        downloaded=file.stat().st_size,
        submitted=submitted(stack),
        paid=paid,
        accounts={label: stack.record(one.id).account for label, one in results.items()},
    )


CANVASES = [
    pytest.param(Scene("canvases", _canvases, ("redis",)), id="redis", marks=pytest.mark.celery55),
    pytest.param(Scene("canvases, rabbitmq", _canvases, ("rabbitmq",)), id="rabbitmq"),
]
in_canvases = pytest.mark.parametrize("scene", CANVASES)


@in_canvases
def test_a_chord_over_two_accounts_gets_each_link_with_its_own_key(stage: Stage, scene: Scene) -> None:
    seen: Canvases = stage.outcome(scene)
    assert (seen.jobs["member 0"], seen.jobs["member 1"]) == ((1, 0), (0, 1))
    assert [port(link) for link in seen.links] == seen.ports
    assert seen.jobs["chord"] == (1, 0)  # members of several accounts: the body has none of theirs
    assert seen.chord["status"] == "completed"
    assert "framelane_account" not in seen.chord


@in_canvases
def test_the_choice_goes_through_every_shape(stage: Stage, scene: Scene) -> None:
    seen: Canvases = stage.outcome(scene)
    labels = ("inherits", "named", "by class", "retried", "replaced", "linked", "link", "by name")
    assert {label: seen.jobs[label] for label in labels} == dict.fromkeys(labels, (0, 1))
    assert seen.accounts["kept"] == "eu"
    assert seen.downloaded > 0


@in_canvases
def test_submissions_are_counted_by_account(stage: Stage, scene: Scene) -> None:
    seen: Canvases = stage.outcome(scene)
    assert seen.submitted == seen.paid
    assert set(seen.paid) == {"default", "eu"}


# --- one account in trouble --------------------------------------------------------------------------------------


class Trouble(NamedTuple):
    held: list[str]
    others: list[str]
    codes: set[str]
    posts_while_held: int
    holds: list[str]
    after: list[tuple[int, int]]
    dead: Any


ROUTES = [
    {"code": "unauthorized", "account": "eu", "action": "hold"},
    {"code": "codec_error", "account": "eu", "action": "fail"},
    {"code": "codec_error", "action": "dead_letter"},
]


def _trouble(opened: ExitStack, folder: Path, name: str, how: str) -> Trouble:
    """Account eu is on hold: by an operator, or for its wrong key, or for its spent quota. The default one goes on."""
    more: dict[str, Any] = {"quota_renders": 5} if how == "quota" else {}
    home = opened.enter_context(make_server(api_keys=("fl_test_key",)))
    eu = opened.enter_context(make_server(api_keys=("fl_another" if how == "key" else "fl_eu",), **more))
    accounts = {"eu": {"api_key": "fl_eu", "base_url": eu.base_url}}
    stack = opened_stack(opened, name, folder, home, framelane={"accounts": accounts, "routes": ROUTES})
    two = Two(stack, home, eu)
    opened.enter_context(stack.worker(*workspaces.WITH))
    if how == "quota":
        for _ in range(5):
            assert two.render("spends it").apply_async().get(timeout=60)["status"] == "completed"
    if how == "operator":
        operations.hold(stack.app, "eu", "maintenance")
    held = [two.render(str(n)).apply_async() for n in range(4)]
    wait_for(lambda: all(stack.record(one.id).until == "release" for one in held), every_s=POLL_S)
    posts = len(eu.ledger.posts())
    others = [two.render(str(n), None).apply_async() for n in range(4)]
    ended = [one.get(timeout=60)["status"] for one in others]
    codes = {stack.record(one.id).failure["code"] for one in held if stack.record(one.id).failure}
    known = [hold.account for hold in stack.room.holds()[0] if hold.is_on]
    while_held = len(eu.ledger.posts()) - posts
    if how == "key":
        eu._api.let_in("fl_eu")
    if how == "quota":
        wait_for(lambda: stack.room.holds()[0][0].ends_at is not None, every_s=POLL_S)  # the usage was read
        eu.reset_quota()
    if how != "key":
        assert operations.release(stack.app, "eu")
    done = [one.get(timeout=60)["status"] for one in held]
    dead = None
    if how == "operator":
        fails = [two.render("x", account, outcome="fail", code="codec_error") for account in ("eu", "default")]
        results = [one.apply_async() for one in fails]
        for result in results:
            with pytest.raises(JobFailed):
                result.get(timeout=60)
        wait_for(lambda: all(stack.record(one.id).is_over for one in results), every_s=POLL_S)
        dead = [stack.record(one.id).until for one in results]
    return Trouble(done, ended, codes, while_held, known, [two.jobs(one.id) for one in held], dead)


TROUBLES = [
    pytest.param(Scene("operator", _trouble, ("redis", "operator")), id="operator, redis"),
    pytest.param(Scene("operator, rabbitmq", _trouble, ("rabbitmq", "operator")), id="operator, rabbitmq"),
    pytest.param(Scene("quota", _trouble, ("redis", "quota")), id="quota, redis"),
    pytest.param(Scene("key", _trouble, ("redis+sql", "key")), id="key, redis+sql"),
    pytest.param(Scene("key, rabbitmq", _trouble, ("rabbitmq+redis", "key")), id="key, rabbitmq+redis"),
]


CODES = {"operator": "operator", "quota": "quota_exceeded", "key": "unauthorized"}


@pytest.mark.parametrize("scene", TROUBLES)
def test_one_account_on_hold_and_the_other_goes_on(stage: Stage, scene: Scene) -> None:
    trouble: Trouble = stage.outcome(scene)
    assert trouble.others == ["completed"] * 4
    assert trouble.posts_while_held == 0
    assert trouble.holds == ["eu"]
    assert trouble.codes == {CODES[scene.arguments[1]]}
    assert trouble.held == ["completed"] * 4
    assert trouble.after == [(0, 1)] * 4


@pytest.mark.parametrize("scene", TROUBLES[:2])
def test_rules_for_one_account(stage: Stage, scene: Scene) -> None:
    trouble: Trouble = stage.outcome(scene)
    assert trouble.dead == ["done", "dead"]


# --- an API that hangs ---------------------------------------------------------------------------------------------

HANGS_S, MANY = 12.0, 60
"""More jobs than one account has threads for its looks."""


class Hung(NamedTuple):
    took_s: float
    others: list[str]
    ended: list[str]


def _hung(opened: ExitStack, folder: Path, name: str) -> Hung:
    """Account eu's API answers no read, for as long as its looks wait for an answer; the default one's does."""
    two = two_accounts(opened, name, folder)
    stack, eu = two.stack, two.eu
    opened.enter_context(stack.worker(*workspaces.WITH))
    slow = eu.faults.add(Fault("slow", method="GET", seconds=HANGS_S))
    hung = [two.render(str(n), seconds="0.1").apply_async() for n in range(MANY)]
    wait_for(lambda: eu.faults.struck(slow) >= 40, every_s=POLL_S)
    began_at = time.monotonic()
    others = [two.render(str(n), None, seconds="0.1").apply_async() for n in range(5)]
    statuses = [one.get(timeout=60)["status"] for one in others]
    took_s = time.monotonic() - began_at
    eu.faults.clear()
    return Hung(took_s, statuses, [one.get(timeout=90)["status"] for one in hung])


HUNG = [pytest.param(Scene("hung", _hung, ("redis",)), id="redis")]


@pytest.mark.parametrize("scene", HUNG)
def test_an_api_that_hangs_keeps_no_other_account_waiting(stage: Stage, scene: Scene) -> None:
    hung: Hung = stage.outcome(scene)
    assert hung.others == ["completed"] * 5
    assert hung.took_s < HANGS_S / 2
    assert hung.ended == ["completed"] * MANY


# --- removed, and back -------------------------------------------------------------------------------------------


class Removed(NamedTuple):
    others: str
    posts: list[int]
    until: list[str]
    told: list[str]
    log: str
    states: list[str]
    after: list[tuple[int, int]]
    results: list[str]
    replayed: tuple[int, int]


def _removed(opened: ExitStack, folder: Path, name: str) -> Removed:
    """A worker whose settings name account eu no more: what waits for a job, a call, and a call of a chord."""
    two = two_accounts(opened, name, folder, routes=[{"code": "internal", "action": "dead_letter"}])
    stack, named = two.stack, two.stack.framelane
    letter = two.render("letter", fails="1", counted_as=f"letter-{name}")
    with stack.worker(*workspaces.WITH, name="before"):
        dies = letter.apply_async()
        with pytest.raises(JobFailed):
            dies.get(timeout=60)
        waits = two.render("job", seconds="1").apply_async()
        stack.until(waits.id, "job")
    stack.framelane = {key: value for key, value in named.items() if key != "accounts"}
    calls = [two.render("call").apply_async(), chain(two.render("chain"), stack.sig("ids")).apply_async().parent]
    with stack.worker(*workspaces.WITH, name="without") as worker:
        other = two.render("other", None).apply_async()
        others = other.get(timeout=60)["status"]
        wait_for(lambda: is_done(stack, other), every_s=POLL_S)
        wait_for(lambda: "names no account 'eu'" in worker.log, every_s=POLL_S)
        wait_for(lambda: "of account eu wait: framelane['accounts'] does not name it" in worker.log, every_s=POLL_S)
        known = {**stack.app.conf.framelane}
        stack.app.conf.framelane = stack.framelane
        context = CLIContext(app=stack.app, no_color=False, workdir=None)
        rows = json.loads(CliRunner().invoke(framelane, ["waiting", "--json"], obj=context).stdout)
        stack.app.conf.framelane = known
        until = [stack.record(one.id).until for one in (waits, *calls)]
        posts = [sum(two.jobs(one.id)) for one in calls]
        states = [one.state for one in (waits, *calls)]
        log = worker.log
    stack.framelane = named
    with stack.worker(*workspaces.WITH, name="again"):
        replay = dead_letters.replay(stack.app, dies.id)
        ours = [waits, *calls]
        results = [one.get(timeout=90)["status"] for one in ours]
        results.append(stack.app.AsyncResult(replay.task_id).get(timeout=60)["status"])
    return Removed(
        others,
        posts,
        until,
        sorted({row["wakes"] for row in rows}),
        log,
        states,
        [two.jobs(one.id) for one in ours],
        results,
        two.jobs(replay.task_id),
    )


REMOVED = [
    pytest.param(Scene("removed", _removed, ("redis",)), id="redis"),
    pytest.param(Scene("removed, rabbitmq", _removed, ("rabbitmq",)), id="rabbitmq"),
]
when_removed = pytest.mark.parametrize("scene", REMOVED)


@when_removed
def test_records_of_an_account_that_was_removed_wait_until_it_is_back(stage: Stage, scene: Scene) -> None:
    removed: Removed = stage.outcome(scene)
    assert removed.others == "completed"
    assert removed.until == ["job", "start", "start"]
    assert removed.posts == [0, 0]
    assert removed.states[0] == "PROGRESS"
    assert removed.told == ["settings that name account eu (again): nobody has its key meanwhile"]
    assert removed.log.count("names no account 'eu'") <= 2  # once in each of the pool's processes
    assert removed.after == [(0, 1)] * 3
    assert removed.results == ["completed"] * 4


@when_removed
def test_a_replay_keeps_its_account(stage: Stage, scene: Scene) -> None:
    assert stage.outcome(scene).replayed == (0, 1)


# --- a rolling deploy --------------------------------------------------------------------------------------------


class Deploy(NamedTuple):
    others: str
    before: tuple[int, int]
    result: str
    after: tuple[int, int]


def _deploy(opened: ExitStack, folder: Path, name: str) -> Deploy:
    """A worker of a release that knows no accounts has only the top level's key: it must not submit with that."""
    two = two_accounts(opened, name, folder)
    stack, named = two.stack, two.stack.framelane
    stack.framelane = {key: value for key, value in named.items() if key != "accounts"}
    with stack.worker(*workspaces.WITH, name="old", **workspaces.OLD_RELEASE):
        call = two.render("call").apply_async()
        other = two.render("other", None).apply_async()  # behind it in the queue
        others = other.get(timeout=60)["status"]
        before = two.jobs(call.id)
    stack.framelane = named
    with stack.worker(*workspaces.WITH, name="new"):
        result = call.get(timeout=90)["status"]
    return Deploy(others, before, result, two.jobs(call.id))


DEPLOYS = [
    pytest.param(Scene("deploy", _deploy, ("redis",)), id="redis"),
    pytest.param(Scene("deploy, rabbitmq", _deploy, ("rabbitmq",)), id="rabbitmq"),
]


@pytest.mark.parametrize("scene", DEPLOYS)
def test_a_worker_that_knows_no_accounts_never_pays_in_the_wrong_workspace(stage: Stage, scene: Scene) -> None:
    assert stage.outcome(scene) == Deploy("completed", (0, 0), "completed", (0, 1))
