"""The stage of the short forms: the one of the faults' tests, for scenes of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from kombu import pools

from tests.faults.attack import Scene
from tests.faults.conftest import Stage


class Short(NamedTuple):
    """A scene of ours. Not a `Scene` itself: the stage of the faults' own tests would play it too."""

    scene: Scene


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Plays the short forms that the collected tests ask for, at the same time."""
    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    wanted = dict.fromkeys(value.scene for one in params for value in one.values() if isinstance(value, Short))
    stage = Stage(tmp_path_factory.mktemp("suite"), list(wanted))
    yield stage
    stage.close()
    pools.reset()
