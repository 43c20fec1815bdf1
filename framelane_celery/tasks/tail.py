"""What comes after a task of ours gets the finished job as an argument, and Celery would write that into the message's
headers, from where events, Flower and the log show it: with the job's signed URL. So it is told what to show instead.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from framelane_celery.monitoring import shown_args

if TYPE_CHECKING:
    from celery.app.task import Context

Signature = MutableMapping[str, Any]

_INNER = {"group": "tasks", "chain": "tasks", "chord": "header"}


def show_no_result(request: Context, result: Any) -> None:
    """Name what the next task, the links and the chord's body get, as we name our own tasks' arguments.

    Celery keeps a chain last step first. A chord's body is published by the member that ends last: one of Celery's own
    tasks shows what it likes.
    """
    for signature in [*(request.callbacks or ()), *(request.chain or ())[-1:]]:
        _show(signature, result)
    if request.chord:
        _show(request.chord, {"results": None})  # how many, only the result backend knows


def _show(signature: Signature, result: Any) -> None:
    kind = signature.get("subtask_type")
    if kind in _INNER:
        inner = signature["kwargs"].get(_INNER[kind]) or ()
        for one in _first(kind, inner):
            _show(one, result)
    elif not signature.get("immutable"):
        signature["options"]["argsrepr"] = shown_args([result, *(signature.get("args") or ())])


def _first(kind: str, inner: Any) -> Iterable[Signature]:
    if isinstance(inner, MutableMapping):  # a chord's header, while it is a group
        return [inner]
    return list(inner)[:1] if kind == "chain" else list(inner)
