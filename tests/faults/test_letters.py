"""Dead letters under fire: whoever makes, announces or replays one is killed, and none is missing or doubled.

Half of the tasks are plain dead letters: they have failed, their tails and chords too. Half are kept waiting: their
pipelines stand still until somebody replays them. Then the server is repaired, and everything is replayed at the same
time by hand and by a worker that was started on the dead-letter queue.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from celery import chain, chord

from framelane_celery import dead_letters
from framelane_celery.testing import Completed, Failed, FramelaneServer, Outcome, Submission
from tests.faults.attack import ARMED, Scene, by_label, bystander, make_server, make_stack, order, struck
from tests.worker.stacks import ROOT, Stack, Worker, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(300)]

SHAPES = ("alone", "chain", "chord")
KEPT = {"code": "kept", "action": "dead_letter", "keep_waiting": True}


class Repairable:
    """How jobs end: those whose text says so fail, until the server is repaired."""

    def __init__(self) -> None:
        self.is_repaired = False

    def __call__(self, submission: Submission) -> Outcome:
        text = str(submission.body["elements"][0]["text"])
        if self.is_repaired or "good" in text:
            return Completed()
        return Failed("kept" if "kept" in text else "source_unreachable", "no such host")


@dataclass
class Letter:
    """One failing task of the user's, and what stands around it."""

    stack: Stack
    label: str
    shape: str
    is_kept: bool
    id: str = field(default_factory=lambda: str(uuid4()))

    def call(self) -> Letter:
        """``alone``; ``chain``: promo | note; ``chord`` of two, of which one fails."""
        sig = self.stack.sig
        promo = sig("promo", f"{'kept' if self.is_kept else 'plain'} {self.label}").set(task_id=self.id)
        promo.link_error(sig("errback"))
        if self.shape == "chord":
            self.result = chord([promo, sig("framelane.render", GOOD)], sig("ids")).apply_async()
        elif self.shape == "chain":
            self.result = chain(promo, sig("note", tag=self.tag)).apply_async()
        else:
            self.result = promo.apply_async()
        return self

    @property
    def tag(self) -> str:
        return f"after {self.label}"

    def errbacks(self) -> int:
        return sum(note["id"] == self.id for note in self.stack.journal("errback"))

    def tails(self) -> list[str]:
        """The ids under which the plain task after it has run."""
        return [note["id"] for note in self.stack.journal("plain") if note["tag"] == self.tag]

    def chord_error(self) -> str:
        """What the chord that it is a member of has failed with."""
        body = self.stack.app.AsyncResult(self.result.id)  # its parents are not asked
        wait_for(body.ready, what=f"{self.label}: the chord")
        return type(body.result).__name__


GOOD = {"elements": [{"type": "text", "text": "good", "duration": 2}]}


@contextmanager
def stage_of(name: str, folder: Path) -> Iterator[tuple[Stack, FramelaneServer, Repairable]]:
    jobs = Repairable()
    with (
        make_server(outcome=jobs) as server,
        make_stack(name, folder, server, framelane={"routes": [KEPT]}) as stack,
        bystander(stack),
    ):
        yield stack, server, jobs


def dead_letter_worker(stack: Stack) -> Any:
    """A worker that replays what it takes."""
    return stack.worker("-c", "2", *ARMED, queues=f"{stack.namespace}.dead", name="replayer")


def wait_until_letters(letters: list[Letter], timeout_s: float) -> None:
    """All are letters, and announced."""
    stack = letters[0].stack
    expected = {letter.id for letter in letters}

    def all_told() -> bool:
        return expected <= {record.id for record in stack.room.scan("dead")}

    wait_for(all_told, timeout_s, "all announced")


def replay_all(stack: Stack) -> int:
    """Replay every letter that is there. How many replays this call made."""
    new = 0
    for letter in list(dead_letters.letters(stack.room)):
        with suppress(dead_letters.NoSuchLetter):  # somebody else was first
            new += dead_letters.replay(stack.app, letter.id).is_new
    return new


def replay_all_by_command(stack: Stack) -> int:
    """The same by ``celery framelane dead replay --all``."""
    command = ["-m", "celery", "-A", "tests.worker.project", "framelane", "dead", "replay", "--all", "--yes", "--json"]
    environment = {**os.environ, **stack.environment()}
    ran = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert "Traceback" not in ran.stderr, ran.stderr
    return sum(bool(one.get("is_new")) for one in json.loads(ran.stdout or "[]"))


# --- what must hold ----------------------------------------------------------------------------------------------


class Dead(NamedTuple):
    """The letters before anybody replays them."""

    listed: Counter[str]
    until: dict[str, str]
    jobs: dict[str, int]
    messages: int
    states: dict[str, str]
    errbacks: dict[str, int]
    chords: dict[str, str]


def look(letters: list[Letter], server: FramelaneServer) -> Dead:
    stack = letters[0].stack
    made = server.ledger.jobs_per_task()
    return Dead(
        Counter(record.id for record in dead_letters.letters(stack.room)),
        {letter.id: stack.record(letter.id).until for letter in letters},
        {letter.id: len(made[letter.id]) for letter in letters},
        stack.waiting_in(f"{stack.namespace}.dead") or 0,
        {letter.id: stack.app.AsyncResult(letter.id).state for letter in letters},
        {letter.id: letter.errbacks() for letter in letters},
        {letter.id: letter.chord_error() for letter in letters if letter.shape == "chord" and not letter.is_kept},
    )


def check_dead(letters: list[Letter], dead: Dead) -> None:
    """0 missing, none twice; a task has failed, once paid, or its pipeline stands still, and nobody was told."""
    assert dead.listed == Counter(letter.id for letter in letters)
    assert dead.until == {letter.id: "release" if letter.is_kept else "dead" for letter in letters}
    assert dead.jobs == {letter.id: 1 for letter in letters}
    assert dead.messages >= len(letters)  # a kill may announce one twice
    assert dead.states == {letter.id: "PROGRESS" if letter.is_kept else "FAILURE" for letter in letters}
    assert set(dead.chords.values()) <= {"ChordError"}
    for letter in letters:
        assert dead.errbacks[letter.id] == 0 if letter.is_kept else 1 <= dead.errbacks[letter.id] <= 2


class Alive(NamedTuple):
    """What has come of the replays."""

    new_ids: dict[str, str]
    all_jobs: int
    jobs: dict[str, int]
    until: dict[str, str]
    results: dict[str, Any]
    tails: dict[str, int]


def follow(letters: list[Letter], server: FramelaneServer, timeout_s: float) -> Alive:
    """Wait until every replay has ended."""
    stack = letters[0].stack
    new_ids = {letter.id: new_id_of(letter) for letter in letters}
    results = {}
    for letter in letters:
        result = letter.result if letter.is_kept else stack.app.AsyncResult(new_ids[letter.id])
        results[letter.id] = result.get(timeout=timeout_s)
    wait_for(stack.is_idle, 40, "records over")
    wait_for(lambda: all(letter.tails() for letter in letters if letter.shape == "chain"), 40, "all tails")
    made = server.ledger.jobs_per_task()
    ids = {*new_ids, *new_ids.values()}
    return Alive(
        new_ids,
        server.ledger.counts()["jobs"],
        {task_id: len(made.get(task_id, [])) for task_id in ids},
        {task_id: stack.record(task_id).until for task_id in ids},
        results,
        {letter.id: len(set(letter.tails())) for letter in letters},
    )


def new_id_of(letter: Letter) -> str:
    """Under which id a letter was replayed; of a pipeline that was kept, its own."""
    if letter.is_kept:
        return letter.id

    def put_away() -> Any:
        return (letter.stack.record(letter.id).letter or {}).get("replayed_as")

    return str(wait_for(put_away, 60, f"{letter.label} replayed"))


def check_alive(letters: list[Letter], alive: Alive) -> None:
    """Exactly one new job each; a kept pipeline went on from that very step, the others' tails ran again."""
    assert set(alive.until.values()) == {"done"}
    assert alive.all_jobs == 2 * len(letters) + sum(letter.shape == "chord" for letter in letters)
    for letter in letters:
        new_id, result = alive.new_ids[letter.id], alive.results[letter.id]
        assert alive.jobs[letter.id] == (2 if letter.is_kept else 1), letter.label
        if not letter.is_kept:
            assert new_id != letter.id
            assert alive.jobs[new_id] == 1, letter.label
        if letter.shape == "chord" and letter.is_kept:
            assert len(set(result)) == 2
        else:
            assert (result["status"], result["metadata"]["celery_task_id"]) == ("completed", new_id)
        assert alive.tails[letter.id] == (letter.shape == "chain")


# --- each point once ---------------------------------------------------------------------------------------------

OF_RUNS = ("hold:after", "failure:stored", "after_return", "finish:after")
"""In the second run, between stored FAILURE and `after_return`, in it, and between `dead` and the announcement."""

OF_REPLAYS = ("start_replay:after", "create:after", "put_away:after", "replay:before", "replay:after")
"""Of the child that replays: before the new record, between it and the letter's end, around a kept one's going on."""

OF_WATCHERS = {
    "decide:after": (False, True),  # between the verdict and the wake-up; a kept one's verdict is its end
    "announce:after": (False,),
    "announcement:after": (True, False),  # published, and not yet written down as announced
}


class Played(NamedTuple):
    letters: list[Letter]
    dead: Dead
    struck: set[str]
    new: tuple[int, ...]  # how many replays were made by hand, each time
    alive: Alive


def _kill_runs(name: str, folder: Path) -> Played:
    """Children that end a failed task kill themselves; then children that replay do."""
    with stage_of(name, folder) as (stack, server, jobs):
        letters = [
            Letter(stack, f"{point} {shape}", shape, is_kept=False) for point in OF_RUNS for shape in ("chain", "chord")
        ]
        letters += [Letter(stack, f"kept {shape}", shape, is_kept=True) for shape in SHAPES]
        for letter in letters:
            if not letter.is_kept:
                order(stack, letter.label.split()[0], "kill process", letter.id)
        with stack.worker("-c", "4", *ARMED):
            for letter in letters:
                letter.call()
            wait_until_letters(letters, 90)
            dead = look(letters, server)
            jobs.is_repaired = True
            for point in OF_REPLAYS:
                order(stack, point, "kill process")
            with dead_letter_worker(stack):  # alone: so each letter's message was there
                wait_for(lambda: not list(dead_letters.letters(stack.room)), 60, "all replayed by the worker")
                again = [dead_letters.replay(stack.app, letter.id) for letter in letters if not letter.is_kept]
                alive = follow(letters, server, 60)
            points = {note["point"] for note in stack.journal("struck")}
            return Played(letters, dead, points, (sum(one.is_new for one in again),), alive)


def _kill_watchers(name: str, folder: Path) -> Played:
    """The worker is killed in its watcher, and started again; then everything is replayed twice by hand."""
    with stage_of(name, folder) as (stack, server, jobs):
        letters = []
        with stack.worker("-c", "2", *ARMED) as worker:
            for point, kinds in OF_WATCHERS.items():
                for number, is_kept in enumerate(kinds):
                    shape = "chord" if is_kept else "chain"
                    letter = Letter(stack, f"{point} {number}", shape, is_kept)
                    letters.append(letter)
                    order(stack, point, "kill worker", letter.id)
                    letter.call()
                    wait_for(lambda letter=letter: letter.id in struck(stack), 60, letter.label)
                    worker.kill()
                    worker.start()
            wait_until_letters(letters, 100)
            dead = look(letters, server)
            jobs.is_repaired = True
            new = (replay_all(stack), replay_all(stack))
            alive = follow(letters, server, 60)
            points = {note["point"] for note in stack.journal("struck")}
            return Played(letters, dead, points, new, alive)


RUNS = [Scene(f"{name}, runs", _kill_runs, (name,)) for name in ("redis", "rabbitmq")]
WATCHERS = [Scene(f"{name}, watchers", _kill_watchers, (name,)) for name in ("redis", "rabbitmq")]


@pytest.mark.parametrize("battle", RUNS, ids=by_label)
def test_a_run_killed_around_its_letter_loses_and_doubles_nothing(stage: Any, battle: Scene) -> None:
    played: Played = stage.outcome(battle)
    assert played.struck == {*OF_RUNS, *OF_REPLAYS}
    check_dead(played.letters, played.dead)


@pytest.mark.parametrize("battle", RUNS, ids=by_label)
def test_a_replay_killed_anywhere_makes_one_job(stage: Any, battle: Scene) -> None:
    played: Played = stage.outcome(battle)
    assert played.new == (0,)  # by hand, once the worker has replayed them: nothing new
    check_alive(played.letters, played.alive)


@pytest.mark.parametrize("battle", WATCHERS, ids=by_label)
def test_a_watcher_killed_around_a_letter_loses_and_doubles_nothing(stage: Any, battle: Scene) -> None:
    played: Played = stage.outcome(battle)
    assert played.struck == set(OF_WATCHERS)
    check_dead(played.letters, played.dead)
    assert played.new == (len(played.letters), 0)
    check_alive(played.letters, played.alive)


# --- a new child -------------------------------------------------------------------------------------------------


def _fork(name: str, folder: Path) -> list[float]:
    """Letters one after the other, each of them after a child was replaced. How long each was not announced."""
    with stage_of(name, folder) as (stack, _, _), stack.worker("-c", "1") as worker:
        silent_s = []
        for number in range(3):
            letter = Letter(stack, str(number), "alone", is_kept=True).call()
            stack.until(letter.id, "release")
            since = time.monotonic()
            wait_until_letters([letter], 90)
            silent_s.append(time.monotonic() - since)
            before = worker.children()
            os.kill(before[0], signal.SIGKILL)
            wait_for(lambda before=before: worker.children() not in (before, []), what="a new child")
        return silent_s


@pytest.mark.parametrize("scene", [Scene("rabbitmq, fork", _fork, ("rabbitmq",))], ids=by_label)
def test_a_letter_is_announced_at_once_after_a_child_was_replaced(stage: Any, scene: Scene) -> None:
    """A new child closes the AMQP connections that it inherits, and so its parent's."""
    assert max(stage.outcome(scene)) < 25  # the next try would be made after 30 s


# --- 200 of them -------------------------------------------------------------------------------------------------

LETTERS, KILLS = 200, 20
SHOTS = [
    ("hold:after", "kill process"), ("decide:after", "kill worker"), ("failure:stored", "kill process"),
    ("announce:after", "kill worker"), ("finish:after", "kill worker"), ("announcement:after", "kill worker"),
    ("after_return", "kill process"), ("failure:stored", "kill worker"), ("decide:after", "kill worker"),
    ("finish:after", "kill process"),
]  # fmt: skip
OF_A_RUN = {"hold:after", "failure:stored", "after_return", "finish:after"}
"""A pipeline that is kept waiting has no second run."""


def _keep(worker: Worker, over: threading.Event) -> None:
    """Start a worker again whenever it was killed."""
    while not over.wait(0.2):
        if worker.process is not None and worker.process.poll() is not None:
            with suppress(AssertionError):  # killed again while it started
                worker.start()


@contextmanager
def kept_alive(stack: Stack, count: int) -> Iterator[None]:
    over = threading.Event()
    with ExitStack() as opened, ThreadPoolExecutor(count) as pool:
        made = [stack.worker("-c", "3", *ARMED, name=f"w{number}") for number in range(count)]
        workers = list(pool.map(opened.enter_context, made))
        kept = [pool.submit(_keep, worker, over) for worker in workers]
        try:
            yield
        finally:
            over.set()
            for one in kept:
                one.result(120)


def storm(name: str, folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    with stage_of(name, folder) as (stack, server, jobs), kept_alive(stack, 3):
        letters: list[Letter] = []
        for number in range(KILLS):
            letters += _round(stack, number, chance)
        last_shot = time.monotonic()
        wait_until_letters(letters, 150)
        print(f"{name}: all {len(letters)} letters announced {time.monotonic() - last_shot:.0f} s after the last shot")
        dead = look(letters, server)
        check_dead(letters, dead)
        assert len(stack.journal("struck")) == KILLS
        print(f"  {dead.messages} announcements, {sum(dead.errbacks.values())} errbacks of {LETTERS // 2} failed tasks")

        jobs.is_repaired = True
        for point in ("create:after", "put_away:before", "put_away:after", "replay:after"):
            order(stack, point, "kill process")
        with dead_letter_worker(stack), ThreadPoolExecutor(2) as pool:
            wait_for(lambda: _replays_killed(stack) >= 1, what="replays that were killed")
            by_hand = [pool.submit(replay, stack) for replay in (replay_all, replay_all_by_command)]
            new = [one.result(240) for one in by_hand]
            alive = follow(letters, server, 120)
            new.append(replay_all_by_command(stack))
        check_alive(letters, alive)
        assert new[-1] == 0
        print(f"  {new} replays by hand, {LETTERS - sum(new)} by the worker, killed {_replays_killed(stack)} times")


def _round(stack: Stack, number: int, chance: random.Random) -> list[Letter]:
    """Ten failing tasks, and somebody killed at the letter of one of them."""
    point, what = SHOTS[number % len(SHOTS)]
    made = [Letter(stack, f"{number}-{n}", chance.choice(SHAPES), is_kept=n % 2 == 0) for n in range(LETTERS // KILLS)]
    victim = chance.choice([letter for letter in made if not (letter.is_kept and point in OF_A_RUN)])
    order(stack, point, what, victim.id)
    for letter in made:
        letter.call()
    wait_for(lambda: victim.id in struck(stack), 90, f"{point} of {victim.label}")
    return made


def _replays_killed(stack: Stack) -> int:
    return len(stack.journal("struck")) - KILLS


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["redis", "rabbitmq"])
def test_200_letters_under_20_sigkills(tmp_path: Path, name: str) -> None:
    storm(name, tmp_path, seed=4)
