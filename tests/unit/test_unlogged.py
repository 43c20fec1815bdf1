"""A signed URL is not in urllib3's log, and what others ask for is."""

from __future__ import annotations

import io
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests

from framelane_celery import FramelaneClient
from framelane_celery.testing import FramelaneServer


def finished_job(server: FramelaneServer, client: FramelaneClient) -> str:
    body = b'{"elements": [{"type": "text", "text": "x", "duration": 1}]}'
    return client.submit("/v1/renders", body, "key").job.id


@pytest.mark.framelane_server(job_seconds=0)
def test_a_download_is_logged_without_its_signature(
    framelane_server: FramelaneServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with FramelaneClient(framelane_server.api_key, framelane_server.base_url) as client:
        client.download("render", finished_job(framelane_server, client), io.BytesIO())
        assert "/output.mp4 HTTP" in caplog.text
        assert "signature" not in caplog.text
        others = f"{framelane_server.base_url}/v1/capabilities?seen=1"
        requests.get(others, timeout=10)
        assert "?seen=1" in caplog.text


def test_nor_is_one_that_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """A storage that closes connections; urllib3 warns, with the URL."""

    class Closes(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "download" in self.path:
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{storage.server_port}/a.mp4?signature=s3cr3t")
                self.send_header("Content-Length", "0")
                self.end_headers()
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None: ...

    caplog.set_level(logging.DEBUG)
    storage = HTTPServer(("localhost", 0), Closes)
    thread = threading.Thread(target=storage.serve_forever)
    thread.start()
    try:
        with (
            FramelaneClient("fl_key", f"http://localhost:{storage.server_port}") as client,
            pytest.raises(Exception, match="storage"),
        ):
            client.download("render", "render_1", io.BytesIO())
    finally:
        storage.shutdown()
        thread.join()
        storage.server_close()
    assert "Retrying" in caplog.text
    assert "s3cr3t" not in caplog.text
