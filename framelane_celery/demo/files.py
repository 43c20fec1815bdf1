"""kombu's `filesystem` transport, with messages that are whole when they are seen.

kombu makes a message's file first and writes into it afterwards; a worker that looks in between reads an empty
message, which is lost, and drops its connection (github.com/celery/kombu/issues/1551).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from kombu.transport import filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    """Writes each message beside its place, then renames it."""

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:
        place = Path(self.data_folder_out) / f"{round(time.monotonic() * 1000)}_{uuid4()}.{queue}.msg"
        part = place.with_name(f"{uuid4()}.part")  # kombu 5.5 takes any file with the queue's name in it
        part.write_text(dumps(payload))
        part.rename(place)


class Transport(filesystem.Transport):
    """Named in `broker_transport`."""

    Channel = Channel
