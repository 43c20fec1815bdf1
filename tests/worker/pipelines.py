"""The four shapes in which a task of ours stands, counted; and scenes, which share the time that they mostly wait."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from celery import chain, chord

from framelane_celery.testing import FramelaneServer
from tests.faults.attack import close_backend
from tests.faults.proxy import Proxy
from tests.worker.stacks import Stack, wait_for

POLL_S = 0.15
"""How often something is looked for that many look for at the same time."""

# --- shapes ------------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """What has come of four shapes: of the task, of what comes after it, and how often each of that has run."""

    until: list[str]
    states: list[str]
    after: dict[str, int]


class Pipes:
    """One task, four times: alone, in a chain, in a chord and with ``link`` and ``link_error``."""

    def __init__(self, stack: Stack, label: str, make: Callable[[], Any]) -> None:
        self.stack, self.label = stack, label
        sig = stack.sig
        linked = make()
        linked.link(sig("note", tag=f"{label} link"))
        linked.link_error(sig("told"))
        body = sig("ids")
        body.link_error(sig("told"))
        self.alone = make().apply_async()
        self.chain = chain(make(), sig("note", tag=f"{label} tail")).apply_async()
        self.chord = chord([make(), sig("note", {"id": label}, tag="member")], body).apply_async()
        self.linked = linked.apply_async()
        self.ours = [self.alone, self.chain.parent, self.chord.parent.children[0], self.linked]

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.ours]

    def records(self) -> list[Any]:
        return [self.stack.record(task_id) for task_id in self.ids]

    def wait_until(self, *states: str) -> Pipes:
        """All four records wait for one of these."""
        wait_for(
            lambda: all(record is not None and record.until in states for record in self.records()),
            what=f"{self.label} until {states}",
            every_s=POLL_S,
        )
        return self

    def wait_for_ends(self) -> Pipes:
        """Wait for what comes after the records' ends, which is published before them, and may come later."""
        wait_for(lambda: all(one.ready() for one in self.ours), every_s=POLL_S)
        wanted = {"told", "body told"} if self.linked.state == "FAILURE" else {"tail", "link", "body"}
        wait_for(lambda: all(self._after()[name] for name in wanted), what=f"{self.label}: {wanted}", every_s=POLL_S)
        wait_for(lambda: self.chord.ready(), what=f"{self.label}: the chord", every_s=POLL_S)
        return self

    def seen(self) -> Seen:
        return Seen([record.until for record in self.records()], [one.state for one in self.ours], self._after())

    def _after(self) -> dict[str, int]:
        notes = self.stack.journal()

        def ran(event: str, **fields: Any) -> int:
            return sum(n["event"] == event and all(n[name] == value for name, value in fields.items()) for n in notes)

        return {
            "tail": ran("plain", tag=f"{self.label} tail"),
            "link": ran("plain", tag=f"{self.label} link"),
            "body": ran("body", id=self.chord.id),
            "told": ran("told", id=self.linked.id),
            "body told": ran("told", id=self.chord.id),
        }


NOTHING_YET = {"tail": 0, "link": 0, "body": 0, "told": 0, "body told": 0}
WENT_ON = {"tail": 1, "link": 1, "body": 1, "told": 0, "body told": 0}
FAILED = {"tail": 0, "link": 0, "body": 0, "told": 1, "body told": 1}


# --- scenes ------------------------------------------------------------------------------------------------------


class Scene(NamedTuple):
    """Something that happens on a stage of its own. ``play`` gets what closes with the module, a folder, arguments."""

    label: str
    play: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


def by_label(scene: Scene) -> str:
    return scene.label


AT_ONCE = 6


class Stage:
    """Plays scenes at the same time. What they have opened stays open until the stage is closed."""

    def __init__(self, folder: Path, scenes: list[Scene]) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._opened = [ExitStack() for _ in scenes]
        self._played: dict[Scene, Future[Any]] = {}
        for number, (scene, opened) in enumerate(zip(scenes, self._opened, strict=True)):
            place = folder / str(number)
            place.mkdir()
            self._played[scene] = self._pool.submit(scene.play, opened, place, *scene.arguments)

    def outcome(self, scene: Scene) -> Any:
        """What a scene came to; waits for it."""
        return self._played[scene].result(timeout=280)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(ExitStack.close, self._opened))


@contextmanager
def playing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The stage of a module, on which the scenes begin that its collected tests ask for."""
    items = [item for item in request.session.items if item.module is request.module]  # type: ignore[attr-defined]
    params = [value for item in items if hasattr(item, "callspec") for value in item.callspec.params.values()]
    folder = tmp_path_factory.mktemp("stage")
    stage = Stage(folder, list(dict.fromkeys(value for value in params if isinstance(value, Scene))))
    try:
        yield stage
    finally:
        stage.close()
        shutil.rmtree(folder, ignore_errors=True)


def opened_stack(opened: ExitStack, name: str, folder: Path, server: FramelaneServer | str, **settings: Any) -> Stack:
    """A stack that closes with its scene; without pacing. ``server``: one that runs, or the URL of one that will."""
    url = server if isinstance(server, str) else server.base_url
    settings["framelane"] = {"renders_per_minute": 10000, "media_tasks_per_minute": 10000, **settings["framelane"]}
    stack = Stack(name, folder, url, **settings)
    stack.app.conf.result_backend_thread_safe = True  # one for the scene, its test and who closes it
    opened.callback(stack.close)
    opened.callback(close_backend, stack)
    return stack


def through(url: str, opened: ExitStack) -> tuple[str, Proxy]:
    """A URL that leads to the same service through a proxy."""
    parts = urlsplit(url)
    port = parts.port or {"redis": 6379, "amqp": 5672}[parts.scheme]
    proxy = opened.enter_context(Proxy(parts.hostname or "127.0.0.1", port))
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return parts._replace(netloc=f"{user}127.0.0.1:{proxy.port}").geturl(), proxy
