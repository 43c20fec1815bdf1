"""What a gathered task returns when it has failed, and the mark that has it do so.

In Celery a chord fails as a whole when one task of its header does. So the tasks of a `gather` carry a mark in a header
of their messages, which travels with saved calls, retries and replacements. A task with the mark whose failure is final
*returns* it, as a plain JSON value in place of a result, and for Celery the chord goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery import signals
from pydantic import BaseModel, ConfigDict

from framelane_celery.errors import FramelaneError, JobCancelled, JobTimedOut, clean_text
from framelane_celery.tasks.jobs import failure_of_refusal

if TYPE_CHECKING:
    from celery.app.task import Context

GATHERED: Final = "framelane_gathered"
"""The header of the mark. One of its own: `framelane` is set anew with each message, every other header is kept. And
the option that brings it back: headers that are given with the call of a canvas replace those of its signatures."""


class TaskFailure(BaseModel):
    """What stands in a gathered list in place of a result: ``{"failed": {"code": …, "message": …, …}}``.

    ``code`` is what the routes have decided by; ``job_id`` is None where no job was made; ``task_id`` and ``task`` tell
    which task has failed, and so its dead letter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    message: str
    job_id: str | None
    task_id: str
    task: str

    @classmethod
    def of(cls, item: object) -> TaskFailure | None:
        """The failure that an item of the list is; None: it is a result."""
        told = item.get("failed") if isinstance(item, Mapping) and len(item) == 1 else None
        return cls(**told) if isinstance(told, Mapping) and told.keys() == cls.model_fields.keys() else None

    def to_json(self) -> dict[str, Any]:
        return {"failed": self.model_dump()}


class Gathered(NamedTuple):
    """A gathered list, split; each half in the list's order."""

    finished: list[Any]
    failed: list[TaskFailure]

    @classmethod
    def of(cls, items: Iterable[Any]) -> Gathered:
        """Split what the body of a `gather` got."""
        seen = [(item, TaskFailure.of(item)) for item in items]
        return cls([item for item, failure in seen if failure is None], [failure for _, failure in seen if failure])


# --- in a task's run ---------------------------------------------------------------------------------------------


def is_marked(request: Context) -> bool:
    """Whether somebody gathers what becomes of this task."""
    return bool(request.get(GATHERED) or (request.headers or {}).get(GATHERED))


def mark(canvas: Any) -> None:
    """Put the mark on a task's signature, or on each task of a chain."""
    for step in steps_of(canvas):
        step.set(headers={**(step.options.get("headers") or {}), GATHERED: True}, **{GATHERED: True})


def steps_of(canvas: Any) -> list[Any]:
    """The tasks of a chain; else the canvas itself."""
    return list(canvas.tasks) if canvas.get("subtask_type") == "chain" else [canvas]


def deaf_step(canvas: Any) -> Any:
    """The first one that takes nothing of the step before (`.si`), and so would run, and be paid for, after a failure;
    None: all pass a failure on."""
    return next((step for step in steps_of(canvas)[1:] if step.immutable), None)


def with_mark(options: dict[str, Any]) -> dict[str, Any]:
    """A call's options with the option of the mark as its header."""
    if not options.pop(GATHERED, False):
        return options
    return {**options, "headers": {**(options.get("headers") or {}), GATHERED: True}}


@signals.before_task_publish.connect(dispatch_uid=GATHERED)
def _into_the_header(headers: MutableMapping[str, Any], properties: MutableMapping[str, Any], **_: Any) -> None:
    """Of a call by name, and of a plain task's: kombu knows no such option."""
    if properties.pop(GATHERED, False):
        headers[GATHERED] = True


def unmarked(headers: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (headers or {}).items() if name != GATHERED}


def failure_value(request: Context, error: FramelaneError) -> dict[str, Any]:
    """What a gathered task returns in place of raising this error."""
    return TaskFailure(
        code=_code_of(error),
        message=clean_text(str(error)),
        job_id=getattr(error, "job_id", None),
        task_id=request.id,
        task=request.task,
    ).to_json()


def _code_of(error: FramelaneError) -> str:
    if isinstance(error, JobCancelled):
        return "cancelled"
    if isinstance(error, JobTimedOut):
        return "timed_out"
    return failure_of_refusal(error)["code"] or "unknown"


def passed_on(request: Context) -> dict[str, Any] | None:
    """The failure of the step before, if this task was given one and so has nothing to do."""
    first = next(iter(request.args or ()), None)
    return first if isinstance(first, dict) and is_marked(request) and TaskFailure.of(first) else None
