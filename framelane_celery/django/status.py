"""How a task goes, for whoever waits for it: from the result backend, else from the room's record.

Nothing here but states, numbers and codes: no arguments, no message, and the output's URL only where it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery import states
from celery.backends.base import DisabledBackend

from framelane_celery.errors import FramelaneError, clean_text
from framelane_celery.monitoring import PROGRESS, progress_meta
from framelane_celery.operations import NoSuchTask, find
from framelane_celery.waits import wait_of

if TYPE_CHECKING:
    from celery import Celery

    from framelane_celery.records import Record

ENDED: Final = "ENDED"
"""It is over; how it ended the record does not remember, and the result backend does not know (any more)."""

_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")


class ResultBackendAway(FramelaneError):
    """The result backend did not answer."""


class Status(NamedTuple):
    """What a page shows of a task."""

    task_id: str
    state: str
    """Celery's, PROGRESS, or ENDED."""
    percent: int = 0
    stage: str | None = None
    description: str | None = None
    """One line for a person: what it waits for."""
    code: str | None = None
    """Why it failed, or waits."""
    result: dict[str, Any] | None = None
    """{"output": {"url": …}}, if it was asked for."""

    def to_json(self) -> dict[str, Any]:
        known = {**self._asdict(), "is_over": self.state in (*states.READY_STATES, ENDED)}
        return known if self.result is not None else {key: known[key] for key in known if key != "result"}


def status_of(app: Celery, task_id: str, *, with_result: bool = False) -> Status | None:
    """How a task goes; None: neither the result backend nor the room knows it.

    Raises: RoomError, SettingsError; ResultBackendAway.
    """
    state, value = _stored(app, task_id)
    if state == PROGRESS and isinstance(value, Mapping):
        return _in_progress(task_id, value)
    if state in states.READY_STATES:
        return _over(task_id, state, value, with_result)
    if state != states.PENDING:  # STARTED, RETRY, or a state of the project's own
        return Status(task_id, state)
    try:
        return _of_record(find(app, task_id))
    except NoSuchTask:
        return None


def _stored(app: Celery, task_id: str) -> tuple[str, Any]:
    """State and result in one read; PENDING is what Celery says of an id that it does not know."""
    try:
        backend = app.backend  # some connect when they are made
        meta = {} if isinstance(backend, DisabledBackend) else backend.get_task_meta(task_id)
    except Exception as error:  # no two backends raise the same when they are away
        why = clean_text(f"{type(error).__name__}: {error}")
        raise ResultBackendAway(f"the result backend is away: {why}") from error
    return str(meta.get("status") or states.PENDING), meta.get("result")


def _in_progress(task_id: str, meta: Mapping[str, Any]) -> Status:
    percent = meta.get("percent")
    percent = min(100, max(0, percent)) if isinstance(percent, int) else 0
    return Status(task_id, PROGRESS, percent, _line(meta.get("stage")), _line(meta.get("description")))


def _over(task_id: str, state: str, value: Any, with_result: bool) -> Status:
    if state != states.SUCCESS:
        return Status(task_id, state, code=_code(getattr(value, "code", None)))
    output = value.get("output") if isinstance(value, Mapping) else None
    url = output.get("url") if isinstance(output, Mapping) else None
    result = {"output": {"url": url}} if with_result and isinstance(url, str) else None
    return Status(task_id, state, 100, result=result)


def _of_record(record: Record) -> Status:
    """What the record says: its result was never stored, is not yet, or has faded."""
    code = _code((record.failure or {}).get("code"))
    if wait_of(record, 0.0) is not None:
        meta = progress_meta(record)
        state = PROGRESS if record.begun or record.until != "start" else states.PENDING
        return _in_progress(record.id, meta)._replace(state=state, code=code)
    if record.ending:
        return Status(record.id, states.REVOKED, code=code)
    if record.until == "done" and record.outcome in (None, "completed") and code is None:
        return Status(record.id, states.SUCCESS, 100) if record.outcome else Status(record.id, ENDED)
    return Status(record.id, states.FAILURE, code=code or record.outcome)


def _line(text: Any) -> str | None:
    return clean_text(text, 100) if isinstance(text, str) and text else None


def _code(value: Any) -> str | None:
    return value if isinstance(value, str) and _CODE.fullmatch(value) else None
