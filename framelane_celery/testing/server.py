"""FramelaneServer: the local server as a test, a demo or a developer holds it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from werkzeug.serving import BaseWSGIServer

from framelane_celery.testing.api import Api
from framelane_celery.testing.assertions import Assertions
from framelane_celery.testing.clock import Clock
from framelane_celery.testing.faults import Faults
from framelane_celery.testing.http import Funnel
from framelane_celery.testing.jobs import Cancelled, Completed, Failed, Outcome, StoredJob, Submission
from framelane_celery.testing.ledger import Ledger
from framelane_celery.testing.limits import WINDOW_S, Periods
from framelane_celery.testing.media import Media
from framelane_celery.testing.quota import Quota
from framelane_celery.testing.receivers import Receivers
from framelane_celery.testing.storage import Storage
from framelane_celery.testing.submitted import SubmittedJob, submitted
from framelane_celery.testing.switches import Switches
from framelane_celery.testing.transport import Connections, listen
from framelane_celery.testing.views import job_view
from framelane_celery.testing.webhooks import Delivered, Deliveries, Sender
from framelane_celery.testing.workspace import Workspace

STOP_TIMEOUT_S = 5.0
UNEXPECTED = "Unexpected error while rendering."


class FramelaneServer(Assertions):
    """A real HTTP server that behaves as Framelane's documentation says.

        with FramelaneServer(job_seconds=0.2) as server:
            requests.post(f"{server.base_url}/v1/renders", …)
            assert server.ledger.counts()["jobs"] == 1

    `outcome` and `duration` choose how each accepted job ends and after how many seconds; `virtual_time` makes the
    clock stand still until `server.clock.advance(seconds)`. None for a limit or quota means without.

    Two options scale time for tests: `rate_window_s` is the "minute" of the limits per minute, in seconds;
    `quota_period_s` is the "month" of the quota, counted from `start()` on (None: the calendar month).

    `webhook_url` is where the end of each job is told, unless the job has a `webhook_url` of its own; the events are
    signed with `webhook_secret`. `deliveries` says what they look like, and what goes wrong with them.
    """

    def __init__(
        self,
        *,
        api_keys: Sequence[str] = ("fl_test_key",),
        unverified_keys: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        job_seconds: float = 0.2,
        duration: Callable[[Submission], float] | None = None,
        outcome: Callable[[Submission], Outcome] | None = None,
        virtual_time: bool = False,
        start_at: float | None = None,
        switches: Switches | None = None,
        renders_per_minute: int | None = 120,
        tasks_per_minute: int | None = 300,
        reads_per_minute: int | None = None,
        quota_renders: int | None = None,
        quota_tasks: int | None = None,
        quota_render_minutes: float | None = None,
        quota_period_s: float | None = None,
        rate_window_s: float = WINDOW_S,
        webhook_url: str | None = None,
        webhook_secret: str = "whsec_local",  # noqa: S107 - of a server for tests
        deliveries: Deliveries | None = None,
    ) -> None:
        for name, length_s in (("quota_period_s", quota_period_s), ("rate_window_s", rate_window_s)):
            if length_s is not None and length_s <= 0:
                raise ValueError(f"{name} must be more than 0 seconds")
        self.api_key = api_keys[0]
        self.clock = Clock(virtual=virtual_time, start=start_at)
        self.switches = switches or Switches()
        self.job_seconds = job_seconds
        self._outcome = outcome or (lambda submission: Completed())
        self._failing: deque[Failed] = deque()
        self._host, self._port = host, port
        self._storage = Storage(self.clock)
        self._workspace = Workspace(
            self.clock,
            self.switches,
            duration=duration or (lambda submission: self.job_seconds),
            outcome=self._outcome_of,
            quota=Quota(
                {"render": quota_renders, "task": quota_tasks, "render_minutes": quota_render_minutes},
                Periods(quota_period_s),
                self.switches.quota_status,
            ),
        )
        self._receivers = Receivers(webhook_secret)
        self._api = Api(
            clock=self.clock,
            switches=self.switches,
            workspace=self._workspace,
            storage=self._storage,
            receivers=self._receivers,
            api_keys=frozenset(api_keys),
            unverified_keys=frozenset(unverified_keys),
            per_minute={"renders": renders_per_minute, "tasks": tasks_per_minute, "reads": reads_per_minute},
            window_s=rate_window_s,
        )
        self._sender = Sender(
            self.clock,
            self._workspace.get,
            self._view,
            url=webhook_url,
            receivers=self._receivers,
            deliveries=deliveries or Deliveries(),
        )
        self._workspace.tell = self._sender.watch
        self._connections = Connections()
        self._listener: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> FramelaneServer:
        """Listen and serve in threads of its own.

        Raises: OSError when the port is taken, RuntimeError when it was started before.
        """
        if self._listener is not None:
            raise RuntimeError("a FramelaneServer is started once; make another one")
        self._listener = listen(self._host, self._port, Funnel(self._api).respond, self._connections)
        self._port = self._listener.port
        other_name = "127.0.0.1" if self._host == "localhost" else "localhost"
        self._storage.base_url = f"http://{other_name}:{self._port}"
        self._workspace.open()
        self._thread = threading.Thread(target=self._listener.serve_forever, name="framelane-server", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Let held requests go, end every connection and give the port back; a second call does nothing."""
        if self._listener is None or self._thread is None or not self._thread.is_alive():
            return
        self._api.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.socket.shutdown(socket.SHUT_RDWR)  # or the next line waits until the accept loop looks up
        self._listener.shutdown()
        self._workspace.close()
        self._api.media.close()
        self._sender.stop(STOP_TIMEOUT_S)
        self._connections.close(STOP_TIMEOUT_S)
        self._thread.join(STOP_TIMEOUT_S)

    def __enter__(self) -> FramelaneServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """Where the API is: `http://127.0.0.1:49152`, without `/v1`."""
        return f"http://{self._host}:{self._port}"

    @property
    def ledger(self) -> Ledger:
        """What crossed the wire."""
        return self._api.ledger

    @property
    def faults(self) -> Faults:
        """The misbehaviour in force."""
        return self._api.faults

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """Every job as the API would show it now, by id, oldest first."""
        return {job.id: self._view(job) for job in self._workspace.jobs()}

    def _view(self, job: StoredJob) -> dict[str, Any]:
        return job_view(job, job.life.phase(self.clock.now()), self._storage, self.switches)

    @property
    def webhook_secret(self) -> str:
        """What signs the events now: a rotation replaces it."""
        return self._receivers.secret

    @property
    def media(self) -> Media:
        """What was uploaded and imported; `import_seconds` and `import_error` say how imports go."""
        return self._api.media

    @property
    def delivered(self) -> list[Delivered]:
        """The webhooks that were sent, and what was answered, in the order of the answers."""
        return list(self._sender.delivered)

    @property
    def submitted(self) -> list[SubmittedJob]:
        """Every job with what was asked for, oldest first."""
        now = self.clock.now()
        return [submitted(job, job.life.phase(now).status) for job in self._workspace.jobs()]

    def _outcome_of(self, submission: Submission) -> Outcome:
        return self._failing.popleft() if self._failing else self._outcome(submission)

    def fail_next(self, code: str = "internal", message: str = UNEXPECTED, *, times: int = 1) -> None:
        """Have the next job that is submitted fail when its time has come; or the next few."""
        self._failing.extend([Failed(code, message)] * times)

    def finish(self, job: SubmittedJob | str, **output: Any) -> None:
        """Complete a job now; keywords replace members of its output.

        Raises: KeyError for an unknown job, ValueError for one that has ended.
        """
        self._workspace.end(_id_of(job), Completed(output))

    def fail(self, job: SubmittedJob | str, code: str = "internal", message: str = UNEXPECTED) -> None:
        """Fail a job now.

        Raises: KeyError for an unknown job, ValueError for one that has ended.
        """
        self._workspace.end(_id_of(job), Failed(code, message))

    def cancel(self, job: SubmittedJob | str) -> None:
        """Cancel a job now, as somebody in the console would.

        Raises: KeyError for an unknown job, ValueError for one that has ended.
        """
        self._workspace.end(_id_of(job), Cancelled())

    def reset_quota(self) -> None:
        """Start counting the quota anew, as an upgrade of the plan would."""
        self._workspace.reset_quota()


def _id_of(job: SubmittedJob | str) -> str:
    return job.id if isinstance(job, SubmittedJob) else job
