"""Questions to a Redis server; see `framelane_celery.room.inspect`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from redis.exceptions import ResponseError

from framelane_celery.room.inspect import LATE_S, Lane, RedisFacts, RoomState, lanes_in, summed
from framelane_celery.room.redis import RedisRoom

_SEPARATOR: Final = "\x06\x16"
_PRIORITIES: Final = (0, 3, 6, 9)
"""kombu keeps a list per priority step, and names all but the first so: kombu/transport/redis.py."""


class RedisStore:
    """See `framelane_celery.room.inspect.Store`."""

    def __init__(
        self, url: str, namespace: str, options: Mapping[str, Any], timeout_s: float, accounts: Sequence[str] = ()
    ) -> None:
        self.room = RedisRoom.from_url(_plain(url), namespace, options)
        self._options, self._lanes = options, lanes_in(accounts)
        self._client, self._key, self._reaching = self.room._client, self.room._key, self.room._reaching
        timeouts = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        self._client.connection_pool.connection_kwargs.update(timeouts)

    def facts(self) -> RedisFacts:
        with self._reaching():
            round_trip_s, clock_ahead_s = min(self._compare_clocks() for _ in range(3))
            try:
                info: dict[str, Any] = self._client.info("all")
            except ResponseError as error:  # no right to ask
                return RedisFacts(round_trip_s, clock_ahead_s, refused=str(error)[:200])
            return RedisFacts(
                round_trip_s,
                clock_ahead_s,
                server_id=_text(info.get("run_id")),
                version=_text(info.get("redis_version")),
                is_cluster=bool(info.get("cluster_enabled")),
                is_replica=info.get("role") == "slave",
                policy=_text(info.get("maxmemory_policy")),
                max_bytes=info.get("maxmemory"),
                used_bytes=info.get("used_memory"),
                system_bytes=info.get("total_system_memory"),
                append_only=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
                snapshots=self._makes_snapshots(),
                replicas=info.get("connected_slaves"),
            )

    def _compare_clocks(self) -> tuple[float, float]:
        asked_at, began = time.time(), time.perf_counter()
        seconds, micros = self._client.time()
        took_s = time.perf_counter() - began
        return took_s, seconds + micros / 1e6 - (asked_at + took_s / 2)

    def _makes_snapshots(self) -> bool | None:
        try:
            return bool(self._client.config_get("save").get("save"))
        except ResponseError:  # hosted servers refuse CONFIG
            return None

    def state(self) -> RoomState:
        with self._reaching():
            seconds, micros = self._client.time()
            now = seconds + micros / 1e6
            pipe = self._client.pipeline(transaction=False)
            pipe.hmget(self._key("lead"), ["owner", "until"])
            for lane in self._lanes:
                pipe.zcard(self._key("lane", lane))
                pipe.zcount(self._key("lane", lane), "-inf", f"({now - LATE_S!r}")
                pipe.zrange(self._key("lane", lane), 0, 0, withscores=True)
            (owner, ends_at), *answers = pipe.execute()
        told = zip(self._lanes.values(), answers[0::3], answers[1::3], answers[2::3], strict=True)
        lanes = summed(
            (name, Lane(count, overdue, first[0][1] if first else None)) for name, count, overdue, first in told
        )
        leads = owner is not None and float(ends_at or 0) > now
        return RoomState(now, owner.decode() if leads else None, lanes)

    def exists(self) -> bool:
        return True

    def try_to_write(self) -> None:
        with self._reaching():
            self._client.set(self._key("doctor"), "1", ex=10)
            self._client.delete(self._key("doctor"))

    def queue_lengths(self, names: tuple[str, ...]) -> dict[str, int]:
        prefix = str(self._options.get("global_keyprefix") or "")
        separator = str(self._options.get("sep") or _SEPARATOR)
        steps = [int(step) for step in self._options.get("priority_steps") or _PRIORITIES]
        with self._reaching():
            pipe = self._client.pipeline(transaction=False)
            for name in names:
                for step in steps:
                    pipe.llen(f"{prefix}{name}{separator}{step}" if step else f"{prefix}{name}")
            lengths = pipe.execute()
        return {name: sum(lengths[at * len(steps) : (at + 1) * len(steps)]) for at, name in enumerate(names)}

    def close(self) -> None:
        self.room.close()


def _plain(url: str) -> str:
    """kombu's form of a socket's address, in redis-py's."""
    if not url.startswith("redis+socket:"):
        return url
    parts = urlsplit(url)
    database = dict(parse_qsl(parts.query)).get("virtual_host", "0").strip("/") or "0"
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"unix://{user}localhost{parts.path}?db={database}"  # the host is not read, but keeps the slashes in place


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
