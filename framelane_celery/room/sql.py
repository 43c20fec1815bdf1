"""The room in SQL: a row per record, compare-and-set on its version; beside it one small table for the rest.

On PostgreSQL a transaction locks the rows that it checks (the lead's, the record's, the slots' or the day's counters'),
always in that order; on SQLite it is the only one that writes. Time is the database's clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from framelane_celery.errors import SettingsError
from framelane_celery.records import Record, dump_state, load_record
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
from framelane_celery.room.rules import (
    DAY_S,
    ForeignRecords,
    HoldChange,
    NewHold,
    Slots,
    Spent,
    drop_released,
    dump_hold,
    indexed_job,
    is_mortal,
    load_hold,
    put_on_hold,
    release_hold,
)

try:
    import sqlalchemy as sa
    from sqlalchemy.engine import Connection

    from framelane_celery.room.database import Database, records, room
except ImportError as error:
    raise SettingsError(
        "room_url: a room in SQL needs SQLAlchemy: pip install 'framelane-celery[sql]',"
        " or 'framelane-celery[postgresql]' for PostgreSQL"
    ) from error

_PAGE: Final = 200
_PURGE_PAGE: Final = 2000
_ROW = [records.c[name] for name in ("id", "until", "step", "version", "due_at", "call", "request", "state")]
_NO_TEXTS = {"call": sa.literal("").label("call"), "request": sa.null().label("request")}
_LEAN = [_NO_TEXTS.get(column.name, column) for column in _ROW]


class SqlRoom:
    """See `framelane_celery.room.Room` for what each method promises."""

    def __init__(self, database: Database, namespace: str) -> None:
        self.namespace = namespace
        self._database = database
        self._read, self._write, self._clock = database.read, database.write, database.clock
        self._foreign = ForeignRecords()
        self._insert = self._make_insert()

    @classmethod
    def from_url(cls, url: str, namespace: str) -> SqlRoom:
        """Open ``postgresql://`` or ``sqlite:///file``. Raises: SettingsError. Nothing is connected yet."""
        return cls(Database.from_url(url), namespace)

    # --- records ---

    def create(self, record: Record) -> Record | None:
        row = self._row(record) | {"namespace": self.namespace, "id": record.id, "version": record.version}
        row["life_s"] = TOMBSTONE_S if is_mortal(record) else None
        del row["expires_at"]
        while not self._write(lambda connection: connection.execute(self._insert, row).all(), is_alone=True):
            there, _ = self.read(record.id)
            if there is not None:
                return there
        return None

    @contextmanager
    def creating(self, record: Record) -> Iterator[Callable[[], Record | None]]:
        yield partial(self.create, record)

    def _make_insert(self) -> Any:
        """Made once, as making it takes as long as running it."""
        insert = self._database.insert(records).values(
            expires_at=self._clock + sa.bindparam("life_s", type_=sa.Double)  # with no life it is null
        )
        # A tombstone that has outlived its life is as good as purged.
        return insert.on_conflict_do_update(
            index_elements=["namespace", "id"],
            set_={column.name: insert.excluded[column.name] for column in records.c if not column.primary_key},
            where=records.c.expires_at <= self._clock,
        ).returning(records.c.id)

    def read(self, task_id: str) -> tuple[Record | None, float]:
        one = sa.select(sa.literal(1).label("one")).subquery()
        mine = sa.and_(records.c.namespace == self.namespace, records.c.id == task_id, self._is_alive())
        query = sa.select(self._clock.label("now"), *_ROW).select_from(one.outerjoin(records, mine))
        row = self._read(lambda connection: connection.execute(query).one())
        return _load(row[1:]) if row[1] is not None else None, row.now

    def save(
        self,
        old: Record,
        new: Record,
        *,
        token: int | None = None,
        claim: SlotClaim | SpendClaim | None = None,
        unless_revoked: Sequence[str] = (),
    ) -> Saved:
        is_alone = token is None and claim is None and not unless_revoked  # one statement, its own transaction
        return self._write(
            lambda connection: self._save(connection, old, new, token, claim, unless_revoked), is_alone=is_alone
        )

    def _save(
        self,
        connection: Connection,
        old: Record,
        new: Record,
        token: int | None,
        claim: SlotClaim | SpendClaim | None,
        marks: Sequence[str],
    ) -> Saved:
        if token is not None and not self._leads(connection, token):
            return "not_leader"
        mine = sa.and_(records.c.namespace == self.namespace, records.c.id == old.id, records.c.version == old.version)
        if claim is not None or marks:
            if connection.execute(sa.select(records.c.id).where(mine).with_for_update()).first() is None:
                return "conflict"
            if self._is_revoked(connection, marks):
                return "revoked"
            if claim is not None and (refusal := self._take(connection, claim)) is not None:
                return refusal
        change = sa.update(records).where(mine).values(**self._row(new, old), version=old.version + 1)
        return "saved" if connection.execute(change).rowcount == 1 else "conflict"

    def _take(self, connection: Connection, claim: SlotClaim | SpendClaim) -> Saved | None:
        """Count what is claimed; or why it is not to be had."""
        if isinstance(claim, SpendClaim):
            return None if self._spend(connection, claim) else "over_budget"
        if self._is_held(connection, claim.account):
            return "held"
        return None if self._take_slot(connection, claim) else "no_slot"

    def forget(self, record: Record) -> None:
        mine = sa.and_(records.c.namespace == self.namespace, records.c.id == record.id)
        forget = sa.delete(records).where(mine, records.c.version == record.version)
        self._write(partial(_execute, forget), is_alone=True)

    def _row(self, new: Record, old: Record | None = None) -> dict[str, Any]:
        """The columns of a record, but for its id and version; of the texts only those that have changed."""
        texts = {name: getattr(new, name) for name in ("call", "request")}
        return {
            "until": new.until,
            "step": new.step,
            "due_at": new.due_at,
            "lane": new.lane,
            "lane_at": new.due_at if new.lane else None,
            "created_at": new.created_at,
            "job_id": indexed_job(new),
            "expires_at": self._clock + TOMBSTONE_S if is_mortal(new) else None,
            "state": dump_state(new),
            **{name: text for name, text in texts.items() if old is None or getattr(old, name) != text},
        }

    # --- what to look at ---

    def due(self, lane: str, limit: int, *, lean: bool = False) -> tuple[list[Record], float]:
        row = _LEAN if lean else _ROW
        in_lane = sa.and_(records.c.namespace == self.namespace, records.c.lane == lane)

        def page(connection: Connection) -> tuple[float, Sequence[Any]]:
            now = self._now(connection)
            query = sa.select(*row).where(in_lane, records.c.lane_at <= now).order_by(records.c.lane_at).limit(limit)
            return now, connection.execute(query).all()

        while True:
            now, rows = self._read(page)
            found, foreign = self._foreign.split((row.id, partial(_load, row)) for row in rows)
            if foreign:
                later = sa.update(records).where(in_lane, records.c.id.in_(foreign)).values(lane_at=now + FOREIGN_S)
                self._write(partial(_execute, later), is_alone=True)
            if found or not rows:  # else the whole page was foreign: it is out of the way now
                return found, now

    def put_off(self, lane: str, places: Sequence[Place], token: int) -> None:
        change = (
            sa.update(records)
            .where(records.c.namespace == self.namespace, records.c.id == sa.bindparam("of_id"))
            .where(records.c.version == sa.bindparam("of_version"), records.c.lane == lane)
            .values(due_at=sa.bindparam("at"), lane_at=sa.bindparam("at"))
        )
        rows = [{"of_id": place.id, "of_version": place.version, "at": place.due_at} for place in sorted(places)]

        def work(connection: Connection) -> None:
            if self._leads(connection, token):
                connection.execute(change, rows)

        if rows:
            self._write(work)

    def waiting(self, lane: str) -> int:
        query = sa.select(sa.func.count()).where(records.c.namespace == self.namespace, records.c.lane == lane)
        return self._read(lambda connection: int(connection.execute(query).scalar_one()))

    def open_count(self) -> int:
        mine = sa.and_(records.c.namespace == self.namespace, records.c.until != "done", self._is_alive())
        query = sa.select(sa.func.count()).where(mine)
        return self._read(lambda connection: int(connection.execute(query).scalar_one()))

    def scan(self, lane: str | None = None, *, lean: bool = False) -> Iterator[Record]:
        if lane is None:
            order: sa.Column[Any] = records.c.created_at
            mine = sa.and_(records.c.until != "done", self._is_alive())
        else:
            order, mine = records.c.lane_at, records.c.lane == lane
        pages = sa.select(*(_LEAN if lean else _ROW), order.label("place")).order_by(order, records.c.id).limit(_PAGE)
        page = pages = pages.where(records.c.namespace == self.namespace, mine)
        seen = set[str]()  # in a lane a record may get a later place, and come again
        while rows := self._read(partial(_all, page)):
            yield from self._foreign.split((row.id, partial(_load, row[:-1])) for row in rows if row.id not in seen)[0]
            seen.update(row.id for row in rows if lane is not None)
            last = sa.tuple_(sa.literal(rows[-1].place), sa.literal(rows[-1].id))
            page = pages.where(sa.tuple_(order, records.c.id) > last)

    def task_of(self, job_id: str) -> str | None:
        query = sa.select(records.c.id).where(records.c.namespace == self.namespace, records.c.job_id == job_id)
        return self._read(lambda connection: connection.execute(query.limit(1)).scalar_one_or_none())

    # --- the lead ---

    def lead(self, owner: str, ttl_s: float) -> int | None:
        return self._write(lambda connection: self._lead(connection, owner, ttl_s))

    def _lead(self, connection: Connection, owner: str, ttl_s: float) -> int | None:
        self._make_row(connection, "lead")
        row = self._locked(connection, "lead")
        now = self._now(connection)
        if row.value not in ("", owner) and row.expires_at > now:
            return None
        # Never a token that was given out before, even if the table came back empty: not below the clock.
        token: int = row.token if row.value == owner else max(row.token + 1, int(now * 1000))
        self._set_row(connection, "lead", value=owner, token=token, expires_at=now + ttl_s)
        return token

    def _leads(self, connection: Connection, token: int) -> bool:
        row = self._locked(connection, "lead", is_shared=True)
        return row is not None and row.value != "" and row.token == token

    def resign(self, owner: str) -> None:
        leave = sa.update(room).where(self._is_named("lead"), room.c.value == owner).values(value="", expires_at=0.0)
        self._write(partial(_execute, leave), is_alone=True)

    # --- slots ---

    def _take_slot(self, connection: Connection, claim: SlotClaim) -> bool:
        slots, now = self._slots(connection, claim.bucket)
        if slots.free(claim.per_minute, now) == 0:
            return False
        if not claim.from_queue and self._is_queued(connection, claim.bucket, now):
            return False
        self._set_slots(connection, claim.bucket, slots.take(now))
        return True

    def _is_queued(self, connection: Connection, bucket: str, now: float) -> bool:
        in_queue = sa.and_(records.c.namespace == self.namespace, records.c.lane == f"slot:{bucket}")
        query = sa.select(records.c.id).where(in_queue, records.c.lane_at <= now).limit(1)
        return connection.execute(query).first() is not None

    def brake(self, bucket: str, for_s: float) -> None:
        def work(connection: Connection) -> None:
            slots, now = self._slots(connection, bucket)
            self._set_slots(connection, bucket, slots.brake(now + for_s))

        self._write(work)

    def slots_free(self, bucket: str, per_minute: int) -> int:
        query = sa.select(room.c.value, self._clock.label("now")).where(self._is_named(f"slots:{bucket}"))
        row = self._read(lambda connection: connection.execute(query).first())
        return per_minute if row is None else Slots.from_text(row.value).free(per_minute, row.now)

    def _slots(self, connection: Connection, bucket: str) -> tuple[Slots, float]:
        self._make_row(connection, f"slots:{bucket}", value="{}")
        row = self._locked(connection, f"slots:{bucket}")
        return Slots.from_text(row.value), self._now(connection)  # the clock after the lock: who waits takes it later

    def _set_slots(self, connection: Connection, bucket: str, slots: Slots) -> None:
        self._set_row(connection, f"slots:{bucket}", value=slots.to_text())

    # --- holds and budgets ---

    def hold(self, account: str, code: str, reason: str, ends_at: float | None = None) -> Hold:
        return self._change_hold(account, put_on_hold(account, code, reason, ends_at))[1]

    def holds(self) -> tuple[list[Hold], float]:
        query = sa.select(room.c.name, room.c.value)
        query = query.where(room.c.namespace == self.namespace, room.c.name.like("hold:%"))
        rows, now = self._read(lambda connection: (_all(query, connection), self._now(connection)))
        return sorted(load_hold(row.name.removeprefix("hold:"), row.value) for row in rows), now

    def release(self, account: str, *, since: float | None = None) -> bool:
        there, hold = self._change_hold(account, release_hold(since))
        return there != hold

    def drop_hold(self, account: str) -> None:
        self._change_hold(account, drop_released)

    def _change_hold(self, account: str, change: HoldChange[NewHold]) -> tuple[Hold | None, NewHold]:
        """The entry as it was, and as it is now."""
        name = f"hold:{account}"

        def work(connection: Connection) -> tuple[Hold | None, NewHold]:
            text = self._locked_value(connection, name)
            there = load_hold(account, text) if text else None
            hold = change(there, self._now(connection))
            if hold is None:
                connection.execute(sa.delete(room).where(self._is_named(name)))
            elif hold != there:
                self._set_row(connection, name, value=dump_hold(hold))
            return there, hold

        return self._write(work)

    def _is_held(self, connection: Connection, account: str) -> bool:
        query = sa.select(room.c.value).where(self._is_named(f"hold:{account}"))
        text = connection.execute(query).scalar_one_or_none()
        return text is not None and load_hold(account, text).is_on

    def _spend(self, connection: Connection, claim: SpendClaim) -> bool:
        now = self._now(connection)
        name = _spent_name(claim.account, now)
        spent = Spent.from_text(self._locked_value(connection, name, value="{}", expires_at=now + SPENT_S)).add(claim)
        if spent is not None:
            self._set_row(connection, name, value=spent.to_text(), expires_at=now + SPENT_S)
        return spent is not None

    def spent(self, account: str) -> tuple[int, float]:
        def work(connection: Connection) -> str | None:
            query = sa.select(room.c.value).where(self._is_named(_spent_name(account, self._now(connection))))
            return connection.execute(query).scalar_one_or_none()

        spent = Spent.from_text(self._read(work) or "{}")
        return spent.submissions, spent.minutes

    # --- counts ---

    def add_ends(self, ends: Mapping[str, Ends]) -> None:
        def work(connection: Connection) -> None:
            now = self._now(connection)
            name = f"ends:{int(now // DAY_S)}"
            counted = _ends(self._locked_value(connection, name, value="{}", expires_at=now + ENDS_S))
            summed = {**counted, **{source: counted.get(source, Ends()).plus(one) for source, one in ends.items()}}
            self._set_row(connection, name, value=json.dumps(summed), expires_at=now + ENDS_S)

        if ends:
            self._write(work)

    def ends(self) -> dict[str, Ends]:
        def work(connection: Connection) -> Sequence[Any]:
            today = int(self._now(connection) // DAY_S)
            names = [f"ends:{today}", f"ends:{today - 1}"]
            return _all(
                sa.select(room.c.value).where(room.c.namespace == self.namespace, room.c.name.in_(names)), connection
            )

        found: dict[str, Ends] = {}
        for row in self._read(work):
            for source, one in _ends(row.value).items():
                found[source] = found.get(source, Ends()).plus(one)
        return found

    def add_counts(self, counts: Mapping[str, float]) -> None:
        def work(connection: Connection) -> None:
            counted = json.loads(self._locked_value(connection, "counts", value="{}"))
            summed = {**counted, **{key: counted.get(key, 0.0) + number for key, number in counts.items()}}
            self._set_row(connection, "counts", value=json.dumps(summed))

        if counts:
            self._write(work)

    def counts(self) -> dict[str, float]:
        query = sa.select(room.c.value).where(self._is_named("counts"))
        rows = self._read(partial(_all, query))
        return {key: float(number) for key, number in json.loads(rows[0].value).items()} if rows else {}

    # --- revokes ---

    def add_revokes(self, marks: Iterable[str]) -> None:
        rows = [{"namespace": self.namespace, "name": f"revoke:{mark}", "value": ""} for mark in sorted(set(marks))]
        insert = self._database.insert(room).values(expires_at=self._clock + REVOKE_S)
        insert = insert.on_conflict_do_update(
            index_elements=["namespace", "name"], set_={"expires_at": insert.excluded.expires_at}
        )
        if rows:
            self._write(lambda connection: [connection.execute(insert, row) for row in rows])

    def revokes_since(self, at: float) -> tuple[list[str], float]:
        query = sa.select(room.c.name).where(
            self._is_revoke(), room.c.expires_at >= at + REVOKE_S, room.c.expires_at >= self._clock
        )
        # The clock first: what is written while we read is found again by who asks from that instant on.
        now, rows = self._read(lambda connection: (self._now(connection), _all(query, connection)))
        return [row.name.removeprefix("revoke:") for row in rows], now

    def _is_revoked(self, connection: Connection, marks: Sequence[str]) -> bool:
        names = [f"revoke:{mark}" for mark in marks]
        mine = sa.and_(room.c.namespace == self.namespace, room.c.name.in_(names), room.c.expires_at >= self._clock)
        return bool(names) and connection.execute(sa.select(room.c.name).where(mine).limit(1)).first() is not None

    def _is_revoke(self) -> sa.ColumnElement[bool]:
        return sa.and_(room.c.namespace == self.namespace, room.c.name.like("revoke:%"))

    # --- upkeep ---

    def purge(self) -> int:
        """In small bites, so that nobody waits long for a lock."""
        is_over = sa.and_(records.c.namespace == self.namespace, records.c.expires_at <= self._clock)
        bite = sa.select(records.c.id).where(is_over).limit(_PURGE_PAGE).scalar_subquery()
        purge = sa.delete(records).where(is_over, records.c.id.in_(bite))
        is_spent = sa.and_(room.c.namespace == self.namespace, room.c.name.like("spent:%"))
        is_ends = sa.and_(room.c.namespace == self.namespace, room.c.name.like("ends:%"))
        is_past = sa.and_(sa.or_(self._is_revoke(), is_spent, is_ends), room.c.expires_at < self._clock)
        self._write(partial(_execute, sa.delete(room).where(is_past)))
        purged = 0
        while count := self._write(partial(_execute, purge), is_alone=True):
            purged += count
        return purged

    def remove(self) -> Removed:
        return self._database.remove(self.namespace)

    def close(self) -> None:
        self._database.close()

    def _is_alive(self) -> sa.ColumnElement[bool]:
        return sa.or_(records.c.expires_at.is_(None), records.c.expires_at > self._clock)

    def _now(self, connection: Connection) -> float:
        return float(connection.execute(sa.select(self._clock)).scalar_one())

    def _make_row(self, connection: Connection, name: str, value: str = "") -> None:
        row = {"namespace": self.namespace, "name": name, "value": value}
        connection.execute(self._database.insert(room).values(**row).on_conflict_do_nothing())

    def _locked(self, connection: Connection, name: str, *, is_shared: bool = False) -> Any:
        """A row of the small table, which stays as it is until the transaction ends."""
        query = sa.select(room).where(self._is_named(name))
        return connection.execute(query.with_for_update(read=is_shared)).first()

    def _locked_value(self, connection: Connection, name: str, value: str = "", expires_at: float = 0.0) -> str:
        """The value of such a row that others may delete: it is made, or found, and locked in one statement."""
        row = {"namespace": self.namespace, "name": name, "value": value, "expires_at": expires_at}
        make = self._database.insert(room).values(**row)
        find = make.on_conflict_do_update(index_elements=["namespace", "name"], set_={"value": room.c.value})
        return str(connection.execute(find.returning(room.c.value)).scalar_one())

    def _set_row(self, connection: Connection, name: str, **values: Any) -> None:
        connection.execute(sa.update(room).where(self._is_named(name)).values(**values))

    def _is_named(self, name: str) -> sa.ColumnElement[bool]:
        return sa.and_(room.c.namespace == self.namespace, room.c.name == name)


def _spent_name(account: str, now: float) -> str:
    return f"spent:{account}:{int(now // DAY_S)}"


def _ends(text: str) -> dict[str, Ends]:
    return {source: Ends(*counts) for source, counts in json.loads(text).items()}


def _load(row: Any) -> Record:
    """Rebuild a record from the columns of `_ROW`. Raises: ForeignRecord."""
    task_id, until, step, version, due_at, call, request, state = row
    return load_record(
        id=task_id, until=until, step=step, version=version, due_at=due_at, call=call, request=request, state=state
    )


def _execute(statement: Any, connection: Connection) -> int:
    return connection.execute(statement).rowcount


def _all(query: Any, connection: Connection) -> Sequence[Any]:
    return connection.execute(query).all()
