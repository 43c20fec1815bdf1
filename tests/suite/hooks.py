"""(h) Webhooks lost, ten-fold, reordered and forged."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from werkzeug.serving import WSGIRequestHandler, make_server

from framelane_celery import webhooks
from framelane_celery.testing import Deliveries
from framelane_celery.testing.webhooks import Sender
from tests.suite.crew import Crew
from tests.suite.frame import Fault, Form, Round
from tests.suite.ground import Ground, lasts, make_ground
from tests.suite.ledger import Ledger
from tests.worker.stacks import wait_for

SECRET = "whsec_suite"


class Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Say nothing."""


class Receiver:
    """A user's web process: `receive` behind a URL, and whether work was in flight then."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.live: Counter[int] = Counter()
        """The same, of those that came while a record waited."""
        self.ground: Ground | None = None
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self._server.port}/hooks"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def _answer(self, environ: Any, start_response: Any) -> Any:
        assert self.ground is not None
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        is_live = self.ground.in_flight() > 0
        try:
            webhooks.receive(environ, body, app=self.ground.stack.app)
            status = 200
        except webhooks.WebhookRefused:
            status = 400
        self.answers[status] += 1
        self.live[status] += is_live
        start_response(f"{status} Any", [("Content-Length", "0")])
        return [b""]

    @contextmanager
    def open(self) -> Iterator[Receiver]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(10)


class Hooks(NamedTuple):
    rounds: tuple[str, ...]
    jobs: int
    forged: int
    """Beside each job's own."""
    spread_s: float


HOOKS: dict[Form, Hooks] = {
    "full": Hooks(("lost", "ten-fold", "reordered", "forged"), 200, 50, 10.0),
    "short": Hooks(("all at once",), 20, 10, 2.0),
}


def _hooks(hooks: Hooks, what: str, transport: str, folder: Path) -> Ledger:
    how = {
        "lost": Deliveries(lose=0.5, seed=1),
        "ten-fold": Deliveries(copies=10),
        "reordered": Deliveries(spread_s=hooks.spread_s, seed=2),
        "forged": Deliveries(forged=hooks.forged),
        "all at once": Deliveries(lose=0.3, copies=2, spread_s=hooks.spread_s, forged=hooks.forged, seed=3),
    }[what]
    receiver = Receiver()
    server = {"webhook_url": receiver.url, "webhook_secret": SECRET, "deliveries": how}
    framelane = {"webhook_secrets": [SECRET]}
    with make_ground(transport, folder, server=server, framelane=framelane) as ground, receiver.open():
        receiver.ground = ground
        with Crew(ground.stack, 1, "-c", "4"):
            held = ground.call("held")  # work is in flight until the last event has come
            ground.calls(hooks.jobs, lasts(3))
            wait_for(lambda: ground.in_flight() <= 1, 300, "all but one over", every_s=0.2)
            _until_sent(ground)
            wait_for(lambda: ground.stack.record(held).job_id, 60, "the last one's job")
            before = Counter(receiver.live)
            ground.server.finish(ground.stack.record(held).job_id)
            ground.until_over()
            _until_sent(ground)
        _judge(ground, receiver, before, what, hooks)
        return ground.count()


def _until_sent(ground: Ground) -> None:
    sender: Sender = ground.server._sender
    ended = {job["id"] for job in ground.server.jobs.values() if job["status"] == "completed"}
    wait_for(lambda: sender._told >= ended, 100, "all ends told", every_s=0.2)
    wait_for(lambda: not sender._parcels, 300, "all events sent", every_s=0.2)
    wait_for(lambda: len(sender.delivered) >= sender._posted, 300, "all events answered", every_s=0.2)


def _judge(ground: Ground, receiver: Receiver, live: Counter[int], what: str, hooks: Hooks) -> None:
    """How many of the planned faults came while work was in flight."""
    ledger, delivered = ground.ledger, ground.server.delivered
    told = {one.job_id for one in delivered if not one.is_forged}
    planned, hit = {
        "lost": (hooks.jobs - len(told), hooks.jobs - len(told)),  # what is lost was of a job that a record awaited
        "ten-fold": (hooks.jobs * 10, live[200]),
        "reordered": (hooks.jobs, live[200]),
        "forged": (hooks.jobs * hooks.forged, live[400]),
        "all at once": (len(delivered), live[200] + live[400]),
    }[what]
    ledger.faults_planned, ledger.faults_hit = planned, min(hit, planned)
    forged = sum(one.is_forged for one in delivered)
    ledger.figures |= {"events": len(delivered), "refused": receiver.answers[400], "forged": forged}
    taken = sum(one.is_forged and one.status == 200 for one in delivered)
    ledger.check(taken == 0, f"{taken} forged webhooks were taken")
    ledger.check(receiver.answers[400] == forged, f"{receiver.answers[400]} of {forged} forged ones were refused")
    if what == "reordered":
        ended = [job_id for job_id in ground.server.jobs if job_id in told]
        came = list(dict.fromkeys(one.job_id for one in delivered))
        moved = sum(one != other for one, other in zip(ended, came, strict=False))
        ledger.figures["out_of_order"] = moved


def _rounds(form: Form) -> Mapping[str, Round]:
    return {what: partial(_hooks, HOOKS[form], what) for what in HOOKS[form].rounds}


WEBHOOKS = Fault("webhooks lost, ten-fold, reordered, 10,000 forged", _rounds)
