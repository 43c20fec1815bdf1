"""The record as the room keeps it: columns that stores look at, two texts, and the rest as JSON."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Final

from framelane_celery.accounts import DEFAULT
from framelane_celery.errors import FramelaneError
from framelane_celery.records.record import Record, Until

FORMAT: Final = 1
"""Version of the record's own shape. A record with a newer one than NEWEST is left alone, never dropped.

A new field needs no new format if an older version may carry it along unread, through whatever transition: it does. A
new meaning of a field, or a new value of `until`, does need one. A release reads a new format before another, later
one writes it (docs/deploys.md): so workers of two releases in a row always read each other's records.
"""

OF_ACCOUNTS: Final = 2
"""That of a record of a named account: a release that knows no accounts would submit it with the wrong key."""

NEWEST: Final = 2
"""The newest that this version reads."""


class ForeignRecord(FramelaneError):
    """A record that another version of framelane_celery wrote: this one leaves it alone."""


_TEXTS = ("call", "request")
_COLUMNS = ("id", "until", "step", "version", "due_at")
_NAMES = frozenset(f.name for f in fields(Record)) - {*_TEXTS, *_COLUMNS, "unread"}
_DEFAULTS = {f.name: f.default for f in fields(Record) if f.name in _NAMES}
_encode = json.JSONEncoder(separators=(",", ":")).encode  # made once: json.dumps would make one with each record


def dump_state(record: Record) -> str:
    """The part of a record that changes often, as JSON text; the id, texts and columns are stored beside it."""
    state = {name: value for name, default in _DEFAULTS.items() if (value := getattr(record, name)) != default}
    written_as = FORMAT if record.account == DEFAULT else max(FORMAT, OF_ACCOUNTS)
    return _encode({"format": written_as, **(record.unread or {}), **state})


def load_record(
    *, id: str, until: Until, step: int, version: int, due_at: float | None, call: str, request: str | None, state: str
) -> Record:
    """Rebuild a record from what the room stored.

    Raises: ForeignRecord, if it is of a newer format or not a record of ours.
    """
    try:
        stored = json.loads(state)
        if int(stored.pop("format")) > NEWEST:
            raise ForeignRecord(f"record {id} was written by a newer framelane_celery: upgrade this worker")
        unread = {name: stored.pop(name) for name in stored.keys() - _NAMES}
        stored["history"] = tuple(stored.get("history", ()))
        return Record(
            id=id, until=until, step=int(step), version=int(version), due_at=due_at, call=call, request=request,
            unread=unread or None, **stored,
        )  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ForeignRecord(f"record {id} is not one of framelane_celery's, or of another version") from error
