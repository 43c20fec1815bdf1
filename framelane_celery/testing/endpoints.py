"""What each endpoint does with a request that was let in."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from werkzeug.wrappers import Response

from framelane_celery.testing.api import Api
from framelane_celery.testing.artefacts import content_of, make_artefact
from framelane_celery.testing.calls import Call, answer_json
from framelane_celery.testing.clock import iso
from framelane_celery.testing.files import serve_file
from framelane_celery.testing.jobs import OPERATIONS, STATUSES, TASK_TYPES, TERMINAL, Phase, StoredJob, Submission
from framelane_celery.testing.refusals import Problem, Refusal, refuse_invalid
from framelane_celery.testing.validation import OUTPUT_FORMATS, check_request
from framelane_celery.testing.views import job_view

MAX_WAIT_S = 25.0
DEFAULT_LIMIT, MAX_LIMIT = 50, 100
FREE_RENDER_MINUTES = 60  # docs.framelane.io/introduction/rate-limits; said, and not held to unless a test sets it


def submit(api: Api, call: Call, operation: str | None = None) -> Response:
    """Accept a render, or a media task when `operation` (`gaze-redirect`) is given: 202, or 200 for a replay.

    Source: docs.framelane.io/renders/overview, docs.framelane.io/tasks/overview.
    """
    task_type = OPERATIONS.get(operation) if operation else None
    if operation is not None and task_type is None:
        raise Refusal(404, "not_found", "Not found.")
    if api.switches.replay_counts_against_limit or not api.workspace.is_known_key(call.idempotency_key):
        api.count_submission(call, "task" if task_type else "render")
    return accept(api, call, task_type, call.json_object(), is_short=api.switches.short_post_body)


def accept(api: Api, call: Call, task_type: str | None, body: dict[str, Any], *, is_short: bool) -> Response:
    """Check a request, and make a job of it."""
    problems = check_request(task_type, body, api.is_good_source)
    refusal = refuse_invalid(problems, api.switches) if problems else None
    submission = Submission("task" if task_type else "render", task_type, body, call.idempotency_key, 0)
    accepted = api.workspace.submit(submission, call.path, _fingerprint(api, call, body), refusal)
    call.job_id, call.is_replay, call.is_new_job = accepted.job.id, accepted.is_replay, not accepted.is_replay
    is_current = accepted.is_replay and api.switches.replay_shows == "current"
    phase = accepted.job.life.phase(api.clock.now()) if is_current else accepted.job.life.accepted()
    view = _view(api, accepted.job, phase)
    if is_short:
        view = {"id": view["id"], "status": view["status"]}
    return answer_json(view, 200 if accepted.is_replay else 202)


def get_job(api: Api, call: Call, kind: str, job_id: str) -> Response:
    """Read one job; with `?wait=` hold the request until it ends.

    Units:  wait is seconds, 0 to 25 (site llms.txt; what is beyond is INFER).
    """
    job = _find(api, call, kind, job_id)
    api.count_read(call)
    call.wait_s = _wait_seconds(api, call)
    if call.wait_s and api.switches.has_wait:
        api.ledger.hold(+1)
        try:
            job = api.workspace.wait(job_id, call.wait_s)
        finally:
            api.ledger.hold(-1)
    return answer_json(_view(api, job))


def list_jobs(api: Api, call: Call, kind: str) -> Response:
    """List one kind of job, newest first (INFER), page by page.

    Shape:  {"data": [Job], "next_cursor": string|null, "has_more": bool}
    Source: docs.framelane.io/api-reference/tasks/list-tasks; limit (1 to 100, 50 unless given) and cursor are INFER.
    """
    if not api.switches.has_list:
        raise Refusal(404, "not_found", "Not found.")
    api.count_read(call)
    limit, below, wanted = _list_query(api, call, kind)
    now = api.clock.now()
    found = []
    for job in api.workspace.newest(below):
        if not _may_be_shown(job, kind, wanted, now):
            continue
        phase = job.life.phase(now)
        if "status" not in wanted or phase.status == wanted["status"]:
            found.append((job, phase))
        if len(found) > limit:
            break
    page, has_more = found[:limit], len(found) > limit
    cursor = base64.urlsafe_b64encode(str(page[-1][0].number).encode()).decode() if has_more else None
    data = [_view(api, job, phase) for job, phase in page]
    return answer_json({"data": data, "next_cursor": cursor, "has_more": has_more})


def cancel_job(api: Api, call: Call, kind: str, job_id: str) -> Response:
    """Cancel one job: 200 with the job or 204, 409 when it is too late (all INFER)."""
    job = api.workspace.cancel(_find(api, call, kind, job_id))
    return Response(status=204) if api.switches.cancel_answer == "empty" else answer_json(_view(api, job))


def download(api: Api, call: Call, kind: str, job_id: str) -> Response:
    """Redirect to a fresh signed URL on the storage host.

    Source: docs.framelane.io/renders/overview; 409 before the job is completed is INFER.
    """
    job = _find(api, call, kind, job_id)
    now = api.clock.now()
    status = job.life.phase(now).status
    if status != "completed":
        raise Refusal(409, "conflict", f"The {kind} is {status}; there is nothing to download.")
    url = api.storage.sign(job.id, make_artefact(job.submission).extension, now + api.switches.signed_url_lives_s)
    return Response(status=api.switches.download_status, headers={"Location": url})


def stored_file(api: Api, call: Call, job_id: str, filename: str) -> Response:
    """Serve a finished file to who has a signed URL; no part of the API."""
    has_authorization = "Authorization" in call.request.headers
    if has_authorization:
        call.note = "authorization_sent_to_storage"
    api.storage.check(call.path, call.query, has_authorization)
    job = api.workspace.get(job_id)
    if job is None:
        raise Refusal(404, "not_found", "No such file.")
    call.job_id = job_id
    return serve_file(call, content_of(job), make_artefact(job.submission).content_type)


def usage(api: Api, call: Call) -> Response:
    """Answer what this period's work was.

    Source: docs.framelane.io/api-reference/workspace/get-workspace-usage; the console reads other names.
    """
    start, end, used = api.workspace.usage()
    limit = api.workspace.quota.limits.get("render_minutes")
    docs = {"render_minutes": used.render_minutes, "task_count": used.tasks, "egress_bytes": 0}
    console = {
        "render_minutes_used": used.render_minutes,
        "render_minutes_limit": FREE_RENDER_MINUTES if limit is None else limit,
        "renders_count": used.renders,
        "tasks_count": used.tasks,
    }
    counts = {"docs": docs, "console": console, "both": {**docs, **console}}[api.switches.usage_spelling]
    return answer_json({"period_start": iso(start), "period_end": iso(end), **counts})


def capabilities(api: Api, call: Call) -> Response:
    """Answer the catalogue, without a key.

    Source: docs.framelane.io/api-reference/capabilities; its field names are shown nowhere, so these are INFER.
    """
    limits = {"renders_per_minute": api.renders.limit, "tasks_per_minute": api.tasks.limit}
    return answer_json(
        {
            "task_types": [{"name": name, "supported": True} for name in TASK_TYPES],
            "output_formats": [{"name": name, "supported": True} for name in OUTPUT_FORMATS],
            "rate_limits": limits,
            "quota": dict(api.workspace.quota.limits),
            "onboarding": {},
        }
    )


def _view(api: Api, job: StoredJob, phase: Phase | None = None) -> dict[str, Any]:
    return job_view(job, phase or job.life.phase(api.clock.now()), api.storage, api.switches)


def _find(api: Api, call: Call, kind: str, job_id: str) -> StoredJob:
    job = api.workspace.get(job_id)
    if job is None or job.kind != kind:
        raise Refusal(404, "not_found", f"{kind.capitalize()} not found.")
    call.job_id = job_id
    return job


def _may_be_shown(job: StoredJob, kind: str, wanted: Mapping[str, str], now: float) -> bool:
    """What can be told of a job without its phase, of which a list that skips thousands would make thousands."""
    if job.kind != kind or wanted.get("type", job.submission.task_type) != job.submission.task_type:
        return False
    if "status" not in wanted:
        return True
    ends_at = job.life.ends_at
    return (ends_at is not None and now >= ends_at) == (wanted["status"] in TERMINAL)


def _fingerprint(api: Api, call: Call, body: dict[str, Any]) -> bytes:
    if api.switches.body_equality == "bytes":
        return call.body
    return json.dumps(body, sort_keys=True).encode()


def _wait_seconds(api: Api, call: Call) -> float | None:
    if "wait" not in call.query:
        return None
    try:
        seconds = float(call.query["wait"])
    except ValueError:
        seconds = -1.0
    if 0 <= seconds <= MAX_WAIT_S:
        return seconds
    if api.switches.wait_out_of_range == "clamp" and seconds > MAX_WAIT_S:
        return MAX_WAIT_S
    raise refuse_invalid([Problem(("wait",), "must be a number of seconds from 0 to 25")], api.switches)


def _list_query(api: Api, call: Call, kind: str) -> tuple[int, float, dict[str, str]]:
    problems, limit, below = [], DEFAULT_LIMIT, float("inf")
    text = call.query.get("limit", str(DEFAULT_LIMIT))
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_LIMIT:
        limit = int(text)
    else:
        problems.append(Problem(("limit",), f"must be an integer from 1 to {MAX_LIMIT}"))
    try:
        below = int(base64.urlsafe_b64decode(call.query["cursor"])) if call.query.get("cursor") else below
    except ValueError:
        problems.append(Problem(("cursor",), "is not a cursor of this list"))
    known = {"status": STATUSES, **({"type": TASK_TYPES} if kind == "task" else {})}
    wanted = {name: call.query[name] for name in known if call.query.get(name)} if api.switches.list_filters else {}
    for name, value in wanted.items():
        if value not in known[name]:
            problems.append(Problem((name,), f"must be one of {', '.join(known[name])}"))
    if problems:
        raise refuse_invalid(problems, api.switches)
    return limit, below, wanted
