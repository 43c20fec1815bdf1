"""What every endpoint works with: the state of the server, and the checks they share."""

from __future__ import annotations

import threading
from typing import Any

from framelane_celery.testing.calls import Call
from framelane_celery.testing.clock import Clock
from framelane_celery.testing.faults import Faults
from framelane_celery.testing.ledger import Ledger
from framelane_celery.testing.limits import WINDOW_S, FixedWindow
from framelane_celery.testing.media import Media
from framelane_celery.testing.receivers import Receivers
from framelane_celery.testing.refusals import Refusal
from framelane_celery.testing.storage import Storage
from framelane_celery.testing.switches import Switches
from framelane_celery.testing.workspace import Workspace


class Api:
    """The state of one server."""

    def __init__(
        self,
        *,
        clock: Clock,
        switches: Switches,
        workspace: Workspace,
        storage: Storage,
        receivers: Receivers,
        api_keys: frozenset[str],
        unverified_keys: frozenset[str],
        per_minute: dict[str, int | None],
        window_s: float = WINDOW_S,
    ) -> None:
        self.clock, self.switches, self.workspace, self.storage = clock, switches, workspace, storage
        self.media, self.receivers, self.name = Media(clock), receivers, "Local server"
        self.keys: dict[str, Any] = {}
        self.projects: dict[str, Any] = {}
        self.ledger, self.faults, self.stopping = Ledger(), Faults(), threading.Event()
        self.started_at = clock.now()
        self.renders, self.tasks, self.all_reads = (
            FixedWindow(per_minute[name], window_s) for name in ("renders", "tasks", "reads")
        )
        self._api_keys: set[str]
        self._api_keys, self._unverified_keys = set(api_keys), unverified_keys
        self._counting = threading.Lock()

    def count_submission(self, call: Call, kind: str) -> None:
        """Count a POST against the limit of its address.

        Raises: Refusal 429 rate_limited.
        """
        self._count(call, self.renders if kind == "render" else self.tasks)

    def count_read(self, call: Call) -> None:
        """Count a read, should a test want reads limited; nothing is documented.

        Raises: Refusal 429 rate_limited.
        """
        self._count(call, self.all_reads)

    def is_good_source(self, url: str) -> bool:
        """Say whether a source may be fetched: public HTTPS, or a file of this server.

        Source: docs.framelane.io/introduction/production-checklist.
        """
        return not self.switches.requires_https_sources or url.startswith("https://") or self.storage.owns(url)

    def _count(self, call: Call, window: FixedWindow) -> None:
        with self._counting:
            seconds = window.take(call.address, self.clock.now())
        if seconds is not None:
            message = f"Too many requests. Retry after {seconds} seconds."
            raise Refusal(429, "rate_limited", message, retry_after_s=seconds)

    def let_in(self, key: str, *, no_more: bool = False) -> None:
        """Take a key that was made by a call; or no longer."""
        (self._api_keys.discard if no_more else self._api_keys.add)(key)

    def check_key(self, header: str | None) -> None:
        """Let a request in.

        Source: docs.framelane.io/introduction/authentication; email_not_verified is in the site's llms.txt only.
        Raises: Refusal 401 unauthorized, 403 email_not_verified.
        """
        if header is None:
            raise Refusal(401, "unauthorized", "Missing Authorization header.")
        scheme, _, key = header.partition(" ")
        if scheme.lower() == "bearer" and key in self._unverified_keys:
            raise Refusal(403, "email_not_verified", "Verify your e-mail address first.")
        if scheme.lower() != "bearer" or key not in self._api_keys:
            raise Refusal(401, "unauthorized", "Invalid API key.")
