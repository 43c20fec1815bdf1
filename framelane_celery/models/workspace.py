"""The workspace, its API keys, and what the API can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from framelane_celery.models.answer import Answer, Instant, Text


class Workspace(Answer):
    """The account. `plan` and `plan_status` are open words (free, pro, enterprise; active, past_due, …).

    Source: docs.framelane.io/api-reference/workspace/get-workspace.
    """

    id: Annotated[str, Field(min_length=1)]
    name: Text = None
    created_at: Instant = None
    email: Text = None
    email_verified: Annotated[bool, BeforeValidator(lambda value: value is True)] = False
    plan: Text = "free"
    plan_status: Text = "active"


class ApiKey(Answer):
    """One key. `key` itself is there in the answer to its creation only, and not in the repr.

    Source: docs.framelane.io/api-reference/api-keys/create-api-key.
    """

    id: Annotated[str, Field(min_length=1)]
    name: Text = None
    key_prefix: Text = None
    created_at: Instant = None
    last_used_at: Instant = None
    revoked_at: Instant = None
    key: Text = Field(default=None, repr=False)


class Capabilities(Answer):
    """The API's catalogue. No page shows its fields, so all of them are kept as they come: see `Capabilities.fields`.

    Source: docs.framelane.io/api-reference/capabilities/list-render-and-task-capabilities.
    """

    @property
    def fields(self) -> Mapping[str, Any]:
        return self.model_extra or {}
