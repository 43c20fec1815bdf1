"""The room on Redis: a hash per record, sorted sets by due time, and Lua scripts in lua/ that check, then write.

Our own client, never kombu's channel: through that some commands carry ``global_keyprefix`` and others do not, and its
client has a ``BRPOP`` pending (broker_facts.md, rule 7). One server or Sentinel; never Redis Cluster.

Keys, all after ``<global_keyprefix>{framelane:<namespace>}:``
    record:<task id>   hash: until step version due_at lane call request state, and the mark of its last write
    lane:<lane>        sorted set of task ids by due time
    open               sorted set of the task ids that are not done, by the record's age
    jobs               hash: job id -> task id, while the record waits for the job
    slots:<bucket>     sorted set: the submit slots taken in the last minute
    brake:<bucket>     until when nobody gets one
    holds              hash: account -> JSON of its hold
    spent:<account>:<day>  hash: submissions minutes; the day is counted from 1970, UTC
    ends:<day>         hash: "<source>:<field of Ends>"
    lead               hash: owner, token, until
    revokes            sorted set of marks by the time of their writing
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from framelane_celery.errors import RoomError
from framelane_celery.records import ForeignRecord, Record, dump_state, load_record
from framelane_celery.room import (
    ENDS_S,
    FOREIGN_S,
    REVOKE_S,
    SPENT_S,
    TOMBSTONE_S,
    Ends,
    Hold,
    Place,
    Removed,
    Saved,
    SlotClaim,
    SpendClaim,
)
from framelane_celery.room.redis_client import REPEATED, ReadOnlyError, RedisError, Sent, client_of
from framelane_celery.room.rules import (
    SLOT_WINDOW_S,
    ForeignRecords,
    HoldChange,
    NewHold,
    drop_released,
    dump_hold,
    indexed_job,
    is_mortal,
    load_hold,
    put_on_hold,
    release_hold,
)

if TYPE_CHECKING:
    from redis import Redis

_GLOB: Final = re.compile(r"[\[\]*?^\\]")
"""What means something to SCAN's MATCH, and may be in a global_keyprefix."""

_PAGE: Final = 200
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode  # made once: json.dumps would make one with each write
_ROW: Final = ("until", "step", "version", "due_at", "call", "request", "state")
_SCRIPTS: Final = (
    "read", "write", "forget", "page", "lead", "resign", "brake", "slots_free", "swap_hold", "spent",
    "add_revokes", "revokes_since", "put_off", "add_ends", "ends", "add_counts",
)  # fmt: skip


class RedisRoom:
    """See `framelane_celery.room.Room` for what each method promises."""

    def __init__(self, client: Redis, namespace: str, *, key_prefix: str = "") -> None:
        self.namespace = namespace
        # The user's global_keyprefix in front: one ACL rule covers Celery's keys and ours.
        self._prefix = f"{key_prefix}{{framelane:{namespace}}}:"
        self._client = client
        self._foreign = ForeignRecords()
        folder = files("framelane_celery.room") / "lua"
        clock = (folder / "clock.lua").read_text("utf-8")
        texts = {name: clock + (folder / f"{name}.lua").read_text("utf-8") for name in _SCRIPTS}
        self._scripts: dict[str, Any] = {name: client.register_script(text) for name, text in texts.items()}

    @classmethod
    def from_url(cls, url: str, namespace: str, options: Mapping[str, Any]) -> RedisRoom:
        """Open ``redis://``, ``rediss://`` or ``sentinel://h1:26379;sentinel://h2:26379/0?master_name=…``.

        Of Celery's transport options, `global_keyprefix`, `master_name` and `sentinel_kwargs` are read; and `ssl`,
        which is what `broker_use_ssl` says.
        Raises: SettingsError. Nothing is connected yet.
        """
        return cls(client_of(url, options), namespace, key_prefix=str(options.get("global_keyprefix") or ""))

    # --- records ---

    def create(self, record: Record) -> Record | None:
        with self.creating(record) as there:
            return there()

    @contextmanager
    def creating(self, record: Record) -> Iterator[Callable[[], Record | None]]:
        keys, arguments = self._write_of(record, record, expected=None)
        sent = Sent(self._client)

        def there() -> Record | None:
            with self._reaching():
                try:
                    answer = sent.answer()
                except REPEATED:  # once more, as all else is run: the same write, which counts once
                    answer = self._run("write", keys, *arguments)
            return None if answer == b"saved" else _load(record.id, answer)

        try:
            with self._reaching():
                sent.send("EVALSHA", self._scripts["write"].sha, len(keys), *keys, self._prefix, *arguments)
            yield there
        finally:
            sent.give_up()

    def read(self, task_id: str) -> tuple[Record | None, float]:
        now, row = self._run("read", [self._key("record", task_id)], *_ROW)
        is_there = any(value is not None for value in row)
        return _load(task_id, row) if is_there else None, float(now)

    def save(
        self,
        old: Record,
        new: Record,
        *,
        token: int | None = None,
        claim: SlotClaim | SpendClaim | None = None,
        unless_revoked: Sequence[str] = (),
    ) -> Saved:
        keys, arguments = self._write_of(old, new, expected=old.version, token=token, claim=claim, marks=unless_revoked)
        saved: Saved = self._run("write", keys, *arguments).decode()
        return saved

    def _write_of(
        self,
        old: Record,
        new: Record,
        *,
        expected: int | None,
        token: int | None = None,
        claim: SlotClaim | SpendClaim | None = None,
        marks: Sequence[str] = (),
    ) -> tuple[list[str], list[str]]:
        """Keys and arguments of write.lua. Only the texts that changed are sent.

        What is small goes as one JSON text, since the number of arguments is what takes the client's time; numbers as
        strings, which Lua would round. What has no value is left away: Lua finds nil.
        """
        columns = {
            "until": new.until,
            "step": str(new.step),
            "version": str(new.version if expected is None else expected + 1),
            "due_at": _text(new.due_at),
            "lane": new.lane,
        }
        texts = {"state": dump_state(new)} | {
            n: getattr(new, n) for n in ("call", "request") if expected is None or getattr(old, n) != getattr(new, n)
        }
        dropped = [] if expected is None else [n for n, value in {**columns, **texts}.items() if value is None]
        order = {
            "id": new.id,
            "nonce": secrets.token_hex(8),
            "lane": new.lane,
            "due_at": columns["due_at"],
            "created_at": str(new.created_at),
            "is_open": new.until != "done",
            "job_after": indexed_job(new),
            "life_s": str(TOMBSTONE_S) if is_mortal(new) else None,
            "columns": [part for name, value in columns.items() if value is not None for part in (name, value)],
            # What only a change has.
            "expected": _text(expected),
            "token": _text(token),
            "claim": _with_value(_claimed(claim)) or None,
            "job_before": indexed_job(old),
            "marks": marks or None,
            "revoke_s": str(REVOKE_S) if marks else None,
            "dropped": dropped or None,
        }
        stored = [part for name, value in texts.items() if value is not None for part in (name, value)]
        return [self._key("record", new.id)], [_encode(_with_value(order)), *stored]

    def forget(self, record: Record) -> None:
        self._run("forget", [self._key("record", record.id)], record.id, record.version)

    # --- what to look at ---

    def due(self, lane: str, limit: int, *, lean: bool = False) -> tuple[list[Record], float]:
        lane_key = self._key("lane", lane)
        while True:
            (now, last, _), rows = self._page(lane_key, "due", limit, lean=lean)
            records, foreign = self._foreign.split(rows)
            if foreign:
                with self._reaching():
                    self._client.zadd(lane_key, dict.fromkeys(foreign, float(now) + FOREIGN_S), xx=True)
            if records or not last:  # else the whole page had vanished or was foreign: it is out of the way now
                return records, float(now)

    def put_off(self, lane: str, places: Sequence[Place], token: int) -> None:
        if places:
            self._run("put_off", [self._key("lane", lane)], token, *(part for place in places for part in place))

    def waiting(self, lane: str) -> int:
        with self._reaching():
            return int(self._client.zcard(self._key("lane", lane)))

    def open_count(self) -> int:
        with self._reaching():
            return int(self._client.zcard(self._key("open")))

    def scan(self, lane: str | None = None, *, lean: bool = False) -> Iterator[Record]:
        key = self._key("open") if lane is None else self._key("lane", lane)
        last, score, seen = b"", b"", set[str]()
        while True:
            (_, last, new_score), rows = self._page(key, "open", _PAGE, last, score, lean=lean)
            if not last:
                return
            # A page may come again from the instant of the last record on (page.lua says when).
            yield from self._foreign.split((id, load) for id, load in rows if id not in seen)[0]
            # In a lane a record may get a later place, and come again at any time.
            seen = {id for id, _ in rows} | (seen if lane is not None or new_score == score else set())
            score = new_score

    def _page(
        self, key: str, what: str, limit: int, last: bytes = b"", score: bytes = b"", *, lean: bool
    ) -> tuple[Any, list[tuple[str, Any]]]:
        answer = self._run("page", [key], what, limit, last, score, int(lean))
        pairs = zip(answer[3::2], answer[4::2], strict=True)
        load = _load_lean if lean else _load
        ids = ((id.decode("utf-8", "surrogateescape"), row) for id, row in pairs)
        return answer[:3], [(id, partial(load, id, row)) for id, row in ids]

    def task_of(self, job_id: str) -> str | None:
        with self._reaching():
            task_id: Any = self._client.hget(self._key("jobs"), job_id)
        return None if task_id is None else str(task_id.decode())

    # --- holds and budgets ---

    def hold(self, account: str, code: str, reason: str, ends_at: float | None = None) -> Hold:
        return self._change_hold(account, put_on_hold(account, code, reason, ends_at))[1]

    def holds(self) -> tuple[list[Hold], float]:
        with self._reaching():
            pipe = self._client.pipeline(transaction=False)
            pipe.hgetall(self._key("holds"))
            pipe.time()
            entries, (seconds, micros) = pipe.execute()
        holds = [load_hold(account.decode(), text.decode()) for account, text in entries.items()]
        return sorted(holds), seconds + micros / 1e6

    def release(self, account: str, *, since: float | None = None) -> bool:
        there, hold = self._change_hold(account, release_hold(since))
        return there != hold

    def drop_hold(self, account: str) -> None:
        self._change_hold(account, drop_released)

    def _change_hold(self, account: str, change: HoldChange[NewHold]) -> tuple[Hold | None, NewHold]:
        """The entry as it was, and as it is now. Again if somebody else wrote in between."""
        for _ in range(50):
            with self._reaching():
                pipe = self._client.pipeline(transaction=False)
                pipe.hget(self._key("holds"), account)
                pipe.time()
                text, (seconds, micros) = pipe.execute()
            there = None if text is None else load_hold(account, text.decode())
            hold = change(there, seconds + micros / 1e6)
            swap = (account, text or "", "" if hold is None else dump_hold(hold))
            if hold == there or self._run("swap_hold", [self._key("holds")], *swap):
                return there, hold
        raise RoomError(f"the hold of account {account} is written by too many at once")

    def spent(self, account: str) -> tuple[int, float]:
        submissions, minutes = self._run("spent", [self._key("spent", account)])
        return int(submissions or 0), float(minutes or 0)

    def add_ends(self, ends: Mapping[str, Ends]) -> None:
        counts = [
            part
            for source, one in ends.items()
            for field in Ends._fields
            for part in (f"{source}:{field}", getattr(one, field))
        ]
        if counts:
            self._run("add_ends", [self._key("ends")], ENDS_S, *counts)

    def ends(self) -> dict[str, Ends]:
        answer = self._run("ends", [self._key("ends")])
        found: dict[str, Ends] = {}
        for name, value in zip(answer[::2], answer[1::2], strict=True):
            source, _, field = name.decode().partition(":")
            jobs, dated, delay_s = (float(value) if field == known else 0.0 for known in Ends._fields)
            found[source] = found.get(source, Ends()).plus(Ends(int(jobs), int(dated), delay_s))
        return found

    def add_counts(self, counts: Mapping[str, float]) -> None:
        if counts:
            self._run("add_counts", [self._key("counts")], *(part for item in counts.items() for part in item))

    def counts(self) -> dict[str, float]:
        with self._reaching():
            answer: Any = self._client.hgetall(self._key("counts"))
        return {key.decode(): float(number) for key, number in answer.items()}

    # --- the lead, slots and revokes ---

    def lead(self, owner: str, ttl_s: float) -> int | None:
        token = self._run("lead", [self._key("lead")], owner, ttl_s)
        return None if token is None else int(token)

    def resign(self, owner: str) -> None:
        self._run("resign", [self._key("lead")], owner)

    def brake(self, bucket: str, for_s: float) -> None:
        self._run("brake", [self._key("brake", bucket)], for_s)

    def slots_free(self, bucket: str, per_minute: int) -> int:
        keys = [self._key("slots", bucket), self._key("brake", bucket)]
        return int(self._run("slots_free", keys, per_minute, SLOT_WINDOW_S))

    def add_revokes(self, marks: Iterable[str]) -> None:
        if marks := list(marks):
            self._run("add_revokes", [self._key("revokes")], REVOKE_S, *marks)

    def revokes_since(self, at: float) -> tuple[list[str], float]:
        now, marks = self._run("revokes_since", [self._key("revokes")], repr(at), REVOKE_S)
        return [mark.decode() for mark in marks], float(now)

    # --- upkeep ---

    def purge(self) -> int:
        """Nothing to do: Redis ends the lives by itself."""
        return 0

    def remove(self) -> Removed:
        removed, cursor = 0, 0
        pattern = _GLOB.sub(r"\\\g<0>", self._prefix) + "*"
        with self._reaching():
            while True:
                cursor, keys = self._client.scan(cursor, match=pattern, count=1000)
                removed += int(self._client.delete(*keys)) if keys else 0
                if not cursor:
                    return Removed(removed)

    def close(self) -> None:
        self._client.close()
        self._client.connection_pool.disconnect()

    def _key(self, *parts: str) -> str:
        return self._prefix + ":".join(parts)

    def _run(self, script: str, keys: list[str], *arguments: Any) -> Any:
        with self._reaching():
            return self._scripts[script](keys=keys, args=[self._prefix, *arguments])

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Whatever goes wrong between us and the server is a RoomError, and never shows a password."""
        try:
            yield
        except (RedisError, OSError) as error:
            if isinstance(error, ReadOnlyError):  # a fail-over: these connections lead to a replica now
                self._client.connection_pool.disconnect(inuse_connections=False)
            password = str(self._client.connection_pool.connection_kwargs.get("password") or "")
            text = str(error).replace(password, "…") if password else str(error)
            raise RoomError(f"the room on Redis: {type(error).__name__}: {text[:300]}") from None


def _load(task_id: str, row: Sequence[bytes | None]) -> Record:
    """Rebuild a record from its hash. Raises: ForeignRecord."""
    try:
        until: Any
        until, step, version, due_at, call, request, state = (
            None if value is None else value.decode() for value in row
        )
        if until is None or step is None or version is None or call is None or state is None:
            raise ValueError("a field is missing")
        return load_record(
            id=task_id,
            until=until,
            step=int(step),
            version=int(version),
            due_at=None if due_at is None else float(due_at),
            call=call,
            request=request,
            state=state,
        )
    except ValueError as error:
        raise ForeignRecord(f"record {task_id} is not one of framelane_celery's, or of another version") from error


def _load_lean(task_id: str, row: bytes) -> Record:
    """Rebuild a record without its texts. Raises: ForeignRecord."""
    until, step, version, due_at, state = (line or None for line in row.split(b"\n", 4))
    return _load(task_id, (until, step, version, due_at, b"", None, state))


def _claimed(claim: SlotClaim | SpendClaim | None) -> dict[str, str | bool | None]:
    """The claim, as write.lua reads it."""
    if isinstance(claim, SlotClaim):
        return {
            "what": "slot",
            "account": claim.account,
            "bucket": claim.bucket,
            "per_minute": str(claim.per_minute),
            "from_queue": claim.from_queue,
            "window_s": str(SLOT_WINDOW_S),
        }
    if isinstance(claim, SpendClaim):
        return {
            "what": "spend",
            "account": claim.account,
            "minutes": str(claim.minutes),
            "submissions_per_day": _text(claim.submissions_per_day),
            "minutes_per_day": _text(claim.minutes_per_day),
            "life_s": str(SPENT_S),
        }
    return {}


def _with_value(named: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if value is not None}


def _text(value: int | float | None) -> str | None:
    return None if value is None else str(value)  # of a float, str() is exact
