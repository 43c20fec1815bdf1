"""FramelaneClient: its calls are in a file per resource, and all of them go through one funnel, ``_request``."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from types import TracebackType

import requests

from framelane_celery.client.answers import code_and_message, error_body, retry_after_of
from framelane_celery.client.calls import counted
from framelane_celery.client.downloads import DownloadCalls
from framelane_celery.client.imports import ImportCalls
from framelane_celery.client.jobs import JobCalls, Kind, Submitted
from framelane_celery.client.previews import PreviewCalls
from framelane_celery.client.projects import ProjectCalls
from framelane_celery.client.sending import Bearer, new_session, send
from framelane_celery.client.uploads import UploadCalls, Uploaded
from framelane_celery.client.webhooks import WebhookCalls
from framelane_celery.client.workspace import WorkspaceCalls
from framelane_celery.errors import ApiError, SettingsError, clean_text, error_for
from framelane_celery.settings import FramelaneSettings

__all__ = ["FramelaneClient", "Kind", "Submitted", "Uploaded", "shared_client"]


class FramelaneClient(
    JobCalls,
    ImportCalls,
    UploadCalls,
    DownloadCalls,
    PreviewCalls,
    ProjectCalls,
    WebhookCalls,
    WorkspaceCalls,
):
    """The Framelane API, for one thread. It keeps its connections open: close it, or use it as a context manager.

    A process that was forked gets a session of its own, so that two never share a connection.
    """

    def __init__(
        self,
        api_key: str,
        base_url: str = "https://api.framelane.io",
        *,
        connect_timeout_s: float = 5,
        read_timeout_s: float = 30,
    ) -> None:
        self._auth = Bearer(api_key)
        self.base_url = base_url.rstrip("/")
        self._connect_timeout_s, self._read_timeout_s = connect_timeout_s, read_timeout_s
        self._session, self._pid = new_session(self._auth), os.getpid()

    @classmethod
    def from_settings(cls, settings: FramelaneSettings) -> FramelaneClient:
        """Make a client of an app's settings. Raises: SettingsError, if they hold no key."""
        if settings.api_key is None:
            raise SettingsError("api_key: no key is set; set framelane['api_key'] or FRAMELANE_API_KEY")
        return cls(
            settings.api_key.get_secret_value(),
            settings.base_url,
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.read_timeout_s,
        )

    def __repr__(self) -> str:
        return f"<FramelaneClient {self.base_url}>"

    def __enter__(self) -> FramelaneClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._session.close()

    # -- the funnel

    def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        read_timeout_s: float | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """Send one call to the API. Any answer but a 2xx is an error, and so is a redirect but a download's."""
        if self._pid != os.getpid():
            self._session, self._pid = new_session(self._auth), os.getpid()
        with counted(method, path) as call:
            answer = send(
                self._session,
                method,
                self.base_url + path,
                f"{method} {path}",
                params=params,
                data=body,
                headers=headers,
                timeout=(self._connect_timeout_s, read_timeout_s or self._read_timeout_s),
                stream=stream,
                allow_redirects=False,
            )
            call.status = str(answer.status_code)
        if 200 <= answer.status_code < 300 or (stream and answer.is_redirect):
            return answer
        with answer:
            raise self._error_of(answer)

    def _error_of(self, answer: requests.Response) -> ApiError:
        """Read a refusal. Its message is short and clean, whatever the body is."""
        if answer.is_redirect:
            return ApiError("the API answered with a redirect: is base_url right?", answer.status_code)
        code, message = code_and_message(error_body(answer))
        message = clean_text(message.replace(self._auth.key, "…")) or f"HTTP {answer.status_code} without a message"
        retry_after_s = retry_after_of(answer.headers.get("Retry-After"), message, time.time())
        return error_for(answer.status_code, code, message, retry_after_s)


_of_this_thread = threading.local()
_MAX_SHARED = 32


def shared_client(settings: FramelaneSettings) -> FramelaneClient:
    """Return this process' and thread's client for these settings, made when first asked for. Nobody closes it.

    Raises: SettingsError, if the settings hold no key.
    """
    key = (os.getpid(), settings.api_key, settings.base_url, settings.connect_timeout_s, settings.read_timeout_s)
    clients: dict[tuple[object, ...], FramelaneClient] = _of_this_thread.__dict__.setdefault("clients", {})
    if key not in clients:
        if len(clients) >= _MAX_SHARED:
            clients.clear()
        clients[key] = FramelaneClient.from_settings(settings)
    return clients[key]
