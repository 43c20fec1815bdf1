from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from framelane_celery.cli.commands import framelane
from framelane_celery.operations import room_for
from framelane_celery.room import Room
from tests.cli.rooms import fill, make_app


class Shell:
    """`celery -A shop framelane …`, in this process. Standard input is no terminal."""

    def __init__(self, app: Celery) -> None:
        self.app = app

    def run(self, *words: str, input: str | bytes | None = None, exits: int | None = 0) -> Result:
        context = CLIContext(app=self.app, no_color=False, workdir=None)
        result = CliRunner().invoke(framelane, list(words), obj=context, input=input)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert exits in (None, result.exit_code), result.output
        return result

    def json(self, *words: str, exits: int = 0, input: str | bytes | None = None) -> Any:
        return json.loads(self.run(*words, "--json", exits=exits, input=input).stdout)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    with make_app(tmp_path) as app:
        yield app
        room_for(app).close()


@pytest.fixture
def shell(app: Celery) -> Shell:
    return Shell(app)


@pytest.fixture
def room(app: Celery) -> Room:
    """The app's room, with one record in each state."""
    room = room_for(app)
    fill(room)
    return room
