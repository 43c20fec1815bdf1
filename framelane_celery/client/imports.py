"""Imports: files that Framelane fetches for itself."""

from __future__ import annotations

from framelane_celery.client.answers import parsed
from framelane_celery.client.resource import JSON, Calls, item_path
from framelane_celery.models import Import, ImportRequest


class ImportCalls(Calls):
    """Imports."""

    def create_import(self, request: ImportRequest, idempotency_key: str | None = None) -> Import:
        """Have a remote file copied; `get_import` tells when it is ready.

        Shape:  202 {"id": "import_…", "status": "processing", "source_url": null, "created_at"}
        Raises: ApiError, RateLimited, TransportError.
        Resend: whether imports honour an idempotency key is on no page: after a TransportError a second POST may make a
                second copy, which costs nothing that is known of.
        Source: POST /v1/imports, docs.framelane.io/introduction/imports.
        """
        headers = {**JSON, "Idempotency-Key": idempotency_key} if idempotency_key else JSON
        return parsed(Import, self._request("POST", request.path, body=request.body({}), headers=headers))

    def get_import(self, import_id: str) -> Import:
        """Read one import. There is no `?wait` and no list; `get_job("import", id, wait_s)` waits in this thread.

        Shape:  {"id", "status": "ready", "source_url": "https://…", "error": null}
        Raises: NotFound, RateLimited, ApiError, TransportError.
        Resend: safe.
        Source: GET /v1/imports/{id}, docs.framelane.io/introduction/imports.
        """
        return self._get(Import, item_path("/v1/imports", import_id))
