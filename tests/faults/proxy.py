"""A TCP proxy that can be cut, or be a black hole: a service goes away for whom it serves, and for nobody else."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Final

_CHUNK_BYTES: Final = 1 << 16


class Proxy:
    """Listens on a port of its own and passes bytes on to host and port. Use it as a context manager."""

    def __init__(self, host: str, port: int) -> None:
        self._there = (host, port)
        self._listener: socket.socket | None = None
        self._kept: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._passes = threading.Event()
        self._passes.set()
        self.port = 0

    def __enter__(self) -> Proxy:
        self.restore()
        return self

    def __exit__(self, *_: object) -> None:
        self._passes.set()
        self.cut()
        if self._kept is not None:
            self._kept.close()

    def restore(self) -> None:
        """Listen, on the same port as before. After a black hole: pass on what was held back, as TCP would."""
        self._passes.set()
        if self._listener is not None:
            return
        listener, self._kept = self._kept or self._bound(), None
        listener.listen()
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _bound(self) -> socket.socket:
        """A socket that has the port and does not listen: connections are refused, and nobody else gets the port."""
        kept = socket.socket()
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", self.port))
        return kept

    def swallow(self) -> None:
        """Be a black hole: accept connections and keep those that are open, but pass nothing on, no end either."""
        self._passes.clear()

    def cut(self) -> None:
        """Refuse new connections and end those that are open."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            self._kept = self._bound()
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            try:
                there = socket.create_connection(self._there, timeout=5)
                there.settimeout(None)
            except OSError:
                here.close()
                continue
            with self._lock:
                if self._listener is not listener:  # cut meanwhile
                    here.close()
                    there.close()
                    return
                self._open |= {here, there}
            for one, other in ((here, there), (there, here)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(_CHUNK_BYTES):
                self._passes.wait()
                other.sendall(data)
        self._passes.wait()
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
            with self._lock:
                self._open.discard(each)
