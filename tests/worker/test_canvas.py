"""Every canvas that Celery knows, over jobs: on each transport, with its room."""

from __future__ import annotations

import pytest
from celery import chain, chord

from tests.worker.project import composition
from tests.worker.stacks import Stack

pytestmark = [pytest.mark.worker, pytest.mark.celery55]


def test_a_chain_goes_on_when_the_job_ends(stack: Stack) -> None:
    result = chain(stack.sig("framelane.render", composition()), stack.sig("note", tag="after")).apply_async()
    job = result.get(timeout=20)
    assert job["status"] == "completed"
    assert job["metadata"]["celery_task_id"] == result.parent.id


def test_a_chord_of_20(stack: Stack) -> None:
    body = chord([stack.sig("framelane.render", composition(str(n))) for n in range(20)], stack.sig("ids"))
    assert len(set(body.apply_async().get(timeout=60))) == 20
