"""The rest of the client against the local server: every endpoint over a real socket, and what each one refuses."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from framelane_celery import errors
from framelane_celery.client import FramelaneClient
from framelane_celery.client.calls import endpoint_of
from framelane_celery.models import ImportRequest, RenderRequest, TranscribeRequest
from framelane_celery.testing import Fault, FramelaneServer, Switches

REQUEST = RenderRequest.model_validate({"elements": [{"type": "text", "id": "t", "text": "hello", "duration": 2}]})
TRANSCRIBE = TranscribeRequest.model_validate({"source_url": "https://media.example/a.mp4"})
IMPORT = ImportRequest.model_validate({"url": "https://media.example/a.mp4"})


@pytest.fixture
def server() -> Iterator[FramelaneServer]:
    with FramelaneServer(job_seconds=0) as server:
        yield server


@pytest.fixture
def client(server: FramelaneServer) -> Iterator[FramelaneClient]:
    with FramelaneClient(server.api_key, server.base_url) as client:
        yield client


# -- every endpoint, called and refused

Call = Callable[[FramelaneClient], Any]
CALLS: dict[str, Call] = {
    "POST /v1/renders": lambda c: c.create_render(REQUEST, "k"),
    "GET /v1/renders": lambda c: list(c.iter_jobs("render")),
    "GET /v1/renders/x": lambda c: c.get_render("x"),
    "DELETE /v1/renders/x": lambda c: c.cancel_job("render", "x"),
    "GET /v1/renders/x/download": lambda c: c.download_url("render", "x"),
    "POST /v1/tasks/transcribe": lambda c: c.create_media_task(TRANSCRIBE, "k"),
    "GET /v1/tasks": lambda c: list(c.iter_jobs("task")),
    "GET /v1/tasks/x": lambda c: c.get_media_task("x"),
    "DELETE /v1/tasks/x": lambda c: c.cancel_job("task", "x"),
    "GET /v1/tasks/x/download": lambda c: c.download_url("task", "x"),
    "POST /v1/uploads": lambda c: c.create_upload("video/mp4"),
    "POST /v1/imports": lambda c: c.create_import(IMPORT, "k"),
    "GET /v1/imports/x": lambda c: c.get_import("x"),
    "GET /v1/workspace/assets": lambda c: list(c.iter_assets()),
    "GET /v1/webhooks": lambda c: list(c.iter_webhooks()),
    "POST /v1/webhooks": lambda c: c.create_webhook("https://hooks.example/"),
    "DELETE /v1/webhooks/x": lambda c: c.delete_webhook("x"),
    "POST /v1/webhooks/x/rotate-secret": lambda c: c.rotate_webhook_secret("x"),
    "GET /v1/webhooks/x/deliveries": lambda c: list(c.iter_deliveries("x")),
    "GET /v1/workspace": lambda c: c.get_workspace(),
    "PATCH /v1/workspace": lambda c: c.update_workspace(name="Shop"),
    "GET /v1/workspace/usage": lambda c: c.get_usage(),
    "GET /v1/api-keys": lambda c: list(c.iter_api_keys()),
    "POST /v1/api-keys": lambda c: c.create_api_key("worker"),
    "DELETE /v1/api-keys/x": lambda c: c.delete_api_key("x"),
    "GET /v1/capabilities": lambda c: c.get_capabilities(),
    "POST /v1/preview": lambda c: c.preview(REQUEST),
    "GET /v1/projects": lambda c: list(c.iter_projects()),
    "POST /v1/projects": lambda c: c.create_project(REQUEST),
    "GET /v1/projects/x": lambda c: c.get_project("x"),
    "DELETE /v1/projects/x": lambda c: c.delete_project("x"),
    "POST /v1/projects/x/ops": lambda c: c.change_project("x", []),
    "POST /v1/projects/x/preview": lambda c: c.preview_project("x"),
    "POST /v1/projects/x/renders": lambda c: c.render_project("x", "k"),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_each_call_goes_where_it_says_with_the_key(server: FramelaneServer, client: FramelaneClient, name: str) -> None:
    try:
        CALLS[name](client)
    except errors.NotFound:
        assert name.split("/")[3:4] == ["x"]
    first = next(iter(server.ledger))
    assert f"{first.method} {first.path}" == name


@each_call
def test_a_wrong_key_is_unauthorized(server: FramelaneServer, call: Call) -> None:
    with FramelaneClient("fl_wrong", server.base_url) as client:
        if call is CALLS["GET /v1/capabilities"]:
            assert call(client).fields["task_types"]
            return
        with pytest.raises(errors.Unauthorized) as caught:
            call(client)
    assert "fl_wrong" not in str(caught.value)


@each_call
def test_an_answer_that_is_no_json_is_no_success(server: FramelaneServer, client: FramelaneClient, call: Call) -> None:
    server.faults.add(Fault("garbage", path="/v1/*"))
    is_silent = call in [made for name, made in CALLS.items() if name.startswith("DELETE")]
    if is_silent:
        call(client)  # what a DELETE answers is not documented, so it is not read
        return
    with pytest.raises((errors.TransportError, errors.ApiError)):
        call(client)


@each_call
def test_an_unexpected_error_is_typed(server: FramelaneServer, client: FramelaneClient, call: Call) -> None:
    server.faults.add(Fault("status", path="/v1/*", status=500))
    with pytest.raises(errors.InternalError):
        call(client)


@pytest.mark.parametrize("name", [name for name in CALLS if "/x" in name])
def test_what_is_not_there_is_not_found(client: FramelaneClient, name: str) -> None:
    with pytest.raises(errors.NotFound):
        CALLS[name](client)


@pytest.mark.parametrize("name", [name for name in CALLS if name.startswith(("POST", "PATCH"))])
def test_what_changes_something_is_sent_once(server: FramelaneServer, client: FramelaneClient, name: str) -> None:
    server.faults.add(Fault("reset", path="/v1/*"))
    with pytest.raises(errors.TransportError):
        CALLS[name](client)
    assert len(list(server.ledger)) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.create_webhook("http://hooks.example/"),
        lambda c: c.update_workspace(name=""),
        lambda c: c.create_api_key("x" * 256),
        lambda c: list(c.iter_assets(limit=0)),
        lambda c: list(c.iter_webhooks(limit=101)),
    ],
)
def test_what_breaks_a_rule_is_an_invalid_request(client: FramelaneClient, call: Call) -> None:
    with pytest.raises(errors.InvalidRequest):
        call(client)


# -- webhooks


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    got: list[tuple[str, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.headers["Framelane-Signature"], body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{listener.server_port}/", got
    listener.shutdown()
    listener.server_close()
    thread.join()


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def signs(secret: str, signed: str, body: bytes) -> bool:
    from framelane_celery.testing.webhooks import signature

    return signature(body, secret, float(signed.partition("=")[2].partition(",")[0])) == signed


def test_an_endpoint_is_told_until_it_is_deleted(server, client, receiver) -> None:  # type: ignore[no-untyped-def]
    url, got = receiver
    made = client.create_webhook(url, ["render.completed"])
    assert made.secret == server.webhook_secret
    assert made.secret not in repr(made)
    client.create_media_task(TRANSCRIBE, "k-0")  # no event of its kind
    job = client.create_render(REQUEST, "k-1").job
    wait_for(lambda: list(client.iter_deliveries(made.id)))
    (attempt,) = client.iter_deliveries(made.id)
    assert (attempt.job_id, attempt.event_type, attempt.attempt_number) == (job.id, "render.completed", 1)
    assert (attempt.status_code, attempt.webhook_id) == (200, made.id)
    (listed,) = client.iter_webhooks()
    assert (listed.id, listed.secret, listed.last_delivery_at is not None) == (made.id, None, True)
    assert signs(made.secret, *got[0])
    secret = client.rotate_webhook_secret(made.id)
    client.create_render(REQUEST, "k-2")
    wait_for(lambda: len(got) == 2)
    assert (signs(secret, *got[1]), signs(made.secret, *got[1])) == (True, False)
    client.delete_webhook(made.id)
    assert list(client.iter_webhooks()) == []


@pytest.mark.parametrize("is_bare", [False, True])
def test_lists_are_read_page_by_page_in_either_shape(is_bare: bool) -> None:
    with FramelaneServer(switches=Switches(bare_lists=is_bare)) as server:
        with FramelaneClient(server.api_key, server.base_url) as client:
            made = [client.create_webhook(f"https://hooks.example/{n}").id for n in range(5)]
            assert [one.id for one in client.iter_webhooks(limit=2)] == made
        pages = [entry for entry in server.ledger if entry.method == "GET"]
        assert len(pages) == (1 if is_bare else 3)


# -- the account


def test_a_key_lets_in_until_it_is_deleted(server, client) -> None:  # type: ignore[no-untyped-def]
    made = client.create_api_key("worker")
    assert made.key.startswith("fl_")
    assert made.key not in repr(made)
    with FramelaneClient(made.key, server.base_url) as other:
        assert [(key.id, key.key, key.revoked_at) for key in other.iter_api_keys()] == [(made.id, None, None)]
        client.delete_api_key(made.id)
        with pytest.raises(errors.Unauthorized):
            other.get_workspace()
    (listed,) = client.iter_api_keys()
    assert listed.revoked_at is not None


def test_the_workspace_is_read_and_renamed(client) -> None:  # type: ignore[no-untyped-def]
    before = client.get_workspace()
    assert (before.id[:3], before.plan, before.plan_status) == ("ws_", "free", "active")
    assert client.update_workspace(name="Shop").name == "Shop"
    assert client.get_workspace().name == "Shop"


# -- projects


def test_a_project_is_made_changed_checked_and_rendered(server, client) -> None:  # type: ignore[no-untyped-def]
    project = client.create_project(REQUEST, name="Clip")
    assert (project.version, project.summary["element_count"]) == (1, 1)
    op = {"op": "set_fields", "id": "t", "fields": {"text": "bye"}}
    changed = client.change_project(project.id, [op], if_version=1)
    assert (changed.ok, changed.version, changed.changed_ids) == (True, 2, ["t"])
    with pytest.raises(errors.Conflict):
        client.change_project(project.id, [op], if_version=1)
    assert client.get_project(project.id).render_request is None
    assert client.get_project(project.id, view="full").render_request["elements"][0]["text"] == "bye"
    assert client.preview_project(project.id).ok
    job = client.render_project(project.id, "k-1")
    assert client.get_render(job.id).is_completed
    assert client.render_project(project.id, "k-1").id == job.id
    broken = client.change_project(project.id, [{"op": "set_fields", "id": "t", "fields": {"duration": -1}}])
    assert (broken.ok, broken.version, broken.violations[0].is_error) == (False, 2, True)
    assert [one.id for one in client.iter_projects()] == [project.id]
    client.delete_project(project.id)
    assert list(client.iter_projects()) == []


@pytest.mark.parametrize("name", CALLS)
def test_the_metrics_know_each_endpoint_and_no_id(name: str) -> None:
    assert endpoint_of(name.partition(" ")[2]) == name.partition(" ")[2].replace("/x", "/{id}")
