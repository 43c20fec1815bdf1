"""What is shown of a call: its arguments without keys, and what comes after it. Pure; for people.

Used by the command line and by Django's admin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framelane_celery.errors import clean_text
from framelane_celery.wakeups import Call

# --- arguments ---------------------------------------------------------------------------------------------------


def without_secrets(value: Any) -> Any:
    """Arguments for the eye: the query of a URL may be a key, and long text tells nobody anything."""
    if isinstance(value, str):
        return clean_text(value) if "://" in value or len(value) > 300 else value
    if isinstance(value, Mapping):
        return {str(key): without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(inner) for inner in value]
    return value


# --- canvas ------------------------------------------------------------------------------------------------------


def comes_after(call: Call) -> dict[str, Any]:
    """What a task's end sets off, by names of tasks: the next steps, links, errbacks, its chord's body."""
    options = call.options
    chord = options.get("chord")
    after = {
        "next": [_name(step) for step in reversed(options.get("chain") or [])],  # Celery keeps a chain last step first
        "on_success": [_name(link) for link in options.get("link") or []],
        "on_error": [_name(link) for link in options.get("link_error") or []],
        "chord": _name(chord) if chord else None,
        "group_id": options.get("group_id"),
    }
    return {name: value for name, value in after.items() if value}


def _name(signature: Any) -> str:
    """A signature by its tasks' names: "a", "group(a, b)", "chain(a, b)"."""
    if not isinstance(signature, Mapping):
        return str(signature)
    kind, kwargs = signature.get("subtask_type"), signature.get("kwargs") or {}
    if kind in ("chain", "group"):
        return f"{kind}({', '.join(_name(task) for task in kwargs.get('tasks') or [])})"
    if kind == "chord":
        header = kwargs.get("header") or []
        tasks = header if isinstance(header, list) else [header]
        return f"chord({', '.join(map(_name, tasks))}; {_name(kwargs.get('body'))})"
    return str(signature.get("task"))
