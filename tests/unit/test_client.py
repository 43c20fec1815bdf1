"""The client against a real socket: what crossed it, and what came back as a typed error."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from freezegun import freeze_time

from framelane_celery import errors
from framelane_celery.client import FramelaneClient, shared_client
from framelane_celery.client import api as client_module
from framelane_celery.models import RenderRequest, TranscribeRequest
from framelane_celery.settings import FramelaneSettings

KEY = "fl_live_hunter2"
SAMPLES = Path(__file__).parent.parent / "samples"
JOB = {"id": "render_1", "kind": "render", "status": "queued"}
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Call:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class Server:
    """A server that gives the answers it was told to, in turn; the last one again and again."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    answers: list[Answer | Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=list)

    def answer(self, status: int = 200, body: object = None, **headers: str) -> None:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append((status, {"Content-Type": "application/json"} | named, content))


def serve(server: Server) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            call = Call(self.command, self.path, dict(self.headers), body, self.client_address[1])
            server.calls.append(call)
            answer = server.answers[0] if len(server.answers) == 1 else server.answers.pop(0)
            if callable(answer):
                answer(self)
                return
            status, headers, content = answer
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = handle_any

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that went away is what some tests are about."""

    http = Quiet(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return http


@pytest.fixture
def api() -> Iterator[Server]:
    yield from running()


@pytest.fixture
def storage() -> Iterator[Server]:
    yield from running()


def running() -> Iterator[Server]:
    server = Server()
    http = serve(server)
    yield server
    http.shutdown()
    http.server_close()


@pytest.fixture
def client(api) -> Iterator[FramelaneClient]:
    with FramelaneClient(KEY, api.url, connect_timeout_s=20, read_timeout_s=20) as client:
        yield client


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def sample(name: str) -> object:
    return json.loads((SAMPLES / f"{name}.json").read_text())


# -- submitting


def test_a_post_carries_key_bytes_and_idempotency_key(api, client):
    api.answer(202, JOB)
    body = RenderRequest(duration=1).body({"celery_task_id": "t1"})
    submitted = client.submit("/v1/renders", body, "shop:t1:1")
    assert (submitted.job.id, submitted.is_replay) == ("render_1", False)
    (call,) = api.calls
    assert (call.method, call.path, call.body) == ("POST", "/v1/renders", body)
    assert call.headers["Authorization"] == f"Bearer {KEY}"
    assert call.headers["Idempotency-Key"] == "shop:t1:1"
    assert call.headers["Content-Type"] == "application/json"


def test_200_is_a_replay_and_a_short_body_gets_its_kind(api, client):
    api.answer(200, sample("short_job"))
    submitted = client.create_media_task(TranscribeRequest(source_url="https://x.io/a.mp4"), "k")
    assert (submitted.job.kind, submitted.is_replay) == ("task", True)
    assert client.create_render(RenderRequest(), "k").job.kind == "render"
    assert [call.path for call in api.calls] == ["/v1/tasks/transcribe", "/v1/renders"]


@pytest.mark.parametrize("key", ["", "ключ", "a\nb"])
def test_a_post_needs_a_usable_idempotency_key(api, client, key):
    with pytest.raises(ValueError, match="idempotency key"):
        client.submit("/v1/renders", b"{}", key)
    assert api.calls == []


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_post_is_sent_once_whatever_the_status(api, client, status):
    api.answer(status, None)
    with pytest.raises(errors.InternalError):
        client.submit("/v1/renders", b"{}", "k")
    assert len(api.calls) == 1


def test_a_post_is_sent_once_when_the_connection_breaks(api, client):
    api.answers.append(hang_up)
    with pytest.raises(errors.TransportError, match=r"^POST /v1/renders: ConnectionError"):
        client.submit("/v1/renders", b"{}", "k")
    assert len(api.calls) == 1


def test_a_post_is_sent_once_when_nothing_listens(monkeypatch):
    tried = []
    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: tried.append(address) or connect(self, address))
    with FramelaneClient(KEY, f"http://127.0.0.1:{unused_port()}") as client:
        with pytest.raises(errors.TransportError):
            client.submit("/v1/renders", b"{}", "k")
        assert len(tried) == 1
        with pytest.raises(errors.TransportError):
            client.get_render("render_1")
        assert len(tried) == 4


def test_an_accepted_post_without_a_job_is_of_unknown_outcome(api, client):
    api.answer(202, b"<html>", Content_Type="text/html")
    with pytest.raises(errors.TransportError, match=r"^POST /v1/renders: the answer is not JSON \(text/html\)$"):
        client.submit("/v1/renders", b"{}", "k")
    api.answers.clear()
    api.answer(202, {"status": "queued"})
    with pytest.raises(errors.TransportError, match="the answer is no Job"):
        client.submit("/v1/renders", b"{}", "k")


# -- reading


@pytest.mark.parametrize("first", [502, 503, 504, hang_up])
def test_a_get_is_tried_again(api, client, first):
    api.answers.append(first) if callable(first) else api.answer(first, None, Retry_After="60")
    api.answer(200, JOB)
    started = time.monotonic()
    assert client.get_render("render_1").id == "render_1"
    assert len(api.calls) == 2
    assert time.monotonic() - started < 30  # the header's minute is not slept here


def test_a_get_is_tried_three_times_at_most(api, client):
    api.answer(503, None, Retry_After="7")
    with pytest.raises(errors.InternalError) as caught:
        client.get_render("render_1")
    assert len(api.calls) == 3
    assert caught.value.retry_after_s == 7


def test_a_get_that_times_out_is_not_tried_again(api):
    api.answers.append(lambda handler: time.sleep(0.6))
    with (
        FramelaneClient(KEY, api.url, read_timeout_s=0.2) as client,
        pytest.raises(errors.TransportError, match=r"^GET /v1/tasks/task_1: no answer within 0\.2 s$"),
    ):
        client.get_media_task("task_1")
    assert len(api.calls) == 1


def test_a_long_poll_outlasts_the_read_timeout(api):
    def late(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.4)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(json.dumps(JOB))))
        handler.end_headers()
        handler.wfile.write(json.dumps(JOB).encode())

    api.answers.append(late)
    with FramelaneClient(KEY, api.url, read_timeout_s=0.1) as client:
        assert client.get_render("render_1", wait_s=25).id == "render_1"
    assert api.calls[0].path == "/v1/renders/render_1?wait=25"


@pytest.mark.parametrize("wait_s", [-1, 26])
def test_wait_s_has_bounds(client, wait_s):
    with pytest.raises(ValueError, match="0 to 25"):
        client.get_job("render", "render_1", wait_s)


def test_an_id_is_quoted_and_cannot_leave_its_place(api, client):
    api.answer(200, JOB)
    client.get_job("task", "a/../b?c")
    assert api.calls[0].path == "/v1/tasks/a%2F..%2Fb%3Fc"
    for job_id in ("", ".", ".."):
        with pytest.raises(ValueError, match="an id is needed"):
            client.get_job("task", job_id)


def test_the_documented_job_is_read(api, client):
    api.answer(200, sample("get_a_task"))
    assert client.get_media_task("task_1").to_json() == sample("get_a_task")


def test_a_list_is_read_page_by_page(api, client):
    api.answer(200, {"data": [{"id": "a"}, {"id": "b"}], "next_cursor": "c1", "has_more": True})
    api.answer(200, {"data": [{"id": "c"}], "next_cursor": None, "has_more": False})
    jobs = list(client.iter_jobs("task", status="processing", type="gaze_redirect", limit=2))
    assert [(job.id, job.kind) for job in jobs] == [("a", "task"), ("b", "task"), ("c", "task")]
    assert [call.path for call in api.calls] == [
        "/v1/tasks?status=processing&type=gaze_redirect&limit=2",
        "/v1/tasks?status=processing&type=gaze_redirect&cursor=c1&limit=2",
    ]


def test_a_list_that_ignores_the_cursor_ends(api, client):
    api.answer(200, {"data": [{"id": "a"}], "next_cursor": "c1", "has_more": True})
    assert len(list(client.iter_jobs("render"))) == 2


@pytest.mark.parametrize(
    ("status", "body", "job_id"),
    [(204, None, None), (200, None, None), (202, {"ok": True}, None), (200, JOB, "render_1")],
)
def test_cancel_survives_each_answer(api, client, status, body, job_id):
    api.answer(status, body)
    job = client.cancel_job("render", "render_1")
    assert (job.id if job else None) == job_id
    assert (api.calls[0].method, api.calls[0].path) == ("DELETE", "/v1/renders/render_1")


# -- compositions that are only checked


def test_a_preview_is_a_dry_run_of_the_requests_own_fields(api, client):
    api.answer(200, sample("preview_dry_run"))
    request = RenderRequest(duration=1, metadata={"order": "7"}, extra={"dry_run": False, "new": 1})
    preview = client.preview(request)
    assert (preview.ok, preview.violations[0].code) == (False, "DUPLICATE_ELEMENT_ID")
    (call,) = api.calls
    assert (call.method, call.path) == ("POST", "/v1/preview")
    assert call.body == b'{"dry_run":true,"duration":1,"metadata":{"order":"7"},"new":1}'
    assert call.headers["Content-Type"] == "application/json"
    assert "Idempotency-Key" not in call.headers


@pytest.mark.parametrize(
    "refusal",
    [
        {"error": {"code": "invalid_request", "message": "render_request: is required"}},
        {"detail": [{"loc": ["body", "render_request"], "msg": "Field required", "type": "missing"}]},
    ],
)
def test_a_preview_is_sent_inside_a_render_request_where_the_api_asks_for_it(api, client, refusal):
    api.answer(422, refusal)
    api.answer(200, {"ok": True, "violations": []})
    assert client.preview(RenderRequest(duration=1)).ok is True
    assert api.calls[1].body == b'{"dry_run":true,"render_request":{"duration":1}}'


@pytest.mark.parametrize("message", ["duration: too long", "render_request.duration: is required", "Bad request."])
def test_a_preview_that_is_refused_is_refused_once(api, client, message):
    api.answer(422, {"error": {"code": "invalid_request", "message": message}})
    with pytest.raises(errors.InvalidRequest, match=message):
        client.preview(RenderRequest(duration=1))
    assert len(api.calls) == 1


@pytest.mark.parametrize("status", [404, 405, 501])
def test_an_api_without_previews_is_not_found(api, client, status):
    api.answer(status, {"error": {"code": "nothing_we_know", "message": "No."}})
    with pytest.raises(errors.NotFound) as caught:
        client.preview(RenderRequest(duration=1))
    assert (caught.value.status, caught.value.code) == (status, "nothing_we_know")


@pytest.mark.parametrize(
    ("answer", "cls"),
    [
        ((429, sample("rate_limited")), errors.RateLimited),
        ((500, None), errors.InternalError),
        ((200, b"\x89PNG"), errors.TransportError),
        ((200, {"status": "queued"}), errors.TransportError),
    ],
)
def test_a_preview_that_says_nothing_is_an_error(api, client, answer, cls):
    api.answer(*answer)
    with pytest.raises(cls):
        client.preview(RenderRequest(duration=1))
    assert len(api.calls) == 1


# -- account


def test_usage(api, client):
    api.answer(200, sample("usage_console"))
    assert client.get_usage().task_count == 40
    assert api.calls[0].path == "/v1/workspace/usage"


# -- refusals


@pytest.mark.parametrize(
    ("status", "body", "cls", "code", "message"),
    [
        (401, sample("unauthorized"), errors.Unauthorized, "unauthorized", "Missing Authorization header."),
        (402, sample("quota_exceeded"), errors.QuotaExceeded, "quota_exceeded", "Monthly render quota exhausted."),
        (429, sample("quota_exceeded"), errors.QuotaExceeded, "quota_exceeded", "Monthly render quota exhausted."),
        (429, sample("rate_limited"), errors.RateLimited, "rate_limited", "Too many requests."),
        (422, {"detail": [{"loc": ["body", "width"], "msg": "too small", "input": 1}]}, errors.InvalidRequest, None,
         "body.width: too small"),
        (404, {"detail": "Not Found"}, errors.NotFound, None, "Not Found"),
        (400, {"error": "bad"}, errors.InvalidRequest, None, "bad"),
        (500, b"<html><h1>hunter2", errors.InternalError, None, "HTTP 500 without a message"),
        (409, [1], errors.Conflict, None, "HTTP 409 without a message"),
        (422, {"error": {"code": 7, "message": None}}, errors.InvalidRequest, None, "HTTP 422 without a message"),
        (422, {"error": {"code": "invalid_source", "message": "No: https://x.io/a.mp4?sig=hunter2"}},
         errors.InvalidSource, "invalid_source", "No: https://x.io/a.mp4?…"),
        (401, {"error": {"code": "unauthorized", "message": f"Bad key {KEY}."}}, errors.Unauthorized, "unauthorized",
         "Bad key …."),
        (500, {"error": {"code": "internal", "message": "x" * 5000}}, errors.InternalError, "internal", "xxx"),
    ],
)  # fmt: skip
def test_each_refusal_is_a_typed_error(api, client, status, body, cls, code, message):
    api.answer(status, body)
    with pytest.raises(errors.ApiError) as caught:
        client.submit("/v1/renders", b"{}", "k")
    assert type(caught.value) is cls
    assert (caught.value.status, caught.value.code) == (status, code)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) <= 300
    assert "hunter2" not in str(caught.value)


@freeze_time("2026-07-01 12:00:00")
@pytest.mark.parametrize(
    ("header", "message", "retry_after_s"),
    [
        ("12", "Retry after 47 seconds.", 12),
        ("Wed, 01 Jul 2026 12:01:30 GMT", "", 90),
        ("Wed, 01 Jul 2026 11:00:00 GMT", "", 0),
        ("99999999", "", 86400),
        ("soon", "Too many requests. Retry after 47 seconds.", 47),
        (None, "Too many requests. Retry after 1.5 seconds.", 1.5),
        (None, "Too many requests.", None),
    ],
)
def test_how_long_to_stay_away(api, client, header, message, retry_after_s):
    body = {"error": {"code": "rate_limited", "message": message}}
    api.answer(429, body, **({"Retry_After": header} if header else {}))
    with pytest.raises(errors.RateLimited) as caught:
        client.submit("/v1/renders", b"{}", "k")
    assert caught.value.retry_after_s == retry_after_s


def test_a_redirect_is_not_followed(api, storage, client):
    api.answer(302, None, Location=storage.url)
    for call in (lambda: client.get_render("render_1"), lambda: client.submit("/v1/renders", b"{}", "k")):
        with pytest.raises(errors.ApiError, match="base_url"):
            call()
    assert storage.calls == []


# -- artefacts


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_never_reaches_the_storage_host(api, storage, client, tmp_path, monkeypatch, status):
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password hunter3\n")
    monkeypatch.setenv("NETRC", str(netrc))
    api.answer(status, None, Location=f"{storage.url}/a.mp4?sig=1")
    storage.answer(302, None, Location="/b.mp4")
    storage.answer(200, b"film", Content_Type="video/mp4")
    assert client.download("render", "render_1", tmp_path / "a.mp4") == 4
    assert (tmp_path / "a.mp4").read_bytes() == b"film"
    assert api.calls[0].headers["Authorization"] == f"Bearer {KEY}"
    assert [call.path for call in storage.calls] == ["/a.mp4?sig=1", "/b.mp4"]
    for call in storage.calls:
        assert "Authorization" not in call.headers
        assert KEY not in str(call)


def test_the_key_stays_home_on_a_redirect_to_the_api_itself(api, client):
    api.answer(302, None, Location="/files/a.mp4")
    api.answer(200, b"film", Content_Type="video/mp4")
    target = io.BytesIO()
    assert client.download("task", "task_1", target) == 4
    assert target.getvalue() == b"film"
    assert [call.path for call in api.calls] == ["/v1/tasks/task_1/download", "/files/a.mp4"]
    assert "Authorization" not in api.calls[1].headers


def test_download_url_reads_the_redirect_and_stays(api, storage, client):
    api.answer(302, None, Location=f"{storage.url}/a.mp4?sig=1")
    assert client.download_url("render", "render_1") == f"{storage.url}/a.mp4?sig=1"
    assert storage.calls == []


def test_a_link_in_json_is_a_link(api, storage, client):
    api.answer(200, {"url": f"{storage.url}/a.mp4"})
    storage.answer(200, b"film")
    assert client.download_url("render", "render_1") == f"{storage.url}/a.mp4"
    assert client.download("render", "render_1", io.BytesIO()) == 4


@pytest.mark.parametrize(("kind", "body"), [("video/mp4", b"film"), ("application/json", b'{"text": "Hello"}')])
def test_a_file_that_is_sent_at_once_is_saved(api, client, kind, body):
    api.answer(200, body, Content_Type=kind)
    target = io.BytesIO()
    assert client.download("task", "task_1", target) == len(body)
    assert target.getvalue() == body
    with pytest.raises(errors.ApiError, match="use download"):
        client.download_url("task", "task_1")


@pytest.mark.parametrize("link", ["file:///etc/passwd", "ftp://x.io/a"])
def test_a_redirect_to_no_web_address_is_not_followed(api, client, tmp_path, link):
    api.answer(302, None, Location=link)
    with pytest.raises(errors.ApiError):
        client.download_url("render", "render_1")
    with pytest.raises(errors.ApiError):
        client.download("render", "render_1", tmp_path / "a")


def test_a_broken_download_leaves_no_file(api, storage, client, tmp_path):
    api.answer(302, None, Location=f"{storage.url}/a.mp4?sig=hunter2")

    def half(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"half")
        hang_up(handler)

    storage.answers.append(half)
    with pytest.raises(errors.TransportError, match="broke off") as caught:
        client.download("render", "render_1", tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
    assert "hunter2" not in str(caught.value)


def test_storage_that_refuses_is_named_without_its_url(api, storage, client, tmp_path):
    api.answer(302, None, Location=f"{storage.url}/a.mp4?sig=hunter2")
    storage.answer(403, b"<Error>hunter2</Error>", Content_Type="application/xml")
    with pytest.raises(errors.TransportError, match=r"^storage answered 403 Forbidden$"):
        client.download("render", "render_1", tmp_path / "a.mp4")


def test_storage_that_is_away_is_named_without_its_url(api, client, tmp_path):
    api.answer(302, None, Location=f"http://127.0.0.1:{unused_port()}/a.mp4?sig=hunter2")
    with pytest.raises(errors.TransportError, match=r"^storage: ConnectionError") as caught:
        client.download("render", "render_1", tmp_path / "a.mp4")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_download_has_an_end(api, storage, client, tmp_path):
    api.answer(302, None, Location=storage.url)
    storage.answer(200, b"film")
    with pytest.raises(errors.TransportError, match="did not end within 0 s"):
        client.download("render", "render_1", tmp_path / "a.mp4", max_s=0)


def test_a_download_before_the_job_has_ended_is_a_typed_error(api, client, tmp_path):
    api.answer(409, {"error": {"code": "conflict", "message": "Not completed."}})
    with pytest.raises(errors.Conflict, match=r"^Not completed\.$"):
        client.download("render", "render_1", tmp_path / "a.mp4")


# -- sessions


def make_settings(url: str, **more: object) -> FramelaneSettings:
    return FramelaneSettings.model_validate({"api_key": KEY, "base_url": url} | more)


def test_connections_are_kept(api, client):
    api.answer(200, JOB)
    for _ in range(3):
        client.get_render("render_1")
    assert len({call.connection for call in api.calls}) == 1


def test_netrc_does_not_take_the_place_of_the_key(api, client, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter3\n")
    monkeypatch.setenv("NETRC", str(netrc))
    api.answer(200, JOB)
    client.get_render("render_1")
    assert api.calls[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # the server's threads
def test_a_fork_gets_a_connection_of_its_own(api, client):
    api.answer(200, JOB)
    client.get_render("render_1")
    pid = os.fork()
    if pid == 0:
        try:
            client.get_render("render_1")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    client.get_render("render_1")
    parent, child, parent_again = (call.connection for call in api.calls)
    assert parent == parent_again != child


@pytest.fixture
def no_shared_clients(monkeypatch):
    """Those that other tests have left in this thread count too."""
    monkeypatch.setattr(client_module, "_of_this_thread", threading.local())


@pytest.mark.usefixtures("no_shared_clients")
def test_a_client_is_shared_by_thread_and_settings(api):
    settings = make_settings(api.url)
    mine = shared_client(settings)
    assert shared_client(make_settings(api.url, namespace="other")) is mine
    assert shared_client(make_settings(api.url, read_timeout_s=3)) is not mine
    assert shared_client(make_settings(api.url, api_key="fl_other")) is not mine
    assert shared_client(settings) is mine
    others: list[FramelaneClient] = []
    thread = threading.Thread(target=lambda: others.append(shared_client(settings)))
    thread.start()
    thread.join()
    assert others[0] is not mine


@pytest.mark.usefixtures("no_shared_clients")
def test_a_client_is_shared_by_process(api, monkeypatch):
    settings = make_settings(api.url)
    mine = shared_client(settings)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert shared_client(settings) is not mine


def test_shared_clients_do_not_pile_up(api):
    for at in range(50):
        shared_client(make_settings(api.url, read_timeout_s=at + 1))
    assert len(client_module._of_this_thread.clients) <= 32


def test_settings_reach_the_client(api):
    api.answer(200, JOB)
    with FramelaneClient.from_settings(make_settings(api.url)) as client:
        client.get_render("render_1")
    assert api.calls[0].headers["Authorization"] == f"Bearer {KEY}"


def test_without_a_key_one_error_says_what_to_set():
    with pytest.raises(errors.SettingsError, match=r"^api_key: .*FRAMELANE_API_KEY"):
        FramelaneClient.from_settings(FramelaneSettings())


@pytest.mark.parametrize("key", ["", "hunter2\nX-Evil: 1", "hünter2", "hunter2 "])
def test_a_key_that_fits_no_header_is_refused_unquoted(key):
    with pytest.raises(errors.SettingsError) as caught:
        FramelaneClient(key)
    assert "nter2" not in str(caught.value)


def test_the_repr_shows_no_key(client):
    assert "hunter2" not in repr(client) + repr(vars(client))


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
