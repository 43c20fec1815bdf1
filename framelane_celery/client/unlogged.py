"""Keeps signed URLs out of urllib3's log, which tells the path and the query of each request at DEBUG, and at WARNING
of those that it tries again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_LOGGERS: Final = ("urllib3.connectionpool", "urllib3.util.retry")
_is_signed: ContextVar[bool] = ContextVar("framelane_is_signed", default=False)


class _WithoutQuery(logging.Filter):
    """Lets everything through, and changes nothing of others' requests."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _is_signed.get() and isinstance(record.args, tuple):
            record.args = tuple(arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args)
        return True


_without_query: Final = _WithoutQuery()


@contextmanager
def signed_url() -> Iterator[None]:
    """While a request for a signed URL is sent."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_without_query)  # once, however often it is asked
    token = _is_signed.set(True)
    try:
        yield
    finally:
        _is_signed.reset(token)
