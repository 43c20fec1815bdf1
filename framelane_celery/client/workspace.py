"""The account: what it has used."""

from __future__ import annotations

from framelane_celery.client.calls import Calls
from framelane_celery.models import Usage


class WorkspaceCalls(Calls):
    """The workspace."""

    def get_usage(self) -> Usage:
        """Read what the workspace has used in the current period, whose end resets the quota.

        Shape:  {"period_start", "period_end", "render_minutes", "task_count", "egress_bytes"}; see `Usage`
        Raises: ApiError, RateLimited, TransportError.
        Resend: safe.
        Source: GET /v1/workspace/usage, docs.framelane.io/api-reference/workspace/get-workspace-usage.
        """
        return self._get(Usage, "/v1/workspace/usage")
