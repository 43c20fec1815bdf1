"""Checks of the stores: the room's, and the Redis of the broker and the result backend. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from framelane_celery.doctor.facts import BackendFacts, BrokerFacts, Facts, NotAsked, RoomFacts
from framelane_celery.doctor.findings import Check, Finding, Level, not_checked, span
from framelane_celery.room.inspect import RedisFacts, SqlFacts

SKEW_WARNING_S: Final = 2.0
SKEW_PROBLEM_S: Final = 30.0
SLOW_S: Final = 0.05
FULL_WARNING: Final = 0.8
FULL_PROBLEM: Final = 0.95
NETWORK_FILE_SYSTEMS: Final = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ceph",
    "glusterfs",
    "fuse.sshfs",
    "9p",
    "lustre",
)


def check_room(facts: Facts) -> Iterator[Finding]:
    """design.md §3, "The room"; broker_facts.md, "What follows", 8 and 9."""
    room = facts.room
    if isinstance(facts.settings, NotAsked):
        return
    if isinstance(room, NotAsked) or isinstance(room.store, NotAsked):
        why = room.why if isinstance(room, NotAsked) else getattr(room.store, "why", "")
        yield Finding(
            "problem",
            "room",
            f"it cannot be reached: {why}",
            "Calls raise, and nothing that waits is moved on.",
            "Start the store, open the way to it from this host, or set framelane['room_url'] / FRAMELANE_ROOM_URL.",
        )
        return
    yield from _of_access(room, room.store)
    yield from _of_clock(room.store.clock_ahead_s)
    if isinstance(room.store, SqlFacts):
        yield from _of_sql(facts, room.store)


def _of_access(room: RoomFacts, store: RedisFacts | SqlFacts) -> Iterator[Finding]:
    if room.write_error is not None:
        is_replica = isinstance(store, RedisFacts) and store.is_replica
        yield Finding(
            "problem",
            "room",
            f"it can be read but not written: {room.write_error}",
            "No record can be made or moved.",
            "Point room_url at the primary, not at a replica."
            if is_replica
            else "Give its user the right to write, or free memory or disk.",
        )
    elif store.round_trip_s > SLOW_S:
        yield Finding(
            "warning",
            "room",
            f"a round trip takes {store.round_trip_s * 1000:.0f} ms",
            "Each run takes several; the watcher moves what is due one by one.",
            "Put the room near the workers (same region).",
        )
    else:
        kind = "Redis" if isinstance(store, RedisFacts) else store.dialect
        yield Finding("ok", "room", f"{kind}: reads and writes, round trip {store.round_trip_s * 1000:.1f} ms")


def _of_clock(ahead_s: float) -> Iterator[Finding]:
    """The room's clock decides; this host's is used where a call has an eta or expires."""
    size = abs(ahead_s)
    if size <= SKEW_WARNING_S:
        yield Finding("ok", "clocks", f"this host and the room differ by {size * 1000:.0f} ms")
        return
    level: Level = "problem" if size > SKEW_PROBLEM_S else "warning"
    way = "ahead of" if ahead_s > 0 else "behind"
    yield Finding(
        level,
        "clocks",
        f"the room's clock is {span(size)} {way} this host's",
        "eta, countdown, expires and the first resend are off by as much.",
        "Run NTP (chrony, systemd-timesyncd) on this host and on the room's.",
    )


def _of_sql(facts: Facts, store: SqlFacts) -> Iterator[Finding]:
    if store.tables_missing:
        level: Level = "ok" if store.may_create else "problem"
        yield Finding(
            level,
            "room tables",
            f"not there yet: {', '.join(store.tables_missing)}",
            "Whoever comes first makes them." if store.may_create else "Our user may not make them.",
            "" if store.may_create else "GRANT CREATE ON SCHEMA … TO the room's user, or start a worker once as owner.",
        )
    else:
        yield Finding("ok", "room tables", "there")
    if store.dialect == "sqlite":
        yield from _of_sqlite(facts, store)


def _of_sqlite(facts: Facts, store: SqlFacts) -> Iterator[Finding]:
    """design.md §3, "The room": SQLite is for one host."""
    change = "Set framelane['room_url'] to PostgreSQL or Redis."
    hosts = sorted({worker.host for worker in facts.our_workers()})
    if store.file_system in NETWORK_FILE_SYSTEMS:
        yield Finding(
            "warning",
            "room file",
            f"SQLite's file is on a network file system ({store.file_system})",
            "Its write-ahead log needs shared memory, which only one host has: the file may be damaged.",
            change,
        )
    if len(hosts) > 1:
        yield Finding(
            "warning",
            "room file",
            f"the room is a SQLite file, and workers run on {len(hosts)} hosts",
            "Hosts that do not share the file have a room each, and each host's tasks are unknown to the other.",
            change,
        )
    if store.is_relative:
        yield Finding(
            "warning",
            "room file",
            "SQLite's file is named from the working directory",
            "A process that starts elsewhere opens another room.",
            "Write an absolute path: sqlite:////var/lib/…/room.db (four slashes).",
        )


def check_backend(facts: Facts) -> Iterator[Finding]:
    """celery_facts.md, row 6d: with the result backend away, nothing is stored, and no chord goes on."""
    if isinstance(facts.backend, NotAsked):
        yield Finding(
            "problem",
            "result backend",
            f"it cannot be reached: {facts.backend.why}",
            "Runs end without a result, and chords stand still; the watcher runs them again until it is stored.",
            "Start it, open the way to it from this host, or set result_backend / CELERY_RESULT_BACKEND.",
        )
    elif facts.backend.store is not None:
        yield Finding("ok", "result backend", f"{facts.conf.backend} answers")
    elif facts.conf.backend not in ("", "disabled", "rpc"):
        yield Finding("ok", "result backend", f"not checked: {facts.conf.backend} is a kind that is not asked")


# --- Redis, whatever it is used for ------------------------------------------------------------------------------


def check_redis(facts: Facts) -> Iterator[Finding]:
    """broker_facts.md, "What follows", 3, 8 and 9. A server with several uses is judged once."""
    servers: dict[str, tuple[RedisFacts, list[str]]] = {}
    for use, store in _redis_uses(facts):
        servers.setdefault(store.server_id or use, (store, []))[1].append(use)
    for store, uses in servers.values():
        check = f"Redis ({', '.join(uses)})"
        if store.refused is not None:
            yield not_checked(
                check,
                f"INFO is refused ({store.refused})",
                "Allow it to the user (ACL +info), or check maxmemory-policy, free memory and AOF by hand.",
            )
            continue
        found = [*_of_mode(check, store), *_of_memory(check, store), *_of_durability(check, store, uses)]
        yield from found
        if all(finding.level == "ok" for finding in found):
            yield Finding("ok", check, f"version {store.version}, {store.policy}")


def _redis_uses(facts: Facts) -> Iterator[tuple[str, RedisFacts]]:
    if isinstance(facts.room, RoomFacts) and isinstance(facts.room.store, RedisFacts):
        yield "room", facts.room.store
    if isinstance(facts.broker, BrokerFacts) and isinstance(facts.broker.store, RedisFacts):
        yield "broker", facts.broker.store
    if isinstance(facts.backend, BackendFacts) and isinstance(facts.backend.store, RedisFacts):
        yield "results", facts.backend.store


def _of_mode(check: str, store: RedisFacts) -> Iterator[Finding]:
    if store.is_cluster:
        yield Finding(
            "problem",
            check,
            "it is a Redis Cluster",
            "Neither Celery nor the room works on one: keys of one script lie on several nodes.",
            "Use a single server or Sentinel.",
        )
    major = int((store.version or "7").partition(".")[0])
    if major < 5:
        yield Finding(
            "problem",
            check,
            f"version {store.version} is too old",
            "Scripts that ask the clock and then write are refused before Redis 5.",
            "Use Redis 6.2 or later (tested with 7.0).",
        )


def _of_memory(check: str, store: RedisFacts) -> Iterator[Finding]:
    policy, limit, used = store.policy or "noeviction", store.max_bytes or 0, store.used_bytes or 0
    if policy.startswith("allkeys-"):
        has = f"maxmemory is {limit >> 20} MiB" if limit else "maxmemory is not set yet"
        yield Finding(
            "problem" if limit else "warning",
            check,
            f"maxmemory-policy is {policy} ({has})",
            "At the limit it evicts records and queues, whole: tasks vanish without an error.",
            "CONFIG SET maxmemory-policy noeviction (and in redis.conf; hosted: in its parameter group).",
        )
    full = used / limit if limit else 0.0
    if full >= FULL_WARNING:
        level: Level = "problem" if full >= FULL_PROBLEM else "warning"
        evicts = policy.startswith("volatile-")
        yield Finding(
            level,
            check,
            f"{full:.0%} of maxmemory is used, policy {policy}",
            "At the limit finished records are evicted early, and a task sent twice is paid twice; the broker loses"
            " messages."
            if evicts
            else "At the limit no record can be written, and each message that the broker hands out is lost.",
            "Raise maxmemory, or shorten result_expires; keep half of it free."
            + (" Set maxmemory-policy noeviction." if evicts else ""),
        )
    elif not limit and store.system_bytes and used / store.system_bytes >= FULL_WARNING:
        yield Finding(
            "warning",
            check,
            f"it uses {used / store.system_bytes:.0%} of its host's memory, and maxmemory is not set",
            "The kernel ends it without a word when memory is out.",
            "Give the host more memory, or shorten result_expires.",
        )


def _of_durability(check: str, store: RedisFacts, uses: list[str]) -> Iterator[Finding]:
    if "room" not in uses and "broker" not in uses:
        return
    if store.append_only:
        return
    replicas = f" ({store.replicas} replicas)" if store.replicas else ""
    if store.append_only is None or (store.snapshots is None and not store.replicas):
        yield not_checked(
            check,
            "the server does not tell whether it saves anything (AOF off or hidden, CONFIG refused)",
            "Make sure that the server has AOF, or replicas with fail-over.",
        )
    elif store.snapshots:
        yield Finding(
            "warning",
            check,
            f"AOF is off, only snapshots are made{replicas}",
            "A restart loses what came since the last snapshot: paid jobs are found again by nobody.",
            "CONFIG SET appendonly yes, appendfsync everysec (and in redis.conf).",
        )
    else:
        yield Finding(
            "warning",
            check,
            f"nothing is saved: AOF and snapshots are off{replicas}",
            "A restart loses every record and message.",
            "CONFIG SET appendonly yes, appendfsync everysec (and in redis.conf).",
        )


CHECKS: Final[tuple[Check, ...]] = (check_room, check_backend, check_redis)
