"""The stage: scenes of all modules, each with a server, a stack and workers of its own, played at the same time.

A scene mostly waits: for a lease to end, for the lead, for a lost message's turn. So they share the time, and their
tests look at what came of them. What measures time, or shoots at random, has the machine for itself and is no scene.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.faults.attack import Scene

AT_ONCE = 8


class Stage:
    def __init__(self, folder: Path, scenes: list[Scene]) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._played: dict[Scene, Future[Any]] = {}
        for number, scene in enumerate(scenes):
            place = folder / str(number)
            place.mkdir()
            self._played[scene] = self._pool.submit(scene.play, *scene.arguments, place)

    def outcome(self, scene: Scene) -> Any:
        """What a scene came to; waits for it."""
        return self._played[scene].result(timeout=580)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def scenes_of(item: pytest.Item) -> list[Scene]:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return [value for value in params.values() if isinstance(value, Scene)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of scenes come last here, so that the others have the machine for themselves."""
    here = Path(__file__).parent
    places = [place for place, item in enumerate(items) if item.path.parent == here]
    ordered = sorted((items[place] for place in places), key=lambda item: bool(scenes_of(item)))
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Plays the scenes that the collected tests ask for."""
    wanted = dict.fromkeys(scene for item in request.session.items for scene in scenes_of(item))
    stage = Stage(tmp_path_factory.mktemp("stage"), list(wanted))
    yield stage
    stage.close()
