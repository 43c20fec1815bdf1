"""The endpoints of the account: the workspace's name, and API keys that let their holder in until they are revoked."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from werkzeug.wrappers import Response

from framelane_celery.testing.api import Api
from framelane_celery.testing.calls import Call, answer_json
from framelane_celery.testing.clock import iso
from framelane_celery.testing.paging import page_of
from framelane_celery.testing.refusals import Problem, Refusal, refuse_invalid
from framelane_celery.testing.workspace import make_id


@dataclass
class StoredKey:
    """One key that was made by a call."""

    id: str
    name: str
    key: str
    created_at: float
    revoked_at: float | None = None

    def view(self) -> dict[str, Any]:
        """Without the key itself: docs.framelane.io/api-reference/api-keys/create-api-key."""
        return {
            "id": self.id,
            "name": self.name,
            "key_prefix": self.key[:8],
            "created_at": iso(self.created_at),
            "last_used_at": None,
            "revoked_at": None if self.revoked_at is None else iso(self.revoked_at),
        }


def workspace(api: Api, call: Call) -> Response:
    """Answer the workspace: docs.framelane.io/api-reference/workspace/get-workspace."""
    about = {"name": api.name, "email": None, "email_verified": True, "plan": "free", "plan_status": "active"}
    return answer_json({"id": api.workspace.id, "created_at": iso(api.started_at), **about})


def rename_workspace(api: Api, call: Call) -> Response:
    """Rename it: docs.framelane.io/api-reference/workspace/update-workspace."""
    api.name = _name_in(api, call)
    return workspace(api, call)


def create_key(api: Api, call: Call) -> Response:
    """Make a key; the only answer that has it in plain text.

    Source: docs.framelane.io/api-reference/api-keys/create-api-key; the status, 201, is INFER.
    """
    now, name = api.clock.now(), _name_in(api, call)
    made = StoredKey(make_id("key", now), name, f"fl_live_{secrets.token_hex(16)}", now)
    api.keys[made.id] = made
    api.let_in(made.key)
    return answer_json({**made.view(), "key": made.key}, 201)


def list_keys(api: Api, call: Call) -> Response:
    """List the keys that calls have made, revoked ones too: site src/lib/api.ts."""
    return answer_json(page_of([made.view() for made in list(api.keys.values())], call, api.switches))


def delete_key(api: Api, call: Call, key_id: str) -> Response:
    """Revoke a key: 204, empty. A second time is 404 (INFER)."""
    made = api.keys.get(key_id)
    if made is None or made.revoked_at is not None:
        raise Refusal(404, "not_found", "API key not found.")
    made.revoked_at = api.clock.now()
    api.let_in(made.key, no_more=True)
    return Response(status=204)


def _name_in(api: Api, call: Call) -> str:
    name = call.json_object().get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= 255:
        raise refuse_invalid([Problem(("name",), "must have 1 to 255 characters")], api.switches)
    return name
