"""A web server with one call in it, ``framelane_celery.webhooks.receive``: `pickup` starts it, on its own socket."""

from __future__ import annotations

import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.project import app
from framelane_celery import webhooks


class Handler(BaseHTTPRequestHandler):
    """What docs/webhooks.md tells a user to do."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            webhooks.receive(self.headers, body, app=app)
            status = 200
        except webhooks.WebhookRefused:
            status = 400
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def main(descriptor: int) -> None:
    with socket.socket(fileno=descriptor) as listening:
        server = ThreadingHTTPServer(listening.getsockname(), Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = listening
        server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
