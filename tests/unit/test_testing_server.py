"""The local server, through real sockets: what a client can rely on, and every switch both ways."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any

import pytest
import requests

from framelane_celery.client import FramelaneClient
from framelane_celery.errors import InvalidSource, NotFound
from framelane_celery.models import Preview, RenderRequest, parse_request
from framelane_celery.testing import (
    Cancelled,
    Completed,
    Failed,
    Fault,
    FramelaneServer,
    Never,
    Submission,
    Switches,
)

VIDEO = {"type": "video", "source_url": "https://media.example/a.mp4"}
RENDER = {"elements": [VIDEO], "duration": 30, "metadata": {"celery_task_id": "t-1"}}


class Caller(requests.Session):
    """A session with the server's key that takes paths."""

    def __init__(self, server: FramelaneServer) -> None:
        super().__init__()
        self.trust_env = False
        self.server = server
        self.headers["Authorization"] = f"Bearer {server.api_key}"

    def request(self, method: Any, url: Any, *args: Any, **named: Any) -> requests.Response:
        address = f"{self.server.base_url}{url}" if url.startswith("/") else url
        return super().request(method, address, *args, **{"timeout": 60, **named})

    def submit(self, body: Any = None, *, key: str | None = None, path: str = "/v1/renders") -> requests.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.post(path, json=RENDER if body is None else body, headers=headers)


@contextmanager
def serving(**options: Any) -> Iterator[Caller]:
    with FramelaneServer(**options) as server, Caller(server) as caller:
        yield caller


@pytest.fixture
def api() -> Iterator[Caller]:
    """A server whose clock only the test moves; a job takes ten seconds."""
    with serving(virtual_time=True, job_seconds=10) as caller:
        yield caller


def error_code(response: requests.Response) -> str:
    code: str = response.json()["error"]["code"]
    return code


# ------------------------------------------------------------------ the job


def test_a_job_lives_from_queued_to_completed(api: Caller) -> None:
    accepted = api.submit()
    assert accepted.status_code == 202
    job = accepted.json()
    assert job["id"].startswith("render_")
    assert (job["kind"], job["status"], job["task_type"], job["output"], job["error"], job["completed_at"]) == (
        ("render", "queued", None, None, None, None)
    )
    assert job["metadata"] == {"celery_task_id": "t-1"}
    seen = []
    for _ in range(4):
        api.server.clock.advance(2.5)
        seen.append(api.get(f"/v1/renders/{job['id']}").json())
    assert [job["status"] for job in seen] == ["processing", "processing", "processing", "completed"]
    percents = [job["progress_percent"] for job in seen]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert [job["progress_stage"] for job in seen] == ["downloading", "compositing", "encoding", None]
    output = seen[-1]["output"]
    assert (output["width"], output["height"], output["duration"]) == (1280, 720, 30.0)
    assert seen[-1]["completed_at"].endswith("Z")


def test_the_fields_are_those_of_the_reference_page(api: Caller) -> None:
    documented = {
        "id", "kind", "workspace_id", "status", "created_at", "updated_at", "task_type", "progress_percent",
        "progress_stage", "output", "error", "metadata", "completed_at",
    }  # fmt: skip
    assert set(api.submit().json()) == documented


def test_external_sources_are_ingested_first(api: Caller) -> None:
    job = api.submit({**RENDER, "ingest_external": True}).json()
    assert job["status"] == "ingesting"
    api.server.clock.advance(1.5)
    assert api.get(f"/v1/renders/{job['id']}").json()["status"] == "queued"


@pytest.mark.parametrize(
    ("operation", "task_type"),
    [
        ("transcribe", "transcribe"),
        ("remove-background", "remove_background"),
        ("gaze-redirect", "gaze_redirect"),
        ("super-resolution", "super_resolution"),
    ],
)
def test_media_tasks_have_hyphens_in_urls_and_underscores_in_jobs(api: Caller, operation: str, task_type: str) -> None:
    job = api.submit({"source_url": "https://media.example/a.mp4"}, path=f"/v1/tasks/{operation}").json()
    assert (job["kind"], job["task_type"]) == ("task", task_type)
    assert api.get(f"/v1/tasks/{job['id']}").status_code == 200
    assert api.get(f"/v1/renders/{job['id']}").status_code == 404


def test_an_unknown_operation_is_not_found(api: Caller) -> None:
    assert api.submit({"source_url": "https://a.example/a.mp4"}, path="/v1/tasks/remove_background").status_code == 404


def choose(submission: Submission) -> Any:
    ends = {
        "fail": Failed("source_not_found", "Source URL returned 404."),
        "cancel": Cancelled(),
        "never": Never(),
        "odd": Completed({"width": None}),
    }
    return ends[submission.metadata["end"]]


def test_the_test_chooses_outcome_and_duration() -> None:
    def take(submission: Submission) -> float:
        return 5.0 if submission.metadata["end"] == "odd" else 1.0

    with serving(virtual_time=True, outcome=choose, duration=take) as api:
        ids = {
            end: api.submit({**RENDER, "metadata": {"end": end}}).json()["id"]
            for end in ("fail", "cancel", "never", "odd")
        }
        api.server.clock.advance(2)
        jobs = api.server.jobs
        assert [jobs[job_id]["status"] for job_id in ids.values()] == [
            "failed",
            "cancelled",
            "processing",
            "processing",
        ]
        assert jobs[ids["fail"]]["error"] == {"code": "source_not_found", "message": "Source URL returned 404."}
        api.server.clock.advance(10_000)
        assert api.server.jobs[ids["never"]]["status"] == "processing"
        assert api.server.jobs[ids["odd"]]["output"]["width"] is None


def test_a_test_can_end_a_job_itself(api: Caller) -> None:
    first, second, third = (api.submit().json()["id"] for _ in range(3))
    api.server.finish(first, duration=1.5)
    api.server.fail(second, "codec_unsupported")
    api.server.cancel(third)
    jobs = api.server.jobs
    assert [jobs[job_id]["status"] for job_id in (first, second, third)] == ["completed", "failed", "cancelled"]
    assert jobs[first]["output"]["duration"] == 1.5
    assert jobs[second]["error"]["code"] == "codec_unsupported"
    with pytest.raises(ValueError, match="has ended already: completed"):
        api.server.fail(first)


def test_a_mistake_in_the_tests_own_callable_is_a_500_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Submission) -> float:
        raise LookupError("no such duration")

    with serving(duration=broken) as api:
        assert api.submit().status_code == 500
    assert "no such duration" in caplog.text


# ------------------------------------------------------------------ keys


def test_the_key_of_the_account_is_needed(api: Caller) -> None:
    missing = requests.get(f"{api.server.base_url}/v1/renders", timeout=5)
    assert (missing.status_code, missing.json()) == (
        401,
        {"error": {"code": "unauthorized", "message": "Missing Authorization header."}},
    )
    assert api.get("/v1/renders", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert api.get("/v1/renders", headers={"Authorization": f"Basic {api.server.api_key}"}).status_code == 401
    assert requests.get(f"{api.server.base_url}/v1/capabilities", timeout=5).status_code == 200


def test_an_unverified_account_is_forbidden() -> None:
    with serving(unverified_keys=("fl_new",)) as api:
        refused = api.get("/v1/renders", headers={"Authorization": "Bearer fl_new"})
        assert (refused.status_code, error_code(refused)) == (403, "email_not_verified")


def test_the_same_key_and_body_is_one_job(api: Caller) -> None:
    first, again = api.submit(key="k"), api.submit(key="k")
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    assert len(api.server.jobs) == 1
    assert [entry.is_replay for entry in api.server.ledger.posts()] == [False, True]


def test_without_a_key_each_post_is_a_job(api: Caller) -> None:
    assert api.submit().json()["id"] != api.submit().json()["id"]


@pytest.mark.parametrize(
    ("body", "path"),
    [({**RENDER, "duration": 31}, "/v1/renders"), ({"source_url": VIDEO["source_url"]}, "/v1/tasks/transcribe")],
)
def test_the_same_key_with_something_else_is_a_conflict(api: Caller, body: Any, path: str) -> None:
    api.submit(key="k")
    refused = api.submit(body, key="k", path=path)
    assert (refused.status_code, error_code(refused)) == (409, "conflict")


def test_a_key_belongs_to_one_endpoint(api: Caller) -> None:
    body = {"source_url": "https://media.example/a.mp4"}
    assert api.submit(body, key="k", path="/v1/tasks/transcribe").status_code == 202
    assert api.submit(body, key="k", path="/v1/tasks/gaze-redirect").status_code == 409


def test_a_key_is_forgotten_after_24_hours(api: Caller) -> None:
    first = api.submit(key="k").json()["id"]
    api.server.clock.advance(86_399)
    assert api.submit(key="k").json()["id"] == first
    api.server.clock.advance(2)
    late = api.submit(key="k")
    assert late.status_code == 202
    assert late.json()["id"] != first


def test_a_refused_request_leaves_no_trace_under_its_key(api: Caller) -> None:
    assert api.submit({**RENDER, "width": 1}, key="k").status_code == 422
    assert api.submit(key="k").status_code == 202


def test_a_hundred_posts_at_once_with_one_key_are_one_job(api: Caller) -> None:
    with ThreadPoolExecutor(20) as pool:
        statuses = sorted(pool.map(lambda _: api.submit(key="k").status_code, range(100)))
    assert statuses == [200] * 99 + [202]
    assert len(api.server.jobs) == 1


@pytest.mark.parametrize(("rule", "status"), [("canonical", 200), ("bytes", 409)])
def test_what_the_same_body_means_is_a_switch(rule: Any, status: int) -> None:
    with serving(switches=Switches(body_equality=rule)) as api:
        headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        first = api.post("/v1/renders", data=json.dumps(RENDER), headers=headers)
        other_bytes = api.post("/v1/renders", data=json.dumps(RENDER, indent=2), headers=headers)
        assert (first.status_code, other_bytes.status_code) == (202, status)


@pytest.mark.parametrize(("shown", "status"), [("current", "completed"), ("original", "queued")])
def test_what_a_replay_shows_is_a_switch(shown: Any, status: str) -> None:
    with serving(virtual_time=True, job_seconds=1, switches=Switches(replay_shows=shown)) as api:
        first = api.submit(key="k").json()
        api.server.clock.advance(5)
        again = api.submit(key="k").json()
        assert again["status"] == status
        assert (again == first) is (shown == "original")


# ------------------------------------------------------------------ waiting


def test_a_long_poll_is_answered_when_the_job_ends() -> None:
    with serving(job_seconds=0.15) as api:
        job_id = api.submit().json()["id"]
        assert api.get(f"/v1/renders/{job_id}?wait=20").json()["status"] == "completed"


def test_a_long_poll_comes_back_when_its_time_is_over() -> None:
    with serving(job_seconds=60) as api:
        job_id = api.submit().json()["id"]
        answer = api.get(f"/v1/renders/{job_id}?wait=0.05")
        assert (answer.status_code, answer.json()["status"]) == (200, "queued")


def test_a_virtual_clock_ends_long_polls(api: Caller) -> None:
    job_id = api.submit().json()["id"]
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(api.get, f"/v1/renders/{job_id}?wait=20")
        assert api.server.ledger.wait_until(lambda ledger: ledger.long_polls == 1, 60)
        api.server.clock.advance(11)
        assert held.result(60).json()["status"] == "completed"


def hold_long_polls(api: Caller, count: int) -> tuple[list[threading.Thread], list[str], list[str]]:
    job_ids = [api.submit().json()["id"] for _ in range(count)]
    answers: list[str] = []

    def poll(job_id: str) -> None:
        with Caller(api.server) as caller:
            answers.append(caller.get(f"/v1/renders/{job_id}?wait=25").json()["status"])

    threads = [threading.Thread(target=poll, args=(job_id,)) for job_id in job_ids]
    for thread in threads:
        thread.start()
    assert api.server.ledger.wait_until(lambda ledger: ledger.long_polls == count, 60)
    return threads, job_ids, answers


def test_a_hundred_and_twenty_long_polls_are_held_at_once_and_each_wakes_for_its_own_job(api: Caller) -> None:
    threads, job_ids, answers = hold_long_polls(api, 120)
    api.server.finish(job_ids[7])
    assert api.server.ledger.wait_until(lambda ledger: ledger.long_polls == 119, 60)
    api.server.clock.advance(11)
    for thread in threads:
        thread.join(60)
    assert answers == ["completed"] * 120


def test_the_server_stops_at_once_with_long_polls_in_flight() -> None:
    with serving(outcome=lambda _: Never()) as api:
        threads, _, answers = hold_long_polls(api, 20)
        began = time.monotonic()
        api.server.stop()
        assert time.monotonic() - began < 10  # they could be held for 25 s
        for thread in threads:
            thread.join(60)
        assert len(answers) == 20  # let go with an answer, not cut off
        with pytest.raises(requests.ConnectionError):
            api.get("/v1/capabilities")
        api.server.stop()


def test_wait_can_be_unknown_to_the_server() -> None:
    with serving(outcome=lambda _: Never(), switches=Switches(has_wait=False)) as api:
        job_id = api.submit().json()["id"]
        began = time.monotonic()
        assert api.get(f"/v1/renders/{job_id}?wait=25").status_code == 200
        assert time.monotonic() - began < 15
        assert api.server.ledger.reads()[-1].wait_s == 25.0


@pytest.mark.parametrize("wait", ["26", "-1", "soon", "nan"])
def test_a_wait_out_of_range_is_refused(api: Caller, wait: str) -> None:
    job_id = api.submit().json()["id"]
    refused = api.get(f"/v1/renders/{job_id}", params={"wait": wait})
    assert refused.status_code == 422
    assert "wait" in refused.json()["error"]["message"]


def test_a_wait_out_of_range_can_be_cut_short() -> None:
    with serving(job_seconds=0.05, switches=Switches(wait_out_of_range="clamp")) as api:
        job_id = api.submit().json()["id"]
        assert api.get(f"/v1/renders/{job_id}?wait=999").json()["status"] == "completed"
        assert api.server.ledger.reads()[-1].wait_s == 25.0


# ------------------------------------------------------------------ lists


def test_a_list_goes_page_by_page_newest_first_and_stays_steady_while_jobs_come(api: Caller) -> None:
    ids = [api.submit().json()["id"] for _ in range(5)]
    first = api.get("/v1/renders?limit=2").json()
    assert [job["id"] for job in first["data"]] == [ids[4], ids[3]]
    assert first["has_more"] is True
    api.submit()
    second = api.get("/v1/renders", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    third = api.get("/v1/renders", params={"limit": 2, "cursor": second["next_cursor"]}).json()
    assert [job["id"] for job in second["data"] + third["data"]] == [ids[2], ids[1], ids[0]]
    assert (third["has_more"], third["next_cursor"]) == (False, None)


def test_lists_are_filtered_by_status_and_type(api: Caller) -> None:
    source = {"source_url": "https://media.example/a.mp4"}
    done = api.submit(source, path="/v1/tasks/transcribe").json()["id"]
    other = api.submit(source, path="/v1/tasks/gaze-redirect").json()["id"]
    api.submit()
    api.server.finish(done)

    def listed(**query: str) -> list[str]:
        return [job["id"] for job in api.get("/v1/tasks", params=query).json()["data"]]

    assert listed() == [other, done]
    assert listed(status="completed") == [done]
    assert listed(type="gaze_redirect") == [other]
    assert listed(type="gaze_redirect", status="completed") == []


@pytest.mark.parametrize("query", ["type=gaze-redirect", "status=done", "limit=0", "limit=101", "limit=x", "cursor=!"])
def test_a_bad_list_query_is_refused_by_name(api: Caller, query: str) -> None:
    refused = api.get(f"/v1/tasks?{query}")
    assert refused.status_code == 422
    assert query.partition("=")[0] in refused.json()["error"]["message"]


def test_lists_can_ignore_filters_or_be_missing() -> None:
    with serving(switches=Switches(list_filters=False)) as api:
        api.submit()
        assert len(api.get("/v1/renders?status=completed").json()["data"]) == 1
    with serving(switches=Switches(has_list=False)) as api:
        missing = api.get("/v1/renders")
        assert (missing.status_code, error_code(missing)) == (404, "not_found")


# ------------------------------------------------------------------ cancelling


def test_a_queued_job_is_cancelled_and_an_ended_one_is_not(api: Caller) -> None:
    job_id = api.submit().json()["id"]
    cancelled = api.delete(f"/v1/renders/{job_id}")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    again = api.delete(f"/v1/renders/{job_id}")
    assert (again.status_code, error_code(again)) == (409, "conflict")
    assert api.delete("/v1/renders/render_unknown").status_code == 404
    assert len(api.server.ledger.cancels()) == 3


@pytest.mark.parametrize(("allowed", "status"), [(True, 200), (False, 409)])
def test_cancelling_a_job_in_processing_is_a_switch(allowed: bool, status: int) -> None:
    with serving(outcome=lambda _: Never(), job_seconds=0, switches=Switches(cancel_processing=allowed)) as api:
        job_id = api.submit().json()["id"]
        assert api.get(f"/v1/renders/{job_id}").json()["status"] == "processing"
        assert api.delete(f"/v1/renders/{job_id}").status_code == status


def test_a_cancel_can_be_answered_with_nothing() -> None:
    with serving(job_seconds=60, switches=Switches(cancel_answer="empty")) as api:
        answer = api.delete(f"/v1/renders/{api.submit().json()['id']}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert api.get("/v1/renders").status_code == 200  # the connection is still in step


# ------------------------------------------------------------------ download


@pytest.mark.parametrize("status", [302, 303, 307])
def test_a_download_is_redirected_to_another_host(status: Any) -> None:
    with serving(job_seconds=0, switches=Switches(download_status=status)) as api:
        job_id = api.submit().json()["id"]
        redirect = api.get(f"/v1/renders/{job_id}/download", allow_redirects=False)
        assert redirect.status_code == status
        assert redirect.headers["Location"].startswith(f"http://localhost:{api.server.base_url.rpartition(':')[2]}/")
        video = api.get(f"/v1/renders/{job_id}/download")  # requests drops the key when the host changes
        assert video.status_code == 200
        assert video.headers["Content-Type"] == "video/mp4"
        assert video.content[4:8] == b"ftyp"
        assert len(video.content) == api.server.jobs[job_id]["output"]["size_bytes"]


def test_a_key_sent_to_the_storage_host_is_noticed(api: Caller) -> None:
    job_id = api.submit().json()["id"]
    api.server.finish(job_id)
    leaked = api.get(api.server.jobs[job_id]["output"]["url"])
    assert leaked.status_code == 400
    assert [entry.note for entry in api.server.ledger][-1] == "authorization_sent_to_storage"


def test_signed_urls_are_checked_and_expire(api: Caller) -> None:
    job_id = api.submit().json()["id"]
    api.server.finish(job_id)
    url = api.get(f"/v1/renders/{job_id}/download", allow_redirects=False).headers["Location"]
    assert requests.get(url, timeout=5).status_code == 200
    assert requests.get(f"{url[:-1]}x", timeout=5).status_code == 403
    assert requests.get(url.partition("?")[0], timeout=5).status_code == 403
    api.server.clock.advance(901)
    assert requests.get(url, timeout=5).status_code == 403


def test_there_is_nothing_to_download_before_the_end(api: Caller) -> None:
    refused = api.get(f"/v1/renders/{api.submit().json()['id']}/download")
    assert (refused.status_code, error_code(refused)) == (409, "conflict")


def test_a_transcript_is_json_with_milliseconds() -> None:
    with serving(job_seconds=0) as api:
        render = api.get(f"/v1/renders/{api.submit().json()['id']}").json()
        body = {"source_url": render["output"]["url"], "speaker_labels": True}  # a render of ours is a good source
        job = api.get(f"/v1/tasks/{api.submit(body, path='/v1/tasks/transcribe').json()['id']}").json()
        assert (job["output"]["width"], job["output"]["duration"]) == (None, None)
        transcript = requests.get(job["output"]["url"], timeout=5).json()
        assert [word["end"] for word in transcript["words"]][:2] == [350, 750]
        assert transcript["utterances"][0]["speaker"] == "A"


# ------------------------------------------------------------------ limits and quota


@pytest.mark.parametrize("with_header", [True, False])
def test_renders_are_limited_per_minute(with_header: bool) -> None:
    with serving(virtual_time=True, renders_per_minute=2, switches=Switches(retry_after_header=with_header)) as api:
        assert [api.submit().status_code for _ in range(2)] == [202, 202]
        api.server.clock.advance(12.5)
        refused = api.submit()
        assert (refused.status_code, error_code(refused)) == (429, "rate_limited")
        assert refused.json()["error"]["message"] == "Too many requests. Retry after 48 seconds."
        assert refused.headers.get("Retry-After") == ("48" if with_header else None)
        source = {"source_url": "https://media.example/a.mp4"}
        assert api.submit(source, path="/v1/tasks/transcribe").status_code == 202  # a limit of their own
        api.server.clock.advance(48)
        assert api.submit().status_code == 202


def test_the_limits_are_those_of_the_documentation(api: Caller) -> None:
    assert api.get("/v1/capabilities").json()["rate_limits"] == {"renders_per_minute": 120, "tasks_per_minute": 300}
    assert [api.submit().status_code for _ in range(121)] == [202] * 120 + [429]


def test_reads_can_be_limited_too() -> None:
    with serving(reads_per_minute=1) as api:
        assert [api.get("/v1/renders").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("status", [429, 402])
def test_the_quota_ends_and_comes_back_with_the_month(status: Any) -> None:
    switches = Switches(quota_status=status)
    with serving(virtual_time=True, start_at=1_767_225_600 - 3600, quota_renders=1, switches=switches) as api:
        assert api.submit(key="k").status_code == 202
        refused = api.submit()
        assert (refused.status_code, error_code(refused)) == (status, "quota_exceeded")
        assert "Retry-After" not in refused.headers
        assert api.submit(key="k").status_code == 200  # a replay costs nothing
        assert api.get("/v1/workspace/usage").json()["period_end"] == "2026-01-01T00:00:00Z"
        api.server.clock.advance(3600)
        assert api.submit().status_code == 202
        assert api.submit().status_code == status
        api.server.clock.advance(1)
        api.server.reset_quota()
        assert api.submit().status_code == 202


@pytest.mark.parametrize("status", [429, 402])
@pytest.mark.parametrize(
    ("option", "path", "body", "word"),
    [
        ("quota_renders", "/v1/renders", RENDER, "render"),
        ("quota_render_minutes", "/v1/renders", {**RENDER, "duration": 90}, "render"),
        ("quota_tasks", "/v1/tasks/transcribe", {"source_url": "https://media.example/a.mp3"}, "task"),
    ],
)
def test_a_job_that_is_refused_for_quota_is_none_and_the_ledger_has_the_post(
    status: Any, option: str, path: str, body: Any, word: str
) -> None:
    with serving(switches=Switches(quota_status=status), **{option: 1}) as api:
        made = api.submit(body, path=path, key="first").json()["id"]
        refused = api.submit(body, path=path, key="second")
        assert (refused.status_code, error_code(refused)) == (status, "quota_exceeded")
        message = f"Monthly {word} quota exhausted. Upgrade your plan or wait for reset."
        assert refused.json()["error"]["message"] == message
        assert list(api.server.jobs) == [made]
        last = api.server.ledger.posts()[-1]
        assert (last.status, last.idempotency_key, last.json()) == (status, "second", body)
        assert (last.job_id, last.is_new_job, last.is_replay) == (None, False, False)
        other = {"source_url": "https://media.example/a.mp3"} if word == "render" else RENDER
        other_path = "/v1/tasks/transcribe" if word == "render" else "/v1/renders"
        assert api.submit(other, path=other_path).status_code == 202  # a quota of its own
        assert requests.post(f"{api.server.base_url}/_control", json={"reset_quota": True}, timeout=5).ok
        assert api.submit(body, path=path, key="second").status_code == 202


def test_a_quota_can_have_a_period_that_a_test_waits_for() -> None:
    start_at = 1_767_225_600.0
    with serving(virtual_time=True, start_at=start_at, quota_renders=1, quota_period_s=0.1) as api:
        for number in range(5):
            usage = api.get("/v1/workspace/usage").json()
            bounds = [
                datetime.fromisoformat(usage[name].replace("Z", "+00:00")).timestamp()
                for name in ("period_start", "period_end")
            ]
            assert bounds == pytest.approx([start_at + number * 0.1, start_at + number * 0.1 + 0.1], abs=1e-5)
            assert usage["render_minutes"] == 0
            assert [api.submit().status_code for _ in range(2)] == [202, 429]
            api.server.clock.advance(0.1)


def test_a_period_is_counted_from_the_servers_start() -> None:
    server = FramelaneServer(virtual_time=True, start_at=1_767_225_600.0, quota_period_s=10)
    server.clock.advance(7)
    with server, Caller(server) as api:
        usage = api.get("/v1/workspace/usage").json()
        assert (usage["period_start"], usage["period_end"]) == ("2026-01-01T00:00:07Z", "2026-01-01T00:00:17Z")


def test_the_window_of_the_limits_can_be_scaled() -> None:
    with serving(virtual_time=True, renders_per_minute=1, reads_per_minute=1, rate_window_s=5) as api:
        assert api.submit().status_code == 202
        api.server.clock.advance(1.5)
        refused = api.submit()
        assert refused.json()["error"]["message"] == "Too many requests. Retry after 4 seconds."
        assert refused.headers["Retry-After"] == "4"
        api.server.clock.advance(3.5)
        assert api.submit().status_code == 202
        assert [api.get("/v1/renders").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("option", ["quota_period_s", "rate_window_s"])
def test_a_span_of_nothing_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be more than 0 seconds"):
        FramelaneServer(**{option: 0})


DOCS_USAGE = {"render_minutes": 0.5, "task_count": 1, "egress_bytes": 0}
CONSOLE_USAGE = {"render_minutes_used": 0.5, "render_minutes_limit": 60, "renders_count": 2, "tasks_count": 1}


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [("docs", DOCS_USAGE), ("console", CONSOLE_USAGE), ("both", {**DOCS_USAGE, **CONSOLE_USAGE})],
)
def test_usage_has_two_spellings_and_the_client_reads_them(spelling: Any, expected: dict[str, Any]) -> None:
    with serving(switches=Switches(usage_spelling=spelling)) as api:
        api.submit()
        api.submit({**RENDER, "output_format": "png"})  # a picture has no seconds
        api.submit({"source_url": "https://media.example/a.mp3"}, path="/v1/tasks/transcribe")
        usage = api.get("/v1/workspace/usage").json()
        assert {name: usage[name] for name in usage if not name.startswith("period_")} == expected
        with FramelaneClient(api.server.api_key, api.server.base_url) as client:
            read = client.get_usage()
        assert (read.render_minutes, read.task_count) == (0.5, 1)
        assert read.render_minutes_limit == (None if spelling == "docs" else 60)
        assert read.period_start is not None
        assert read.period_end is not None


def test_usage_says_the_limit_that_was_set() -> None:
    with serving(switches=Switches(usage_spelling="console"), quota_render_minutes=2.5) as api:
        assert api.get("/v1/workspace/usage").json()["render_minutes_limit"] == 2.5


def test_usage_is_the_length_of_what_was_made() -> None:
    text = {"type": "text", "text": "hi", "time": 10, "duration": 20}
    with serving(job_seconds=0) as api:
        job_id = api.submit({"elements": [text]}).json()["id"]
        assert api.server.jobs[job_id]["output"]["duration"] == 30.0
        assert api.get("/v1/workspace/usage").json()["render_minutes"] == 0.5


# ------------------------------------------------------------------ refusals under a key


INVALID = {**RENDER, "width": 1}


@pytest.mark.parametrize(("stores", "later"), [(True, 402), (False, 202)])
def test_a_refusal_for_quota_can_be_kept_under_its_key(stores: bool, later: int) -> None:
    switches = Switches(stores_refusals=stores, quota_status=402)
    with serving(virtual_time=True, quota_renders=1, quota_period_s=10, switches=switches) as api:
        api.submit()
        first = api.submit(key="k")
        api.server.clock.advance(10)
        again = api.submit(key="k")
        assert (first.status_code, again.status_code) == (402, later)
        assert (again.content == first.content) is stores
        assert api.server.ledger.posts()[-1].is_replay is stores
        assert api.submit(key="another").status_code == (202 if stores else 402)
        api.server.clock.advance(86_400)
        assert api.submit(key="k").status_code == 202  # forgotten


@pytest.mark.parametrize(("style", "status"), [("envelope", 422), ("fastapi", 400)])
def test_a_refusal_of_a_body_can_be_kept_under_its_key(style: Any, status: int) -> None:
    with serving(switches=Switches(stores_refusals=True, validation_style=style)) as api:
        first, again = api.submit(INVALID, key="k"), api.submit(INVALID, key="k")
        assert (first.status_code, again.status_code) == (status, status)
        assert first.content == again.content
        assert [entry.is_replay for entry in api.server.ledger.posts()] == [False, True]
        assert api.submit(key="k").status_code == 409  # another body under the same key
        assert api.submit(INVALID).status_code == status  # without a key there is nothing to keep it under
        assert api.submit(key="new").status_code == 202


def test_what_says_nothing_about_the_body_is_not_kept() -> None:
    with serving(
        virtual_time=True, renders_per_minute=1, unverified_keys=("fl_new",), switches=Switches(stores_refusals=True)
    ) as api:
        headers = {"Idempotency-Key": "k"}
        for key, status in (("wrong", 401), ("fl_new", 403)):
            refused = api.post("/v1/renders", json=RENDER, headers={**headers, "Authorization": f"Bearer {key}"})
            assert refused.status_code == status
        api.server.faults.add(Fault("status", status=500, times=1))
        assert api.submit(key="k").status_code == 500
        assert [api.submit(key="other").status_code, api.submit(key="k").status_code] == [202, 429]
        api.server.clock.advance(60)
        assert api.submit(key="k").status_code == 202


def test_a_job_is_replayed_although_refusals_are_kept() -> None:
    with serving(quota_renders=1, switches=Switches(stores_refusals=True)) as api:
        made = api.submit(key="k")
        assert api.submit(INVALID, key="k").status_code == 422  # takes nothing away from the job's key
        again = api.submit(key="k")
        assert (again.status_code, again.json()["id"]) == (200, made.json()["id"])


# ------------------------------------------------------------------ previews


TWICE = {"elements": [{**VIDEO, "id": "a"}, {**VIDEO, "id": "a"}]}


def dry_run(api: Caller, body: Any = None, **more: Any) -> requests.Response:
    return api.post("/v1/preview", json={**(RENDER if body is None else body), "dry_run": True, **more})


def test_a_dry_run_says_what_is_wrong_and_makes_nothing() -> None:
    with serving(renders_per_minute=1, quota_renders=1) as api:
        good, bad, odd = (dry_run(api, body) for body in (RENDER, TWICE, {"elements": [{"type": "text"}]}))
        assert (good.status_code, good.json()) == (200, {"ok": True, "violations": []})
        assert (bad.status_code, bad.json()["ok"]) == (200, False)
        (violation,) = bad.json()["violations"]
        assert set(violation) == {"code", "message", "severity", "path"}
        assert (violation["code"], violation["severity"]) == ("DUPLICATE_ELEMENT_ID", "error")
        assert violation["path"] == "elements[1].id"
        assert {found["path"] for found in odd.json()["violations"]} == {"elements[0].text", "elements[0].duration"}
        assert api.server.jobs == {}
        assert api.server.ledger.posts() == []
        assert len(api.server.ledger.previews()) == 3
        assert api.submit().status_code == 202  # neither the limit nor the quota was touched


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"elements": []}, "EMPTY_TIMELINE"),
        ({"elements": [{**VIDEO, "visible": False}]}, "EMPTY_TIMELINE"),
        ({"duration": 5, "elements": [VIDEO, {**VIDEO, "time": 5}]}, "ELEMENT_AFTER_END"),
        (
            {"elements": [{"type": "text", "text": "x", "duration": 1,
                           "word_animation": {"style": "glow", "words": [{"text": "x", "start": 0, "end": 2}]}}]},
            "WORD_OUTSIDE_TEXT",
        ),
    ],
)  # fmt: skip
def test_a_warning_does_not_make_a_composition_wrong(api: Caller, body: Any, code: str) -> None:
    answer = dry_run(api, body).json()
    assert answer["ok"] is True
    assert [(found["code"], found["severity"]) for found in answer["violations"]] == [(code, "warning")]
    assert api.submit(body).status_code == 202


@pytest.mark.parametrize("data", [b"[]", b"{", b"null"])
def test_a_dry_run_of_no_object_is_refused(api: Caller, data: bytes) -> None:
    refused = api.post("/v1/preview", data=data, headers={"Content-Type": "application/json"})
    assert (refused.status_code, error_code(refused)) == (422, "invalid_request")


@pytest.mark.parametrize("more", [{"dry_run": False}, {"dry_run": "true"}, {"dry_run": None, "at": 1.0}])
def test_only_dry_runs_are_served(api: Caller, more: dict[str, Any]) -> None:
    refused = dry_run(api, **more)
    assert (refused.status_code, error_code(refused)) == (422, "unsupported_feature")


def test_a_dry_run_needs_the_key_of_the_account(api: Caller) -> None:
    assert requests.post(f"{api.server.base_url}/v1/preview", json={"dry_run": True}, timeout=5).status_code == 401


@pytest.mark.parametrize("shape", ["fields", "render_request"])
def test_the_client_asks_in_whatever_shape_the_server_wants(shape: Any) -> None:
    with (
        serving(switches=Switches(preview_body=shape)) as api,
        FramelaneClient(api.server.api_key, api.server.base_url) as client,
    ):
        assert client.preview(parse_request(RenderRequest, RENDER)).ok is True
        wrong = client.preview(parse_request(RenderRequest, TWICE))
        assert (wrong.ok, [found.code for found in wrong.violations]) == (False, ["DUPLICATE_ELEMENT_ID"])


def test_previews_can_be_missing_or_refuse() -> None:
    def preview(request: dict[str, Any], **switches: Any) -> Preview:
        with (
            serving(switches=Switches(**switches)) as api,
            FramelaneClient(api.server.api_key, api.server.base_url) as client,
        ):
            return client.preview(parse_request(RenderRequest, request))

    http_source = {"elements": [{**VIDEO, "source_url": "http://media.example/a.mp4"}]}  # passes the client's model
    with pytest.raises(NotFound):
        preview(RENDER, has_preview=False)
    with pytest.raises(InvalidSource, match=r"elements\[0\]\.source_url"):
        preview(http_source, preview_refuses_schema=True)
    assert preview(http_source).violations[0].code == "invalid_source"
    assert preview(TWICE, preview_refuses_schema=True).ok is False


# ------------------------------------------------------------------ other switches


def test_an_unknown_status_passes_by() -> None:
    with serving(virtual_time=True, job_seconds=10, switches=Switches(unknown_status="warming_up")) as api:
        job_id = api.submit().json()["id"]
        seen = []
        for _ in range(4):
            api.server.clock.advance(2.6)
            seen.append(api.get(f"/v1/renders/{job_id}").json()["status"])
        assert seen == ["warming_up", "processing", "processing", "completed"]


def test_the_answer_to_a_post_can_be_short() -> None:
    with serving(switches=Switches(short_post_body=True)) as api:
        assert set(api.submit().json()) == {"id", "status"}


def test_a_refusal_names_the_field(api: Caller) -> None:
    refused = api.submit({"elements": [VIDEO, {"type": "text", "text": "hi"}]})
    assert (refused.status_code, error_code(refused)) == (422, "invalid_request")
    assert refused.json()["error"]["message"] == "elements[1].duration: is required"
    assert api.server.jobs == {}


def test_a_refusal_can_be_fastapis() -> None:
    with serving(switches=Switches(validation_style="fastapi")) as api:
        refused = api.submit({"width": 5})
        assert refused.status_code == 400
        assert refused.json()["detail"][0]["loc"] == ["body", "width"]


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"{}", "text/plain"),
        (b'{"a":NaN}', "application/json"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(api: Caller, data: bytes, content_type: str) -> None:
    refused = api.post("/v1/renders", data=data, headers={"Content-Type": content_type})
    assert (refused.status_code, error_code(refused)) == (422, "invalid_request")


def test_unknown_fields_are_ignored_in_silence(api: Caller) -> None:
    assert api.submit({**RENDER, "widht": 5}).status_code == 202


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("PUT", "/v1/renders", 405)])
def test_what_is_not_there(api: Caller, method: str, path: str, status: int) -> None:
    answer = api.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message"}


# ------------------------------------------------------------------ faults


def test_an_answer_can_be_lost_after_the_job_was_made(api: Caller) -> None:
    fault = api.server.faults.add(Fault("answer_lost", method="POST", times=1))
    with pytest.raises(requests.ConnectionError):
        api.submit(key="k")
    assert [(entry.status, entry.fault, entry.is_new_job) for entry in api.server.ledger] == [
        (None, "answer_lost", True)
    ]
    again = api.submit(key="k")
    assert again.status_code == 200
    assert list(api.server.jobs) == [again.json()["id"]]
    assert api.server.faults.struck(fault) == 1


def test_a_connection_can_be_reset_before_anything_happens(api: Caller) -> None:
    api.server.faults.add(Fault("reset", times=1))
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        api.submit()
    assert api.server.jobs == {}
    assert api.submit().status_code == 202


@pytest.mark.parametrize(
    ("fault", "status", "content_type"),
    [
        (Fault("status", status=503), 503, "application/json"),
        (Fault("status", status=502, html=True), 502, "text/html"),
        (Fault("html"), 200, "text/html"),
        (Fault("garbage"), 200, "application/json"),
    ],
)
def test_false_answers(api: Caller, fault: Fault, status: int, content_type: str) -> None:
    api.server.faults.add(fault)
    answer = api.submit()
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith(content_type)
    assert api.server.jobs == {}
    if fault.kind == "garbage":
        with pytest.raises(ValueError, match="Unterminated"):
            json.loads(answer.text)


def test_a_false_answer_can_come_after_acceptance(api: Caller) -> None:
    api.server.faults.add(Fault("status", status=502, accepted=True, times=1))
    assert api.submit(key="k").status_code == 502
    assert api.submit(key="k").status_code == 200


def test_a_slow_answer_can_outlast_the_reader(api: Caller) -> None:
    api.server.faults.add(Fault("slow", seconds=30, path="/v1/renders/*"))
    job_id = api.submit().json()["id"]
    with pytest.raises(requests.ReadTimeout):
        api.get(f"/v1/renders/{job_id}", timeout=(60, 0.1))
    began = time.monotonic()
    api.server.stop()
    assert time.monotonic() - began < 15


def test_chance_is_seeded() -> None:
    def fates(seed: int) -> list[int]:
        with serving() as api:
            api.server.faults.add(Fault("status", status=500, probability=0.3, seed=seed))
            return [api.get("/v1/capabilities").status_code for _ in range(30)]

    assert fates(1) == fates(1)
    assert fates(1) != fates(2)
    assert 0 < fates(1).count(500) < 30


def test_faults_hit_what_they_name(api: Caller) -> None:
    api.server.faults.add(Fault("status", method="GET", path="/v1/*/usage", after=1))
    statuses = [api.get(path).status_code for path in ("/v1/renders", "/v1/workspace/usage", "/v1/workspace/usage")]
    assert statuses == [200, 200, 500]
    api.server.faults.clear()
    assert api.get("/v1/workspace/usage").status_code == 200
    with pytest.raises(ValueError, match=r"Fault\.kind is 'hang'"):
        Fault("hang")  # type: ignore[arg-type]


# ------------------------------------------------------------------ ledger, control, sockets


def test_the_ledger_keeps_what_crossed(api: Caller) -> None:
    body = b'{"duration": 1, "metadata": {"celery_task_id": "t-9"}}'
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    job_id = api.post("/v1/renders", data=body, headers=headers).json()["id"]
    api.get(f"/v1/renders/{job_id}?wait=0")
    post, read = api.server.ledger
    assert (post.method, post.path, post.idempotency_key, post.body, post.status, post.job_id) == (
        ("POST", "/v1/renders", "k", body, 202, job_id)
    )
    assert (read.query, read.wait_s, read.status, read.job_id) == ({"wait": "0"}, 0.0, 200, job_id)
    assert api.server.ledger.jobs_per_task() == {"t-9": [job_id]}
    assert api.server.api_key not in repr(api.server.ledger.entries())


def test_another_process_can_look_and_command(api: Caller) -> None:
    first, second = (api.submit(key=key).json()["id"] for key in "ab")
    base = api.server.base_url

    def control(**orders: Any) -> requests.Response:
        return requests.post(f"{base}/_control", json=orders, timeout=5)

    assert control(finish=first, fail={"job_id": second, "code": "internal"}).json() == {"done": ["finish", "fail"]}
    seen = requests.get(f"{base}/_ledger", timeout=5).json()
    assert seen["counts"]["jobs"] == 2
    assert [seen["jobs"][job_id]["status"] for job_id in (first, second)] == ["completed", "failed"]
    assert seen["jobs_per_task"] == {"t-1": [first, second]}
    assert [entry["idempotency_key"] for entry in seen["entries"]] == ["a", "b"]
    assert requests.get(f"{base}/_ledger?entries=0", timeout=5).json()["entries"] == []
    assert control(faults=[{"kind": "status", "times": 1}]).status_code == 200
    assert api.get("/v1/renders").status_code == 500
    before = api.server.clock.now()
    control(advance=5)
    assert api.server.clock.now() == before + 5
    assert control(finish="render_unknown").status_code == 422
    assert control(explode=True).status_code == 422


def test_connections_are_kept(api: Caller) -> None:
    connection = http.client.HTTPConnection(api.server.base_url.removeprefix("http://"), timeout=5)
    connection.connect()
    connection.auto_open = 0  # a connection that was closed would raise, not be opened again
    with closing(connection):
        for path, status in (("/v1/capabilities", 200), ("/nowhere", 404), ("/v1/renders", 401)) * 5:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (status, True)


def test_chunked_bodies_and_head_keep_the_connection_in_step(api: Caller) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"duration"'
        yield b": 3}"

    assert api.post("/v1/renders", data=chunks(), headers={"Content-Type": "application/json"}).status_code == 202
    assert api.head("/v1/capabilities").content == b""
    assert api.get("/v1/capabilities").status_code == 200
    assert api.server.ledger.posts()[0].body == b'{"duration": 3}'


def test_a_port_that_is_taken_is_an_error_not_an_exit(api: Caller) -> None:
    port = int(api.server.base_url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        FramelaneServer(port=port).start()
    with pytest.raises(RuntimeError, match="started once"):
        api.server.start()


def test_servers_come_and_go() -> None:
    before = set(threading.enumerate())
    for _ in range(20):
        with serving() as api:
            assert api.submit().status_code == 202
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(60)
    assert not any(thread.is_alive() for thread in left)
