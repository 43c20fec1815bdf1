"""What both stores decide alike."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeVar

from framelane_celery.records import ForeignRecord, Record
from framelane_celery.room import Hold, SpendClaim

logger = logging.getLogger(__name__)

SLOT_WINDOW_S: Final = 60.5
"""A slot is given again this long after it was taken: the server's minute, and a little for the way there."""

DAY_S: Final = 24 * 3600

_MINUTES_NOISE: Final = 1e-6
"""Ten times 0.1 is a little more or less than 1.0. In lua/write.lua too."""

_LOGGED_MAX: Final = 10_000


def is_mortal(record: Record) -> bool:
    """Whether the store may forget the record after TOMBSTONE_S: it is over, or another signature has its id."""
    return record.until == "done" or (record.until == "replacing" and record.due_at is None)


def indexed_job(record: Record) -> str | None:
    """The job that leads to this record: the place of hints."""
    return record.job_id if record.until == "job" else None


class Slots(NamedTuple):
    """The submit slots of one bucket. On Redis the same is lua/write.lua, slots_free.lua and brake.lua."""

    taken: tuple[float, ...] = ()
    brake_until: float = 0.0

    @classmethod
    def from_text(cls, text: str) -> Slots:
        stored = json.loads(text)
        return cls(tuple(stored.get("taken", ())), stored.get("brake_until", 0.0))

    def to_text(self) -> str:
        return json.dumps(self._asdict())

    def free(self, per_minute: int, now: float) -> int:
        """How many could be taken now: at most ``per_minute`` in any minute, none while braked."""
        taken = sum(at > now - SLOT_WINDOW_S for at in self.taken)
        return 0 if self.brake_until > now else max(0, per_minute - taken)

    def take(self, now: float) -> Slots:
        return self._replace(taken=(*(at for at in self.taken if at > now - SLOT_WINDOW_S), now))

    def brake(self, until: float) -> Slots:
        """A longer brake that is on stays."""
        return self._replace(brake_until=max(self.brake_until, until))


class Spent(NamedTuple):
    """What an account has spent in a day. On Redis the same is lua/write.lua."""

    submissions: int = 0
    minutes: float = 0.0

    @classmethod
    def from_text(cls, text: str) -> Spent:
        return cls(**json.loads(text))

    def to_text(self) -> str:
        return json.dumps(self._asdict())

    def add(self, claim: SpendClaim) -> Spent | None:
        """With one more submission; None: that would pass a cap."""
        submissions, minutes = self.submissions + 1, self.minutes + claim.minutes
        if claim.submissions_per_day is not None and submissions > claim.submissions_per_day:
            return None
        if claim.minutes_per_day is not None and minutes > claim.minutes_per_day + _MINUTES_NOISE:
            return None
        return Spent(submissions, minutes)


NewHold = TypeVar("NewHold", bound="Hold | None")
HoldChange = Callable[["Hold | None", float], NewHold]
"""What becomes of an account's entry: the one that is there, and the room's clock -> the one that shall be."""


def put_on_hold(account: str, code: str, reason: str, ends_at: float | None) -> HoldChange[Hold]:
    def change(there: Hold | None, now: float) -> Hold:
        new = Hold(account, code, reason, now, ends_at)
        if there is None or not there.is_on:
            return new
        if code == there.code:
            return there if ends_at is None else there._replace(ends_at=ends_at)
        # What the server says never takes the place of what an operator has said.
        # It is another hold, which whoever saw the first does not end: later, though SQLite's clock has milliseconds.
        return new._replace(since=max(now, there.since + 0.001)) if code == "operator" else there

    return change


def release_hold(since: float | None) -> HoldChange[Hold | None]:
    def change(there: Hold | None, now: float) -> Hold | None:
        if there is None or not there.is_on or since not in (None, there.since):
            return there
        return there._replace(released_at=now)

    return change


def drop_released(there: Hold | None, now: float) -> Hold | None:
    return there if there is not None and there.is_on else None


def load_hold(account: str, text: str) -> Hold:
    """Rebuild a hold; what a newer release may have added to it is left out."""
    stored = {name: value for name, value in json.loads(text).items() if name in Hold._fields}
    return Hold(**{"ends_at": None, **stored, "account": account})


def dump_hold(hold: Hold) -> str:
    """As JSON text that Redis' Lua can read too: half a surrogate, from a server's message, would stop write.lua."""
    stored = {name: value for name, value in hold._asdict().items() if name != "account"}
    return json.dumps(stored, ensure_ascii=False).encode("utf-8", "replace").decode()


class ForeignRecords:
    """Tells a store's readable records from those of another format, and logs each of the latter once per process.

    A worker of an older release may share a store with a newer one (a rolling upgrade). What it cannot read it neither
    changes nor drops; but it must not stop at it either.
    """

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def split(self, rows: Iterable[tuple[str, Callable[[], Record]]]) -> tuple[list[Record], list[str]]:
        """Load what can be loaded; the ids of the rest. One bad record never stops the others."""
        records, foreign = [], []
        for task_id, load in rows:
            try:
                records.append(load())
            except ForeignRecord as error:
                foreign.append(task_id)
                self._log_once(task_id, error)
        return records, foreign

    def _log_once(self, task_id: str, error: ForeignRecord) -> None:
        if task_id not in self._logged and len(self._logged) < _LOGGED_MAX:
            self._logged.add(task_id)
            logger.warning("left alone: %s", error)
