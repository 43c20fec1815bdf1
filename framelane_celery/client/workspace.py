"""The account: what it is and has used, its API keys, and what the API can do."""

from __future__ import annotations

from collections.abc import Iterator

from framelane_celery.client.resource import Calls, item_path, iter_pages
from framelane_celery.models import ApiKey, Capabilities, Usage, Workspace

_KEYS = "/v1/api-keys"


class WorkspaceCalls(Calls):
    """The workspace."""

    def get_workspace(self) -> Workspace:
        """Read the account.

        Source: GET /v1/workspace, docs.framelane.io/api-reference/workspace/get-workspace.
        """
        return self._get(Workspace, "/v1/workspace")

    def update_workspace(self, *, name: str) -> Workspace:
        """Rename the account. There is no call to delete it here: `DELETE /v1/workspace` is for people.

        Source: PATCH /v1/workspace, docs.framelane.io/api-reference/workspace/update-workspace.
        """
        return self._send(Workspace, "PATCH", "/v1/workspace", {"name": name})

    def get_usage(self) -> Usage:
        """Read what the workspace has used in the current period, whose end resets the quota.

        Shape:  {"period_start", "period_end", "render_minutes", "task_count", "egress_bytes"}; see `Usage`
        Raises: ApiError, RateLimited, TransportError.
        Resend: safe.
        Source: GET /v1/workspace/usage, docs.framelane.io/api-reference/workspace/get-workspace-usage.
        """
        return self._get(Usage, "/v1/workspace/usage")

    def get_capabilities(self) -> Capabilities:
        """Read the catalogue of effects, formats, task parameters and limits.

        Source: GET /v1/capabilities, which needs no key (it is sent all the same: it is the API's own host).
        """
        return self._get(Capabilities, "/v1/capabilities")

    def create_api_key(self, name: str) -> ApiKey:
        """Make a key. Its `key` is shown in this answer only.

        Raises: InvalidRequest, ApiError, TransportError.
        Resend: makes another key; revoke what you do not know.
        Source: POST /v1/api-keys, docs.framelane.io/api-reference/api-keys/create-api-key.
        """
        return self._send(ApiKey, "POST", _KEYS, {"name": name})

    def iter_api_keys(self, *, limit: int | None = None) -> Iterator[ApiKey]:
        """Read all keys, revoked ones too: see `revoked_at`. Source: GET /v1/api-keys, site src/lib/api.ts."""
        return iter_pages(lambda cursor: self._page(ApiKey, _KEYS, limit=limit, cursor=cursor))

    def delete_api_key(self, key_id: str) -> None:
        """Make a key worthless. Source: DELETE /v1/api-keys/{id}, 204, site src/lib/api.ts."""
        self._delete(item_path(_KEYS, key_id))
