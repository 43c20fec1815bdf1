"""The saved call of a task, and the messages made of it.

A wake-up is a plain Celery message of the task, with the task's own id, options and canvas, and one header of ours:
``framelane: {"step": n}``; the first one names the account too. It carries nothing that the record does not know.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

from kombu.utils.functional import maybe_list
from kombu.utils.json import dumps, loads

from framelane_celery.errors import InvalidArguments
from framelane_celery.monitoring import shown_args, shown_kwargs, tracing
from framelane_celery.queues import declared
from framelane_celery.records import Record

if TYPE_CHECKING:
    from celery import Celery, Task
    from celery.app.task import Context
    from celery.result import AsyncResult

HEADER: Final = "framelane"

ON_A_LIVE_CONNECTION: Final = {"retry": True}
"""For what the watcher publishes, whatever `task_publish_retry` says. On AMQP each child that is forked later closes
the connections that it inherits, and so those of its parent: only a try that may be repeated opens another one."""

REPLAY: Final = "framelane.replay"
"""The task that a letter's message names."""

_NOT_SAVED: Final = frozenset(
    {
        # objects and plumbing of one publication
        "producer", "publisher", "connection", "router", "result_cls", "task_type", "route_name", "add_to_parent",
        "retry", "retry_policy", "mandatory", "immediate",
        # given anew with each message, or kept in the record
        "task_id", "countdown", "eta", "expires", "redelivered",
    }
)  # fmt: skip

_digested: Final = json.JSONEncoder(sort_keys=True, default=str).encode  # made once: json.dumps makes one each time


class Call(NamedTuple):
    """A Celery signature, whole: what it takes to publish the task again exactly as it was called."""

    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any]

    def __repr__(self) -> str:
        return f"Call({self.task!r}, …)"  # its arguments are nobody's business

    def to_text(self) -> str:
        return str(dumps(self._asdict()))

    @classmethod
    def from_text(cls, text: str) -> Call:
        return cls(**loads(text))


def call_of(task: Task, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> Call:
    """Save a call; see `call_text_of`, which is its text."""
    return Call.from_text(call_text_of(task, args, kwargs, options))


def call_text_of(task: Task, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Save a call as ``apply_async`` got it: JSON only, with the ids of links and errbacks frozen on a copy.

    Raises: InvalidArguments, if something in it is not JSON.
    """
    kept = {name: value for name, value in options.items() if name not in _NOT_SAVED and value is not None}
    for name in ("queue", "exchange"):
        if hasattr(kept.get(name), "name"):
            kept[name] = kept[name].name
    for name in ("link", "link_error"):
        if name in kept:
            kept[name] = maybe_list(kept[name])
    kept["headers"] = {name: value for name, value in (kept.get("headers") or {}).items() if name != HEADER}
    try:
        text = Call(task.name, list(args), dict(kwargs), kept).to_text()
    except (TypeError, ValueError) as error:
        raise InvalidArguments(
            f"{task.name}: an argument or option is not JSON: {error}. Pass plain values: ids, numbers, strings, "
            "lists, dicts, or a request model of framelane_celery",
            None,
        ) from error
    links = [name for name in ("link", "link_error") if name in kept]
    if not links:
        return text
    call = Call.from_text(text)
    for name in links:
        for signature in call.options[name] or ():
            _freeze_ids(signature)
    return call.to_text()


def call_of_request(task: Task, request: Context) -> Call:
    """Save the call that a message brought: for a task that was published without a record."""
    options = dict(task.signature_from_request(request).options)
    options["ignore_result"] = request.ignore_result  # Celery 5.5 loses it
    options["argsrepr"], options["kwargsrepr"] = request.get("argsrepr"), request.get("kwargsrepr")
    if str(options.get("exchange", "")).startswith("celery_delayed"):  # a native delay is over: the plain route again
        del options["exchange"]
        options.pop("routing_key", None)
    return call_of(task, request.args or (), request.kwargs or {}, options)


def shown(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, str]:
    """The options by which Flower and the log show arguments: no request body, no signed URL."""
    return {"argsrepr": shown_args(args), "kwargsrepr": shown_kwargs(kwargs)}


def digest_of(call: Call) -> str:
    """What tells whether the same task id is the same piece of work: the task's name and its arguments."""
    return hashlib.sha256(_digested([call.task, [call.args, call.kwargs]]).encode()).hexdigest()


def chord_of(options: Mapping[str, Any]) -> str | None:
    """The chord that counts a call with these options, or the end of its chain, by its group and its body's task id;
    None: no chord does. (A chord that is called twice may keep its group's id and give its body another one.)"""
    steps = [options, *(step.get("options") or {} for step in options.get("chain") or ())]
    for step in steps:
        if body := step.get("chord"):
            return f"{step.get('group_id')} {(body.get('options') or {}).get('task_id')}"
    return None


def _freeze_ids(signature: dict[str, Any]) -> None:
    """Give a saved signature, and all in it, the ids that Celery would else make anew with each publication."""
    signature["options"].setdefault("task_id", str(uuid4()))
    kwargs = signature.get("kwargs") or {}
    for name in ("tasks", "header", "body"):
        inner = kwargs.get(name)
        if signature.get("subtask_type") in ("chain", "group", "chord") and inner:
            for part in [inner] if isinstance(inner, dict) else inner:
                _freeze_ids(part)


def instant_of(app: Celery, value: float | str | datetime | None) -> float | None:
    """``expires``, ``eta`` or a countdown as epoch seconds; None stays None."""
    if value is None:
        return None
    if isinstance(value, (int, float)):
        return time.time() + value
    if isinstance(value, str):
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    if value.tzinfo is None:
        value = value.replace(tzinfo=app.timezone if not app.conf.enable_utc else timezone.utc)
    return value.timestamp()


def header_for(step: int, headers: Mapping[str, Any] | None = None, account: str | None = None) -> dict[str, Any]:
    """Message headers of a wake-up: the user's own, and ours set anew."""
    ours = {"step": step} if account is None else {"step": step, "account": account}
    return {**(headers or {}), HEADER: ours}


def account_in(headers: Mapping[str, Any] | None) -> str | None:
    """The account that a message's headers name."""
    header = (headers or {}).get(HEADER)
    named = header.get("account") if isinstance(header, Mapping) else None
    return str(named) if named else None


def header_in(request: Context) -> Mapping[str, Any]:
    """Our header of a message."""
    header = request.get(HEADER) or (request.headers or {}).get(HEADER)
    return header if isinstance(header, Mapping) else {}


def step_of(request: Context) -> int:
    """The step that a message carries. A message without one (published by name, by others) is as good as the first."""
    return _number(request, "step")


def _number(request: Context, name: str) -> int:
    return int(header_in(request).get(name, 0))


def publish(app: Celery, record: Record, call: Call | None = None, /, **plumbing: Any) -> AsyncResult:
    """Send the wake-up of a record's present step.

    ``call``: the record's, if it is at hand; ``plumbing``: a producer, a connection, how to retry.
    """
    call = call or Call.from_text(record.call)
    headers = tracing.with_trace(call.options.get("headers") or {}, record.trace)
    account = None if record.step else record.account  # only a message of step 0 may find no record
    options = {**call.options, **plumbing, "headers": header_for(record.step, headers, account)}
    if record.retry_queue is not None:
        options = {name: value for name, value in options.items() if name not in ("exchange", "routing_key")}
        options["queue"] = declared(app, record.retry_queue)
    if record.until == "instant" and record.due_at is not None:  # only where the room could not keep it
        options["eta"] = datetime.fromtimestamp(record.due_at, timezone.utc)
    with tracing.continued(record.trace):
        return app.send_task(call.task, call.args, call.kwargs, task_id=record.id, add_to_parent=False, **options)


def ask_mend(app: Celery, task_id: str, call: Call, *, tries: int = 0, countdown: float | None = None) -> None:
    """Have a worker store a task's end again, over which a late PROGRESS may have been written (`tasks.mending`).

    Its step fits no record, so a worker of a version that knows no mends drops it.
    """
    headers = {**(call.options.get("headers") or {}), HEADER: {"step": -1, "mend": tries + 1}}
    options = {**call.options, **ON_A_LIVE_CONNECTION, "headers": headers, "countdown": countdown}
    app.send_task(call.task, call.args, call.kwargs, task_id=task_id, add_to_parent=False, **options)


def mends_of(request: Context) -> int:
    """Which try a mend is; 0: the message is none."""
    return _number(request, "mend")


def announce(app: Celery, record: Record, queue: str) -> None:
    """Send a dead letter's message to its queue: a task that a worker on that queue would run, and so replay it.

    What any tool may read of it: the letter's id and step, its task, code and time. No argument, no message.
    """
    letter, failure = record.letter or {}, record.failure or {}
    headline = {"task": record.task, "code": failure.get("code"), "at": letter.get("at")}
    options = {"queue": declared(app, queue), "ignore_result": True, **ON_A_LIVE_CONNECTION}
    app.send_task(REPLAY, (record.id, record.step), headline, **options)


def context_of(record: Record) -> Context:
    """Celery's request context of a task that is not running: result backends and errbacks read it."""
    from celery.app.task import Context

    call = Call.from_text(record.call)
    options = call.options
    return Context(
        id=record.id,
        task=call.task,
        args=call.args,
        kwargs=call.kwargs,
        root_id=options.get("root_id") or record.id,
        parent_id=options.get("parent_id"),
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        chord=options.get("chord"),
        chain=options.get("chain"),
        callbacks=options.get("link"),
        errbacks=options.get("link_error"),
        ignore_result=options.get("ignore_result", False),
        reply_to=options.get("reply_to"),
        correlation_id=record.id,
        retries=options.get("retries", 0),
        delivery_info={"routing_key": options.get("queue")},
        hostname=record.run_node,
        stamps=stamps_of(call),
        stamped_headers=options.get("stamped_headers"),
        properties={},
        called_directly=False,
    )


def stamps_of(call: Call) -> dict[str, list[Any]]:
    """The stamps of a saved call, by header."""
    return {name: maybe_list(call.options.get(name)) or [] for name in call.options.get("stamped_headers") or ()}


def revoke_marks(record: Record) -> list[str]:
    """How the room remembers that this task was revoked: by its id, or by any of its stamps."""
    stamps = stamps_of(Call.from_text(record.call)) if record.call else {}
    return [f"id:{record.id}", *(f"stamp:{name}={value}" for name, values in stamps.items() for value in values)]
