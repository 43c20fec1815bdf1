"""What a pool process tells of a run that ended with an exception is short enough to be read at once."""

from __future__ import annotations

import pickle
import select
import sys
from typing import Any

import pytest
from celery import Celery
from celery.app.trace import build_tracer
from celery.exceptions import Ignore, Reject

from framelane_celery.watching.brief import shorten


def said(error: Exception | None, *, is_shortened: bool) -> tuple[Any, int]:
    """What a task's run comes to, and the bytes that a process would send of it."""
    with Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False) as app:

        @app.task(name="one", shared=False)
        def one() -> int:
            if error is not None:
                raise error
            return 3

        task = app.tasks["one"]
        task.__trace__ = build_tracer(task.name, task, app.loader, "here", app=app)
        if is_shortened:
            shorten(app, task, "here")
        answer = task.__trace__("id", (), {}, {"id": "id", "is_eager": False, "delivery_info": {}})
        return answer, len(pickle.dumps((2, (1, 0, (True, (1, answer[0], answer[2])), 12))))


@pytest.mark.parametrize("error", [Ignore("waiting for job render_1"), Reject("the room is away", requeue=True)])
def test_an_ignored_run_is_told_in_one_piece(error: Exception) -> None:
    answer, size = said(error, is_shortened=True)
    assert size < select.PIPE_BUF
    assert answer[0].exception.exc is error
    assert isinstance(pickle.loads(pickle.dumps(answer[0])).exception, type(error))  # which is all that is looked at


@pytest.mark.skipif(sys.version_info < (3, 11), reason="frames have no positions there")
def test_without_that_it_is_not() -> None:
    """If this fails, Celery has mended it: then ours is not needed any more."""
    assert said(Ignore("waiting for job render_1"), is_shortened=False)[1] > 4 * select.PIPE_BUF


def test_a_failure_is_told_in_one_piece_with_its_text() -> None:
    answer, size = said(ValueError("wrong"), is_shortened=True)
    assert size < select.PIPE_BUF
    assert "ValueError: wrong" in answer[0].traceback
    assert isinstance(answer[0].exception, ValueError)


def test_a_result_is_told_as_ever() -> None:
    assert said(None, is_shortened=True)[0][0] == 3


@pytest.mark.skipif(sys.version_info < (3, 11), reason="an exception's traceback is not the one that is handled there")
def test_of_an_ignored_run_no_traceback_is_made() -> None:
    """Two of Celery's own tracer's frames would each take half a millisecond."""
    answer, _ = said(Ignore("waiting for job render_1"), is_shortened=True)
    assert "trace_task" not in answer[0].traceback
    assert "Ignore: waiting for job render_1" in answer[0].traceback
