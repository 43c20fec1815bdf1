"""What the attacks share: orders to die, canvases that are counted, and what must hold afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from celery import chain, chord

from framelane_celery.testing import Completed, Failed, FramelaneServer, Never, Outcome, Submission
from tests.worker.project import composition
from tests.worker.stacks import Stack, Worker, wait_for


class Scene(NamedTuple):
    """Something that happens on a stage of its own; `tests/faults/conftest.py` plays it. The folder comes last."""

    label: str
    play: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


def by_label(scene: Scene) -> str:
    return scene.label


ARMED = ("-I", "tests.faults.points")
"""Options of a worker that dies where it is told to."""


def outcome_of(submission: Submission) -> Outcome:
    """Jobs whose text says so fail, or end only when a test says so."""
    elements = submission.body.get("elements") or [{}]
    text = str(elements[0].get("text"))
    if "held" in text:
        return Never()
    return Failed("source_unreachable", "no such host") if "fails" in text else Completed()


@contextmanager
def make_server(**options: Any) -> Iterator[FramelaneServer]:
    """A server without limits, whose jobs are short and fail when they are told to."""
    settings: dict[str, Any] = {
        "job_seconds": 0.3, "renders_per_minute": None, "tasks_per_minute": None, "outcome": outcome_of, **options
    }  # fmt: skip
    with FramelaneServer(**settings) as server:
        yield server


@contextmanager
def make_stack(name: str, folder: Path, server: FramelaneServer, **settings: Any) -> Iterator[Stack]:
    """A stack without pacing; plain tasks have a queue of their own, so that each can be counted."""
    framelane = {"renders_per_minute": 10000, "media_tasks_per_minute": 10000, **settings.pop("framelane", {})}
    stack = Stack(name, folder, server.base_url, framelane=framelane, **settings)
    plain = {f"tests.worker.project.{task}": {"queue": f"{stack.queue}-plain"} for task in ("note", "ids", "errback")}
    stack.celery["task_routes"] = {**stack.celery["task_routes"], **plain}
    stack.app.conf.task_routes = stack.celery["task_routes"]
    stack.more_queues += [f"{stack.queue}-plain", f"{stack.queue}-plain.retry"]
    os.environ["TEST_JOURNAL"] = str(stack.journal_file)
    try:
        yield stack
    finally:
        close_backend(stack)
        stack.close()


def close_backend(stack: Stack) -> None:
    """Let go of the connections over which this process has read results."""
    backend = stack.app.backend
    with suppress(AttributeError):
        backend.result_consumer.stop()
        backend.result_consumer._pubsub = None  # else the last AsyncResult to go opens a new connection
    with suppress(AttributeError):
        backend.client.connection_pool.disconnect()


def bystander(stack: Stack) -> Any:
    """A worker of the plain queue, which nobody kills and which watches nothing."""
    import json

    settings = json.dumps({**stack.framelane, "watcher": False})
    return stack.worker("-c", "1", "-Q", f"{stack.queue}-plain", name="bystander", TEST_FRAMELANE=settings)


def order(stack: Stack, point: str, what: str, task_id: str | None = None) -> None:
    """Have whoever reaches a point (for this task) do what is said: see tests/faults/points.py."""
    name = f"at-{point}@{task_id}" if task_id else f"at-{point}"
    draft = stack.folder / f"draft-{uuid4().hex}"
    draft.write_text(what)
    draft.rename(stack.folder / name)


def struck(stack: Stack) -> set[str]:
    """The ids of the tasks whose orders were carried out."""
    return {note["id"] for note in stack.journal("struck")}


class End(NamedTuple):
    """What came of a piece: its own record, the whole's result, the jobs paid and the plain tasks that ran."""

    is_struck: bool
    until: str
    state: str
    error: Any
    result: Any
    tail_id: str
    jobs: list[int]
    is_same: bool
    plain: list[int]
    plain_ids: int
    errbacks: int


@dataclass
class Piece:
    """One canvas under attack: a task of the user's, a job of ours after it, and plain tasks."""

    stack: Stack
    label: str
    kind: str = "chain"
    id: str = field(default_factory=lambda: str(uuid4()))
    tail_id: str = field(default_factory=lambda: str(uuid4()))

    def call(self) -> Piece:
        """Send it. ``chain``: promo | transcribe | note, with a link; ``chord`` of two; ``failing``, ``held``."""
        sig = self.stack.sig
        promo = sig("promo", {"failing": "fails", "held": "held"}.get(self.kind, "hello")).set(task_id=self.id)
        promo.link(sig("note", tag=f"link {self.label}"))
        promo.link_error(sig("errback"))
        tail = sig("framelane.transcribe").set(task_id=self.tail_id)
        if self.kind == "chord":
            other = sig("framelane.render", composition())
            self.result = chord([promo, other], sig("ids")).apply_async()
        else:
            self.result = chain(promo, tail, sig("note", tag=f"after {self.label}")).apply_async()
        return self

    def is_over(self) -> bool:
        if self.kind == "failing":
            return bool(self.stack.app.AsyncResult(self.id).ready() and self._errbacks())
        if self.kind == "revoked":
            record = self.stack.record(self.id)
            return record is not None and bool(record.is_over)
        return bool(self.result.ready())

    def told(self) -> str:
        """Where it stands, for whoever reads why a test failed."""
        record, state = self.stack.record(self.id), self.stack.app.AsyncResult(self.id).state
        return f"{self.label}: {state}, {self._errbacks()} errbacks, until {record and record.until}: {record}"

    def _errbacks(self) -> int:
        return sum(note["id"] == self.id for note in self.stack.journal("errback"))

    def plain(self, which: str) -> list[str]:
        """The ids under which a plain task of the tail has run."""
        return [note["id"] for note in self.stack.journal("plain") if note["tag"] == f"{which} {self.label}"]

    def jobs(self, server: FramelaneServer) -> list[int]:
        """How many jobs were paid for the task, and for the job after it."""
        made = server.ledger.jobs_per_task()
        return [len(made.get(task_id, [])) for task_id in (self.id, self.tail_id)]

    def end(self, server: FramelaneServer) -> End:
        """What came of it."""
        own = self.stack.app.AsyncResult(self.id)
        return End(
            is_struck=bool({self.id, self.tail_id} & struck(self.stack)),
            until=self.stack.record(self.id).until,
            state=own.state,
            error=own.result if own.failed() else None,
            result=None if self.kind in ("failing", "revoked") else self.result.get(timeout=20),
            tail_id=self.tail_id,
            jobs=self.jobs(server),
            is_same=same_bytes(server)(self.id),
            plain=[len(self.plain("link")), len(self.plain("after"))],
            plain_ids=len(set(self.plain("link"))),
            errbacks=self._errbacks(),
        )


def wait_until_over(pieces: list[Piece], timeout_s: float) -> None:
    """All pieces have ended, and their records too."""

    left: list[str] = []  # of this scene: others are played at the same time

    def all_over() -> bool:
        left[:] = [piece.label for piece in pieces if not piece.is_over()]
        return not left

    try:
        wait_for(all_over, timeout_s)
    except AssertionError as error:
        told = [piece.told() for piece in pieces if piece.label in left]
        raise AssertionError(f"not over within {timeout_s} s: {told}") from error
    wait_for(pieces[0].stack.is_idle, 100, "records over")


@contextmanager
def workers(*made: Any) -> Iterator[list[Worker]]:
    with ExitStack() as stack:
        yield [stack.enter_context(each) for each in made]


def pieces_of(stack: Stack, points: dict[str, str], what: str, label: str) -> list[Piece]:
    """A piece for each point, ordered to die there, and sent. Kind "tail": the point is one of the tail's own."""
    pieces = []
    for point, kind in points.items():
        piece = Piece(stack, f"{label} {point}", kind)
        order(stack, point, what, piece.tail_id if kind == "tail" else piece.id)
        pieces.append(piece)
    return [piece.call() for piece in pieces]


def posts_of(server: FramelaneServer) -> dict[str, list[tuple[str | None, bytes]]]:
    """Key and bytes of every POST by task, without those that a killed client has left unfinished."""
    posts: dict[str, list[tuple[str | None, bytes]]] = {}
    for entry in server.ledger.posts():
        with suppress(ValueError):
            task_id = (entry.json().get("metadata") or {}).get("celery_task_id")
            posts.setdefault(task_id, []).append((entry.idempotency_key, entry.body))
    return posts


def same_bytes(server: FramelaneServer) -> Callable[[str], bool]:
    """Whether every POST of a task carried the same key and the same bytes."""
    posts = posts_of(server)
    return lambda task_id: len(set(posts[task_id])) == 1
