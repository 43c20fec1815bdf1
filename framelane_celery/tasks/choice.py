"""Which account a task runs on: the option ``framelane_account``, else the task's own, else its source's.

The choice is kept in the record. A message that goes out before there is one, or without one, carries it in its header.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from celery import current_app, signals
from kombu.utils.functional import maybe_list

from framelane_celery import wakeups
from framelane_celery.accounts import DEFAULT

if TYPE_CHECKING:
    from celery import Celery, Task
    from celery.app.task import Context

OPTION: Final = "framelane_account"


def chosen(task: Task, options: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """The account that a call names, or its task, or the finished job that it gets; None: none of them does."""
    named = options.get(OPTION) or wakeups.account_in(options.get("headers")) or getattr(task, OPTION, None)
    return str(named) if named else account_of_source(args, kwargs)


def chosen_by_message(task: Task, request: Context, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The account of a run that has no record."""
    headers = {wakeups.HEADER: wakeups.header_in(request)}
    return chosen(task, {"headers": headers}, args, kwargs) or DEFAULT


def account_of_source(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """That of the job given first, or by name; of several jobs in a list, the one that they all have."""
    for value in (*args[:1], *kwargs.values()):
        if accounts := set(_accounts_in(value)):
            return accounts.pop() if len(accounts) == 1 else None
    return None


def _accounts_in(value: Any) -> Iterator[str | None]:
    for one in value if isinstance(value, (list, tuple)) else (value,):
        if is_job(one):
            yield one.get(OPTION)


def is_job(value: Any) -> bool:
    """Whether a value is a job as a previous step returned it, rather than a request."""
    return isinstance(value, Mapping) and "id" in value and "status" in value and "kind" in value


def chosen_later(app: Celery, options: Mapping[str, Any]) -> Iterator[str]:
    """The accounts that the steps after a call name: its chain's, its links' and errbacks', its chord's body."""
    steps = [step for name in ("chain", "link", "link_error", "chord") for step in maybe_list(options.get(name)) or ()]
    for step in steps:
        if isinstance(step, Mapping):
            yield from _chosen_in(app, step)


def _chosen_in(app: Celery, step: Mapping[str, Any]) -> Iterator[str]:
    """Those that a signature names, or what is in it if it is a canvas."""
    options, kwargs = step.get("options") or {}, step.get("kwargs") or {}
    named = options.get(OPTION) or wakeups.account_in(options.get("headers"))
    task = str(step.get("task"))
    if named and task in app.tasks and _has_account(app, task):  # what is somebody else's may have accounts of its own
        yield str(named)
    yield from chosen_later(app, options)
    if step.get("subtask_type"):
        parts = [part for name in ("tasks", "header", "body") for part in maybe_list(kwargs.get(name)) or ()]
        for part in parts:
            if isinstance(part, Mapping):
                yield from _chosen_in(app, part)


def _has_account(app: Celery, task: str) -> bool:
    """Whether a task may have one: a plain task has none, whatever a group or a chain hands it on."""
    return task not in app.tasks or hasattr(app.tasks[task], OPTION)


@signals.before_task_publish.connect(dispatch_uid="framelane_account")
def _into_the_header(
    sender: str, headers: MutableMapping[str, Any], properties: MutableMapping[str, Any], **_: Any
) -> None:
    """Of a call by name (`send_task`, or a canvas in a process that does not know the task): kombu knows no such
    option."""
    named = properties.pop(OPTION, None)
    if named and _has_account(current_app, sender):
        headers[wakeups.HEADER] = {"step": 0, **(headers.get(wakeups.HEADER) or {}), "account": str(named)}
