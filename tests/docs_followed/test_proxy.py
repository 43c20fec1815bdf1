"""docs/guides/webhooks_behind_a_proxy.md: its receiver as it is, and behind its nginx."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
import requests

from framelane_celery.testing.webhooks import signature
from tests.docs_followed.pages import DOCS, blocks_of
from tests.room.test_servers import free_port
from tests.worker.stacks import wait_for

BLOCKS = blocks_of(DOCS / "guides" / "webhooks_behind_a_proxy.md")
[NGINX] = [block.text for block in BLOCKS if block.language == "nginx"]
[RECEIVER] = [block.text for block in BLOCKS if block.edit and block.edit.path == "receiver.py"]
[CURL] = [block.text for block in BLOCKS if "curl" in block.text]
PATH, SECRET = "/framelane/webhook/", "whsec_of_the_test"
BODY = '{"id": "render_1",  "title": "Ž\\u0000"}\n'.encode()  # which nobody would write again as it is


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WSGIServer]:
    """The page's file, as a server; its room is a file."""
    monkeypatch.setenv("FRAMELANE_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("FRAMELANE_ROOM_URL", f"sqlite:///{tmp_path}/room.sqlite")
    given: dict[str, Any] = {}
    exec(RECEIVER, given)
    with make_server("127.0.0.1", 0, given["receiver"], handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    given["app"].close()


def signed(body: bytes) -> dict[str, str]:
    return {"Framelane-Signature": signature(body, SECRET, time.time())}


def test_the_receiver_takes_what_is_signed_and_nothing_else(receiver: WSGIServer) -> None:
    root = f"http://127.0.0.1:{receiver.server_port}"
    assert requests.post(root + PATH, BODY, headers=signed(BODY), timeout=10).status_code == 200
    assert requests.post(root + PATH, BODY + b" ", headers=signed(BODY), timeout=10).status_code == 400
    assert requests.post(root + PATH, BODY, timeout=10).status_code == 400
    assert requests.get(root + PATH, timeout=10).status_code == 404


@pytest.fixture
def nginx(receiver: WSGIServer, tmp_path: Path) -> Iterator[str]:
    """The page's configuration, on other ports and with a certificate of its own; its address."""
    binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is missing; on Debian: apt-get install nginx openssl")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=shop.example.com",
         "-keyout", str(tmp_path / "shop.key"), "-out", str(tmp_path / "shop.crt")],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    port, text = free_port(), NGINX
    for name, ours in {
        "127.0.0.1:8000": f"127.0.0.1:{receiver.server_port}",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/": f"{tmp_path}/",
    }.items():
        assert name in text
        text = text.replace(name, ours)
    places = "".join(
        f"{name}_temp_path {tmp_path}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        f"daemon off;\nmaster_process off;\npid {tmp_path}/nginx.pid;\nerror_log {tmp_path}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{places}{text}}}\n"
    )
    command = [binary, "-p", str(tmp_path), "-e", f"{tmp_path}/error.log", "-c", str(conf)]
    subprocess.run([*command, "-t"], check=True, capture_output=True, timeout=30)
    process = subprocess.Popen(command)
    try:
        wait_for(lambda: answers(f"https://127.0.0.1:{port}"), 30, (tmp_path / "error.log").read_text())
        yield f"https://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def answers(url: str) -> bool:
    try:
        requests.get(url, timeout=5, verify=False)
    except requests.ConnectionError:
        return False
    return True


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_behind_nginx(nginx: str) -> None:
    def post(path: str, body: bytes, headers: dict[str, str]) -> int:
        answer = requests.post(nginx + path, body, headers=headers, timeout=10, verify=False, allow_redirects=False)
        return answer.status_code

    assert post(PATH, BODY, signed(BODY)) == 200
    assert post(PATH, BODY, {}) == 400
    assert post(PATH.rstrip("/"), BODY, signed(BODY)) == 301  # nginx's own
    assert post(PATH, b" " * (1024 * 1024 + 1), {}) == 413
    assert requests.get(nginx + PATH, timeout=10, verify=False).status_code == 403


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_the_curl_of_the_page_shows_what_it_says(nginx: str) -> None:
    command, shown = CURL.splitlines()
    here = command.removeprefix("$ ").replace("https://shop.example.com", nginx).replace("curl ", "curl -k --http1.1 ")
    printed = subprocess.run(["bash", "-c", here], capture_output=True, text=True, timeout=30, check=True).stdout
    assert printed.strip() == shown


def test_gunicorn_would_find_it() -> None:
    [command] = [line for block in BLOCKS for line in block.text.splitlines() if line.startswith("$ gunicorn")]
    module, _, name = command.split()[-1].partition(":")
    assert (module, f"def {name}(" in RECEIVER) == ("receiver", True)
