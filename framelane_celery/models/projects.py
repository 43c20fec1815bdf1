"""Projects: compositions that Framelane keeps, with a version each. Known from the vendor's llms.txt only (§15)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from framelane_celery.models.answer import Answer, Instant, Text, Whole
from framelane_celery.models.preview import Violation, items_of


def _object(value: object) -> dict[str, Any] | None:
    return dict(value) if isinstance(value, Mapping) else None


class Project(Answer):
    """One project. `render_request` is there with ``view="full"``, and `summary` always (INFER)."""

    id: Annotated[str, Field(min_length=1)]
    name: Text = None
    version: Whole = None
    workspace_id: Text = None
    created_at: Instant = None
    updated_at: Instant = None
    summary: Annotated[dict[str, Any] | None, BeforeValidator(_object)] = None
    render_request: Annotated[dict[str, Any] | None, BeforeValidator(_object)] = Field(default=None, repr=False)


class ProjectChange(Answer):
    """What a list of ops did: all of it, or nothing.

    Shape:  {"version", "ok", "changed_ids", "diff": {…}, "violations": [Violation]}
    """

    ok: Annotated[bool, BeforeValidator(lambda value: value is True)] = False
    version: Whole = None
    changed_ids: Annotated[list[Any], BeforeValidator(lambda v: v if isinstance(v, list) else [])] = Field(
        default_factory=list
    )
    diff: Annotated[dict[str, Any] | None, BeforeValidator(_object)] = None
    violations: Annotated[list[Violation], BeforeValidator(items_of)] = Field(default_factory=list)
