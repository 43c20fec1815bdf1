"""Sessions and sending: the pool, the key, what is tried again, and one line of ours for all that `requests` raises."""

from __future__ import annotations

import contextvars
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import ReadTimeoutError
from urllib3.util.retry import Retry

from framelane_celery.client.unlogged import signed_url
from framelane_celery.errors import SettingsError, TransportError

if TYPE_CHECKING:
    from typing_extensions import Self
    from urllib3 import BaseHTTPResponse
    from urllib3.connectionpool import ConnectionPool


class Bearer(AuthBase):
    """The key, as an auth object: as a plain header, an entry in ~/.netrc for the host would take its place."""

    def __init__(self, key: str) -> None:
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise SettingsError("api_key: must be printable ASCII without spaces")
        self.key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.key}"
        return request


class _NoAuth(AuthBase):
    """No key, and nothing from ~/.netrc either."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


NO_AUTH = _NoAuth()


class _Session(requests.Session):
    """A session that adds nothing on a redirect, where `requests` looks into ~/.netrc again."""

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        prepared_request.headers.pop("Authorization", None)


class _ReadsOnly(Retry):
    """Try a GET again, but not one that ran into its read timeout: a long-poll would hold its thread three times."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        # urllib3 asks `allowed_methods` after a status or a broken read, but repeats any method that did not connect.
        if method != "GET" or isinstance(error, ReadTimeoutError):
            return self.new(total=0, read=False)._increment(method, url, response, error, _pool, _stacktrace)
        return self._increment(method, url, response, error, _pool, _stacktrace)

    _increment = Retry.increment


def new_session(auth: AuthBase) -> requests.Session:
    session = _Session()
    session.auth = auth
    session.max_redirects = 5
    session.headers["User-Agent"] = "framelane-celery"
    if auth is NO_AUTH:
        session.headers["Accept-Encoding"] = "identity"  # so that Content-Length is the size of the file
    retry = _ReadsOnly(
        total=2,
        backoff_factor=0.1,
        status_forcelist=(502, 503, 504),
        allowed_methods=("GET",),
        raise_on_status=False,
        respect_retry_after_header=False,  # it would sleep here for as long as the server says
    )
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry, pool_connections=4, pool_maxsize=4))
    return session


def send(
    session: requests.Session, method: str, url: str, what: str, *, timeout: tuple[float, float], **options: Any
) -> requests.Response:
    """Send, and turn what `requests` raises into one line of ours: its own text may quote a signed URL."""
    try:
        return session.request(method, url, timeout=timeout, **options)
    except requests.ConnectTimeout:
        raise TransportError(f"{what}: no connection to {urlsplit(url).hostname} within {timeout[0]:g} s") from None
    except requests.ReadTimeout:
        raise TransportError(f"{what}: no answer within {timeout[1]:g} s") from None
    except requests.RequestException as error:
        raise TransportError(f"{what}: {reason_of(error)}") from None


def send_unseen(
    session: requests.Session, method: str, url: str, what: str, *, timeout: tuple[float, float], **options: Any
) -> requests.Response:
    """As `send`, for a signed link, whose query is a key: no log shows it, and no tracing library sees the call.

    Sentry and OpenTelemetry note the URL of each call. Both find what they note it in by context variables, and here
    there are none; but that OpenTelemetry would begin a trace anew, which it is told not to.
    """

    def alone() -> requests.Response:
        if otel := sys.modules.get("opentelemetry.context"):
            otel.attach(otel.set_value("suppress_http_instrumentation", True))
        with signed_url():
            return send(session, method, url, what, timeout=timeout, **options)

    return contextvars.Context().run(alone)


def reason_of(error: requests.RequestException) -> str:
    inner = error.args[0] if error.args else None
    cause = getattr(inner, "reason", None) or inner
    return type(error).__name__ + (f" ({type(cause).__name__})" if isinstance(cause, Exception) else "")
