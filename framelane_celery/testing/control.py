"""Two endpoints that are NOT part of Framelane's API: for tests that run the server in another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from werkzeug.wrappers import Response

from framelane_celery.testing.api import Api
from framelane_celery.testing.calls import Call, answer_json
from framelane_celery.testing.faults import Fault
from framelane_celery.testing.jobs import Cancelled, Failed
from framelane_celery.testing.views import job_view


def show_ledger(api: Api, call: Call) -> Response:
    """Answer what the server has seen; `?entries=0` leaves the requests themselves out.

    Shape:  {"note": "…", "now": epoch seconds, "counts": {…}, "jobs": {id: Job}, "jobs_per_task": {…}, "entries": […]}
    """
    now = api.clock.now()
    jobs = {job.id: job_view(job, job.life.phase(now), api.storage, api.switches) for job in api.workspace.jobs()}
    entries = [] if call.query.get("entries") == "0" else [entry.summary() for entry in api.ledger]
    return answer_json(
        {
            "note": "Not part of Framelane's API.",
            "now": now,
            "counts": api.ledger.counts(),
            "jobs": jobs,
            "jobs_per_task": api.ledger.jobs_per_task(),
            "entries": entries,
        }
    )


def obey(api: Api, call: Call) -> Response:
    """Do what a test in another process asks.

    Shape:  {"advance": seconds} | {"finish": job id} | {"cancel": job id} |
            {"fail": {"job_id": …, "code": …, "message": …}} | {"faults": [{"kind": …, …}]} | {"clear_faults": true} |
            {"clear_ledger": true} | {"reset_quota": true}; several at once are done in the order given.
    """
    orders = call.json_object()
    try:
        for name, argument in orders.items():
            _ORDERS[name](api, argument)
    except (KeyError, TypeError, ValueError) as error:
        return answer_json({"error": {"code": "invalid_request", "message": f"{type(error).__name__}: {error}"}}, 422)
    return answer_json({"done": list(orders)})


def _fail(api: Api, order: dict[str, Any]) -> None:
    words = {name: order[name] for name in ("code", "message") if name in order}
    api.workspace.end(order["job_id"], Failed(**words))


def _add_faults(api: Api, orders: list[dict[str, Any]]) -> None:
    for order in orders:
        api.faults.add(Fault(**order))


_ORDERS: dict[str, Callable[[Api, Any], object]] = {
    "advance": lambda api, seconds: api.clock.advance(float(seconds)),
    "finish": lambda api, job_id: api.workspace.end(job_id),
    "cancel": lambda api, job_id: api.workspace.end(job_id, Cancelled()),
    "fail": _fail,
    "faults": _add_faults,
    "clear_faults": lambda api, _: api.faults.clear(),
    "clear_ledger": lambda api, _: api.ledger.clear(),
    "reset_quota": lambda api, _: api.workspace.reset_quota(),
}
