"""Compositions that are only checked: no job is made and nothing is paid."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from framelane_celery.client.resource import Calls
from framelane_celery.errors import ApiError, InvalidRequest, NotFound
from framelane_celery.models import Preview, RenderRequest

_WANTS_IT_INSIDE = re.compile(r"\brender_request\b\W+(is |field )?(required|missing)", re.IGNORECASE)


class PreviewCalls(Calls):
    """Previews."""

    def preview(self, request: RenderRequest) -> Preview:
        """Ask whether the API would take a composition. No job is made and nothing is paid.

        Shape:  {"ok": bool, "violations": [{"code", "message", "severity", "path"}]}
        Raises: NotFound: this API has no such check (404, 405, 501). InvalidRequest: not ok either, refused before any
                violation was looked for. ApiError, RateLimited, TransportError.
        Resend: safe, so there is no idempotency key; it is sent once all the same.
        Source: POST /v1/preview "for an inline request", `dry_run: true` "validation only, free", site llms.txt.
                INFER: the body is the render request's own fields; if the API says that it wants them inside
                `render_request`, as the projects have it, they are sent so.
        """
        fields = request.wire({})
        try:
            return self._dry_run(fields)
        except InvalidRequest as error:
            if not _WANTS_IT_INSIDE.search(error.message):
                raise
        return self._dry_run({"render_request": fields})

    def _dry_run(self, request: Mapping[str, Any]) -> Preview:
        try:
            return self._send(Preview, "POST", "/v1/preview", {**request, "dry_run": True})
        except ApiError as error:
            if error.status not in (405, 501):
                raise
            raise NotFound(error.message, error.status, error.code, error.retry_after_s) from None
