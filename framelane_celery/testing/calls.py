"""One request on its way through the server, and the answers it can get."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from werkzeug.wrappers import Request, Response

from framelane_celery.testing.refusals import Refusal


class Dropped(ConnectionError):
    """The connection is to be closed without an answer, with a TCP reset if `is_reset`."""

    def __init__(self, *, is_reset: bool) -> None:
        super().__init__(is_reset)
        self.is_reset = is_reset


@dataclass
class Call:
    """A request, and what the ledger will say about it."""

    request: Request
    method: str
    path: str
    query: dict[str, str]
    body: bytes
    address: str
    job_id: str | None = None
    is_replay: bool = False
    is_new_job: bool = False
    wait_s: float | None = None
    fault: str | None = None
    note: str | None = None
    cut_at_bytes: int | None = None

    @classmethod
    def read(cls, request: Request) -> Call:
        """Take a request apart."""
        return cls(
            request=request,
            method=request.method,
            path=request.path,
            query=request.args.to_dict(),
            body=b"" if request.method == "PUT" else request.get_data(),  # a file: read as it comes
            address=request.remote_addr or "",
        )

    @property
    def idempotency_key(self) -> str | None:
        """The header of job-creating POSTs."""
        return self.request.headers.get("Idempotency-Key")

    def json_object(self) -> dict[str, Any]:
        """Read the body, which must be a JSON object.

        Raises: Refusal 422 invalid_request (INFER for bodies that are no JSON at all).
        """
        if self.request.mimetype != "application/json":
            raise Refusal(422, "invalid_request", "Content-Type: must be application/json")
        try:
            body = json.loads(self.body, parse_constant=_refuse_constant)
        except ValueError as error:
            raise Refusal(422, "invalid_request", f"body: is not valid JSON ({error})") from None
        if not isinstance(body, dict):
            raise Refusal(422, "invalid_request", "body: must be a JSON object")
        return body


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def answer_json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with JSON."""
    return Response(json.dumps(body), status, headers=headers, content_type="application/json")


def answer_refusal(refusal: Refusal, *, with_retry_after: bool) -> Response:
    """Answer with an error."""
    headers = {}
    if refusal.retry_after_s is not None and with_retry_after:
        headers["Retry-After"] = str(refusal.retry_after_s)
    return answer_json(refusal.body(), refusal.status, headers)


def answer_html(status: int) -> Response:
    """Answer as a proxy in front of the API would."""
    page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1><hr>nginx</body></html>"
    return Response(page, status, content_type="text/html; charset=utf-8")
