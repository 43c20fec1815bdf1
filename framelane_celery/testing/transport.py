"""Sockets: HTTP/1.1 with connections that are kept, dropped or reset, on werkzeug's threaded server."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from framelane_celery.testing.calls import Dropped

if TYPE_CHECKING:
    from collections.abc import Callable

BACKLOG = 512
MAX_BODY_BYTES = 16 * 1024 * 1024


class Connections:
    """The open connections, so that stopping can end them."""

    def __init__(self) -> None:
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._is_closing = False

    def add(self, connection: socket.socket) -> None:
        """Take note of a connection; one that comes while stopping is ended at once."""
        with self._changed:
            self._open.add(connection)
            if self._is_closing:
                _end(connection)

    def discard(self, connection: socket.socket) -> None:
        """Forget a connection."""
        with self._changed:
            self._open.discard(connection)
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """End what is open and wait for the threads that serve it."""
        with self._changed:
            self._is_closing = True
            for connection in self._open:
                _end(connection)
            self._changed.wait_for(lambda: not self._open, timeout_s)

    def __len__(self) -> int:
        with self._changed:
            return len(self._open)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)  # its thread reads the end of the stream; an answer under way goes out


def listen(host: str, port: int, respond: Callable[[Request], Response], connections: Connections) -> BaseWSGIServer:
    """Open the socket; nothing is served before `serve_forever`.

    Raises: OSError when the port is taken (werkzeug itself would end the process).
    """
    handler = type("Handler", (_Handler,), {"respond": staticmethod(respond), "connections": connections})
    with socket.create_server((host, port), backlog=BACKLOG) as opened:
        return make_server(host, port, _refuse_wsgi, threaded=True, request_handler=handler, fd=opened.fileno())


def _refuse_wsgi(environ: Any, start_response: Any) -> Any:
    raise NotImplementedError("requests go through _Handler.run_wsgi")


class _Handler(WSGIRequestHandler):
    """Serves one connection.

    werkzeug's own `run_wsgi` closes every connection after one answer, because it does not read bodies to their end;
    this one reads them first, so that a client's connection pool is put to use.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body of an answer in one segment
    respond: Callable[[Request], Response]
    connections: Connections
    is_reset = False

    def setup(self) -> None:
        super().setup()
        self.connections.add(self.connection)

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        if self.is_reset:
            self.connection.close()  # with no time to linger this sends RST; what comes next would send FIN first
        self.connections.discard(self.connection)

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        if environ["REQUEST_METHOD"] == "PUT":
            self._take_file(environ)
            return
        body = self._read_body(environ)
        if body is None:
            self._send(Response("", 413), environ)
            self.close_connection = True
            return
        environ.update({"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        environ.pop("wsgi.input_terminated", None)
        try:
            response = self.respond(Request(environ))
        except Dropped as dropped:
            self._drop(dropped)
            return
        self._send(response, environ)

    def _take_file(self, environ: dict[str, Any]) -> None:
        """A file is too large for memory: the endpoint reads it as it comes."""
        request = Request(environ)
        try:
            response = self.respond(request)
            request.stream.read(MAX_BODY_BYTES)  # of one that was refused: else closing would reset the answer away
        except Dropped as dropped:
            self._drop(dropped)
            return
        self.close_connection = True
        self._send(response, environ)

    def _read_body(self, environ: dict[str, Any]) -> bytes | None:
        if environ.get("wsgi.input_terminated"):
            body = environ["wsgi.input"].read(MAX_BODY_BYTES + 1)
            return None if len(body) > MAX_BODY_BYTES else body
        length = int(environ.get("CONTENT_LENGTH") or 0)
        return None if length > MAX_BODY_BYTES else self.rfile.read(length)

    def _send(self, response: Response, environ: dict[str, Any]) -> None:
        parts, status, headers = response.get_wsgi_response(environ)
        code, _, reason = status.partition(" ")
        self.send_response(int(code), reason)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        try:
            for part in parts:
                self.wfile.write(part)
        except Dropped as dropped:
            self.wfile.flush()
            self._drop(dropped)
            return
        self.wfile.flush()

    def _drop(self, dropped: Dropped) -> None:
        self.close_connection = True
        if dropped.is_reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.is_reset = True

    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing: the ledger has it."""
