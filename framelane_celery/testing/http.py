"""The way of a request: fault, key, route, endpoint, answer, ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from framelane_celery.testing import account, bringing, control, endpoints, hooks, previews, projects
from framelane_celery.testing.api import Api
from framelane_celery.testing.calls import Call, Dropped, answer_html, answer_json, answer_refusal
from framelane_celery.testing.faults import Fault
from framelane_celery.testing.refusals import Refusal

logger = logging.getLogger(__name__)

Endpoint = Callable[..., Response]

_RULES: list[tuple[str, str, Endpoint]] = [
    ("POST", "/v1/renders", endpoints.submit),
    ("POST", "/v1/tasks/<operation>", endpoints.submit),
    *(
        rule
        for path, kind in (("/v1/renders", "render"), ("/v1/tasks", "task"))
        for rule in (
            ("GET", path, partial(endpoints.list_jobs, kind=kind)),
            ("GET", f"{path}/<job_id>", partial(endpoints.get_job, kind=kind)),
            ("DELETE", f"{path}/<job_id>", partial(endpoints.cancel_job, kind=kind)),
            ("GET", f"{path}/<job_id>/download", partial(endpoints.download, kind=kind)),
        )
    ),
    ("POST", "/v1/preview", previews.preview),
    ("GET", "/v1/workspace", account.workspace),
    ("PATCH", "/v1/workspace", account.rename_workspace),
    ("GET", "/v1/api-keys", account.list_keys),
    ("POST", "/v1/api-keys", account.create_key),
    ("DELETE", "/v1/api-keys/<key_id>", account.delete_key),
    ("GET", "/v1/webhooks", hooks.list_webhooks),
    ("POST", "/v1/webhooks", hooks.create_webhook),
    ("DELETE", "/v1/webhooks/<webhook_id>", hooks.delete_webhook),
    ("POST", "/v1/webhooks/<webhook_id>/rotate-secret", hooks.rotate_secret),
    ("GET", "/v1/webhooks/<webhook_id>/deliveries", hooks.list_deliveries),
    ("GET", "/v1/projects", projects.list_projects),
    ("POST", "/v1/projects", projects.create_project),
    ("GET", "/v1/projects/<project_id>", projects.get_project),
    ("DELETE", "/v1/projects/<project_id>", projects.delete_project),
    ("POST", "/v1/projects/<project_id>/ops", projects.change_project),
    ("POST", "/v1/projects/<project_id>/preview", projects.preview_project),
    ("POST", "/v1/projects/<project_id>/renders", projects.render_project),
    ("GET", "/v1/workspace/usage", endpoints.usage),
    ("GET", "/v1/capabilities", endpoints.capabilities),
    ("POST", "/v1/uploads", bringing.reserve_upload),
    ("POST", "/v1/imports", bringing.create_import),
    ("GET", "/v1/imports/<import_id>", bringing.get_import),
    ("GET", "/v1/workspace/assets", bringing.list_assets),
    ("PUT", "/storage/uploads/<workspace>/<filename>", bringing.put_file),
    ("GET", "/storage/uploads/<workspace>/<filename>", bringing.uploaded_file),
    ("GET", "/storage/<job_id>/<filename>", endpoints.stored_file),
    ("GET", "/_ledger", control.show_ledger),
    ("POST", "/_control", control.obey),
]
_ROUTES = Map([Rule(path, methods=[method], endpoint=endpoint) for method, path, endpoint in _RULES])
_WITHOUT_KEY = ("/v1/capabilities", "/storage/", "/_ledger", "/_control")
_OFF_THE_RECORD = ("/_ledger", "/_control")


class Funnel:
    """The one way every request goes."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def respond(self, request: Request) -> Response:
        """Answer one request and write it into the ledger before the answer leaves.

        Raises: Dropped when the client is to get no answer.
        """
        call, at = Call.read(request), self._api.clock.now()
        status: int | None = None
        try:
            response = self._misbehave_or_answer(call)
            status = response.status_code
            return response
        finally:
            if not call.path.startswith(_OFF_THE_RECORD):
                self._write_down(call, at, status)

    def _misbehave_or_answer(self, call: Call) -> Response:
        fault = None if call.path.startswith(_OFF_THE_RECORD) else self._api.faults.pick(call.method, call.path)
        if fault is None:
            return self._answer(call)
        call.fault = fault.kind
        if fault.kind == "reset":
            raise Dropped(is_reset=True)
        if fault.kind == "slow":
            self._api.stopping.wait(fault.seconds)
            return self._answer(call)
        if fault.kind == "cut":
            call.cut_at_bytes = fault.at_bytes
            return _cut(self._answer(call), fault.at_bytes)
        if fault.kind == "answer_lost" or fault.accepted:
            self._answer(call)
        if fault.kind == "answer_lost":
            raise Dropped(is_reset=False)
        return _false_answer(fault)

    def _answer(self, call: Call) -> Response:
        try:
            endpoint, arguments = _ROUTES.bind("localhost").match(call.path, call.method)
            if not call.path.startswith(_WITHOUT_KEY):
                self._api.check_key(call.request.headers.get("Authorization"))
            response: Response = endpoint(self._api, call, **arguments)
            return response
        except Refusal as refusal:
            call.is_replay = refusal.is_replay
            call.note = call.note or f"{refusal.code}: {refusal.message}"
            return answer_refusal(refusal, with_retry_after=self._api.switches.retry_after_header)
        except Dropped:
            raise
        except HTTPException as error:
            code = "not_found" if error.code == 404 else "method_not_allowed"
            return answer_json({"error": {"code": code, "message": f"{error.name}."}}, error.code or 500)
        except Exception:
            # A mistake here, or in the test's own `outcome` or `duration`: said aloud, and answered as the API would.
            logger.exception("the local server failed on %s %s", call.method, call.path)
            return answer_json({"error": {"code": "internal", "message": "Unexpected error."}}, 500)

    def _write_down(self, call: Call, at: float, status: int | None) -> None:
        noted: dict[str, Any] = {
            name: getattr(call, name)
            for name in ("job_id", "is_replay", "is_new_job", "wait_s", "fault", "note", "idempotency_key", "body")
        }
        self._api.ledger.add(at=at, method=call.method, path=call.path, query=call.query, status=status, **noted)


def _cut(answer: Response, at_bytes: int) -> Response:
    whole = answer.iter_encoded()

    def pieces() -> Iterator[bytes]:
        left = at_bytes
        for piece in whole:
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                raise Dropped(is_reset=True)

    answer.headers.setdefault("Content-Length", str(answer.content_length or 0))
    answer.response = pieces()
    return answer


def _false_answer(fault: Fault) -> Response:
    if fault.kind == "garbage":
        return Response('{"id": "render_', 200, content_type="application/json")
    if fault.kind == "html" or fault.html:
        return answer_html(fault.status or (200 if fault.kind == "html" else 500))
    return answer_json({"error": {"code": "internal", "message": "Unexpected error."}}, fault.status or 500)
