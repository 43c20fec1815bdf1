"""Structured logs in a worker, as a user would set them up: each line of ours is a JSON object in a file."""

from __future__ import annotations

import json
import logging
import os


class JsonLines(logging.Handler):
    """What a line carries besides its text, in one write that no other process can tear."""

    def emit(self, record: logging.LogRecord) -> None:
        plain = vars(logging.makeLogRecord({}))
        extra = {name: value for name, value in vars(record).items() if name not in plain}
        line = {"logger": record.name, "level": record.levelname, "text": record.getMessage(), **extra}
        handle = os.open(os.environ["TEST_LINES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, (json.dumps(line, default=str) + "\n").encode())
        os.close(handle)


logging.getLogger("framelane_celery").addHandler(JsonLines())
logging.getLogger("framelane_celery").setLevel(logging.DEBUG)
