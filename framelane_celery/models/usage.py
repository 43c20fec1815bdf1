"""What the workspace has used, as `GET /v1/workspace/usage` says it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import model_validator

from framelane_celery.models.answer import Answer, Instant, Number, Whole, number_of

_CONSOLE_NAMES = {"render_minutes": "render_minutes_used", "task_count": "tasks_count"}


class Usage(Answer):
    """What the workspace has used in the current period; both spellings of the API are read, also side by side.

    Shape:  {"period_start", "period_end", "render_minutes", "task_count", "egress_bytes"} by the reference page;
            {…, "render_minutes_used", "render_minutes_limit", "renders_count", "tasks_count"} by the vendor's console.
    Units:  period_end is exclusive; egress in bytes. render_minutes_limit is None where the API does not say.
    Source: docs.framelane.io/api-reference/workspace/get-workspace-usage; site src/lib/api.ts (framelane_api.md §16).
    """

    period_start: Instant = None
    period_end: Instant = None
    render_minutes: Number = None
    render_minutes_limit: Number = None
    renders_count: Whole = None
    task_count: Whole = None
    egress_bytes: Whole = None

    @model_validator(mode="before")
    @classmethod
    def _console_spelling(cls, value: object) -> object:
        """Where the documented name has no number, take the console's."""
        if not isinstance(value, Mapping):
            return value
        read = dict(value)
        for name, other in _CONSOLE_NAMES.items():
            if number_of(read.get(name)) is None and other in read:
                read[name] = read.pop(other)
        return read
