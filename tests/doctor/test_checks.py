"""The checks as a table: each finding is there in the deployment that has it, and not in the healthy one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from framelane_celery.doctor import Finding
from framelane_celery.doctor.configuration import LIVE_URL, SUPPORTED
from framelane_celery.doctor.facts import (
    ApiFacts,
    BackendFacts,
    BrokerFacts,
    ConfFacts,
    Facts,
    NotAsked,
    Override,
    QueueFacts,
    QueuePlan,
    RoomFacts,
    SettingsFacts,
    TaskFacts,
    WorkerFacts,
)
from framelane_celery.doctor.findings import span
from framelane_celery.doctor.health import judge
from framelane_celery.doctor.visit import CHECKS
from framelane_celery.room import Ends, Hold
from framelane_celery.room.inspect import Lane, RedisFacts, RoomState, SqlFacts
from framelane_celery.room.inspect_sql import file_system_of

NOW = 1_700_000_000.0
AWAY = NotAsked("ConnectionError: refused")

REDIS = RedisFacts(
    round_trip_s=0.001,
    clock_ahead_s=0.01,
    server_id="one",
    version="7.0.15",
    policy="noeviction",
    max_bytes=1000,
    used_bytes=100,
    system_bytes=10_000,
    append_only=True,
    snapshots=True,
    replicas=0,
)
SQLITE = SqlFacts("sqlite", round_trip_s=0.001, clock_ahead_s=0.0, file_system="ext4")
STATE = RoomState(
    NOW,
    "w1@host/0123abcd",
    {"clock": Lane(3, 0, NOW + 9), "look": Lane(2, 0, NOW + 1), "dead": Lane(5, 0, NOW), "dead:new": Lane()},
)
TASK = TaskFacts("shop.promo", "shop")
HEALTHY = Facts(
    conf=ConfFacts(
        broker="redis",
        broker_options={"visibility_timeout": 900, "confirm_publish": True},
        longest_time_limit_s=600,
        queues=(QueuePlan("shop", is_quorum=True, exchange_type="topic"),),
    ),
    settings=SettingsFacts(task_queues=("shop",), retry_queues=("shop.retry",), dead_letter_queues=("shop.dead",)),
    tasks=(TASK,),
    versions={"celery": "5.7.0", "kombu": "5.7.0", "pydantic": "2.14.4", "redis": "8.1.0", "sqlalchemy": None},
    api=ApiFacts(200),
    room=RoomFacts(REDIS, state=STATE),
    broker=BrokerFacts(REDIS, {"shop": QueueFacts(7), "shop.retry": QueueFacts(0), "shop.dead": QueueFacts(5)}),
    backend=BackendFacts(REDIS),
    workers=(WorkerFacts("w1@host", ("shop", "shop.retry"), ("shop.promo",)),),
)


def conf(**changes: Any) -> Facts:
    return replace(HEALTHY, conf=replace(HEALTHY.conf, **changes))


def settings(**changes: Any) -> Facts:
    assert isinstance(HEALTHY.settings, SettingsFacts)
    return replace(HEALTHY, settings=replace(HEALTHY.settings, **changes))


ACCEPTED = ApiFacts(200)


def of_eu(api: ApiFacts | NotAsked = ACCEPTED, url: str = LIVE_URL, **changes: Any) -> Facts:
    """With an account of that name."""
    return replace(settings(accounts={"eu": url}, **changes), account_apis={"eu": api})


def task(**changes: Any) -> Facts:
    return replace(HEALTHY, tasks=(TASK._replace(**changes),))


def room(**changes: Any) -> Facts:
    assert isinstance(HEALTHY.room, RoomFacts)
    return replace(HEALTHY, room=replace(HEALTHY.room, **changes))


def redis(**changes: Any) -> Facts:
    """One server for all."""
    store = replace(REDIS, **changes)
    broker = BrokerFacts(store, HEALTHY.broker.queues if isinstance(HEALTHY.broker, BrokerFacts) else {})
    return replace(room(store=store), broker=broker, backend=BackendFacts(store))


def sqlite(**changes: Any) -> Facts:
    return room(store=replace(SQLITE, **changes))


def state(**changes: Any) -> Facts:
    return room(state=replace(STATE, **changes))


def lanes(**changes: Lane) -> Facts:
    named = {name.replace("_", ":"): lane for name, lane in changes.items()}
    return state(lanes={**STATE.lanes, **named})


def rabbitmq(facts: Facts = HEALTHY, **queues: QueueFacts) -> Facts:
    named = {name.replace("_", "."): queue for name, queue in queues.items()}
    known = {"shop": QueueFacts(0, 1), "shop.retry": QueueFacts(0, 1), "shop.dead": QueueFacts(5, 0), **named}
    return replace(facts, conf=replace(facts.conf, broker="amqp"), broker=BrokerFacts(None, known))


def workers(*found: WorkerFacts) -> Facts:
    return replace(HEALTHY, workers=found)


def run(facts: Facts) -> list[Finding]:
    return [finding for check in CHECKS for finding in check(facts)]


CASES: dict[str, tuple[Facts, str, str]] = {
    # the application
    "misplaced": (conf(misplaced=("Django's FRAMELANE",)), "problem", "Django's FRAMELANE is set, but"),
    "unresolved": (replace(HEALTHY, settings=NotAsked("room_url: set it")), "problem", "room_url: set it"),
    "unread": (replace(HEALTHY, unread=("the app's tasks (boom)",)), "warning", "not checked: the app's tasks (boom)"),
    "eager": (conf(always_eager=True), "warning", "task_always_eager is on"),
    "broker-by-environment": (
        replace(HEALTHY, overrides=(Override("CELERY_BROKER_URL", "broker_url", True),)),
        "warning",
        "CELERY_BROKER_URL and broker_url differ: CELERY_BROKER_URL wins",
    ),
    "key-by-conf": (
        replace(HEALTHY, overrides=(Override("FRAMELANE_API_KEY", "framelane['api_key']", False),)),
        "warning",
        "differ: framelane['api_key'] wins",
    ),
    "no-key": (settings(has_key=False), "problem", "no key is set"),
    "key-refused": (replace(HEALTHY, api=ApiFacts(401, "401: invalid")), "problem", "refuses the key (401)"),
    "key-forbidden": (replace(HEALTHY, api=ApiFacts(403, "403: verify")), "problem", "permits nothing (403)"),
    "no-usage": (replace(HEALTHY, api=ApiFacts(404, "404")), "warning", "has no /v1/workspace/usage"),
    "api-away": (replace(HEALTHY, api=ApiFacts(None, "GET: refused")), "warning", "not checked: GET: refused"),
    "api-silent": (replace(HEALTHY, api=AWAY), "warning", "not checked: ConnectionError"),
    "other-host": (settings(base_url="http://127.0.0.1:8765"), "warning", "not to the live host"),
    "clear-text": (settings(base_url="http://framelane.example"), "problem", "is not encrypted"),
    "only-accounts-have-keys": (of_eu(has_key=False), "warning", "account default has none"),
    "account-refused": (of_eu(ApiFacts(401, "401: invalid")), "problem", "account eu: the API refuses the key (401)"),
    "account-away": (of_eu(AWAY), "warning", "account eu: not checked: ConnectionError"),
    "account-elsewhere": (of_eu(url="http://eu.example"), "problem", "account eu: http://eu.example is not encrypted"),
    "account-removed": (room(left_alone={"us": 7}), "problem", "7 of account us are left alone"),
    "no-task": (replace(HEALTHY, tasks=()), "warning", "the app has no Framelane task"),
    "early-acks": (task(acks_late=False), "problem", "acks_late is off on shop.promo"),
    "lost-with-worker": (task(reject_on_worker_lost=False), "problem", "reject_on_worker_lost is off on shop.promo"),
    "failures-rejected": (task(acks_failures=False), "warning", "failed runs are rejected"),
    "retry-on-lost": (task(retry_on_worker_lost=True), "warning", "retry_on_worker_lost is on"),
    "track-started": (task(track_started=True), "warning", "track_started is on: shop.promo"),
    "ignore-result": (task(ignore_result=True), "warning", "ignore_result is on: shop.promo"),
    "other-request": (task(has_our_request=False), "problem", "Request is overridden"),
    "short-limit": (task(time_limit_s=20.0), "warning", "shorter than one POST may take (35 s)"),
    "default-hour": (conf(broker_options={}), "warning", "comes back after 1 h (the default)"),
    "long-visibility": (conf(broker_options={"visibility_timeout": 86400}), "warning", "comes back after 24 h"),
    "paid-twice": (conf(broker_options={"visibility_timeout": 172800}), "problem", "longer than a finished record"),
    "short-visibility": (conf(longest_time_limit_s=1800.0), "problem", "shorter than the longest time limit"),
    "quorum-direct": (
        rabbitmq(conf(queues=(QueuePlan("shop", is_quorum=True, exchange_type="direct"),))),
        "warning",
        "with a direct exchange: shop",
    ),
    "no-backend": (conf(backend="disabled"), "warning", "there is no result backend"),
    "rpc": (conf(backend="rpc"), "warning", "result_backend is rpc://"),
    "short-results": (conf(result_expires_s=60.0), "warning", "result_expires is 60 s"),
    "short-chords": (conf(result_chord_expires_s=90.0), "warning", "result_chord_expires is 90 s"),
    "no-json": (conf(accepts_json=False), "problem", "accept_content has no json"),
    "pickle": (conf(task_serializer="pickle"), "warning", "task_serializer is pickle"),
    "no-json-results": (conf(accepts_json_results=False), "problem", "result_accept_content has no json"),
    "old-celery": (replace(HEALTHY, versions={"celery": "5.4.0"}), "problem", "celery 5.4.0 is outside"),
    "new-celery": (replace(HEALTHY, versions={"celery": "6.0.0b1"}), "problem", "celery 6.0.0b1 is outside"),
    # the stores
    "room-away": (replace(HEALTHY, room=AWAY), "problem", "cannot be reached: ConnectionError"),
    "room-refuses": (room(store=AWAY), "problem", "cannot be reached: ConnectionError"),
    "read-only": (room(write_error="READONLY"), "problem", "not written: READONLY"),
    "slow-room": (redis(round_trip_s=0.08), "warning", "a round trip takes 80 ms"),
    "skew": (redis(clock_ahead_s=-5.0), "warning", "the room's clock is 5 s behind this host's"),
    "wide-skew": (redis(clock_ahead_s=40.0), "problem", "the room's clock is 40 s ahead of this host's"),
    "no-tables-no-right": (sqlite(tables_missing=("t",), may_create=False), "problem", "not there yet: t"),
    "nfs": (sqlite(file_system="nfs4"), "warning", "network file system (nfs4)"),
    "hosts": (
        replace(
            sqlite(), workers=(*(WorkerFacts(f"w@{host}", ("shop", "shop.retry"), ("shop.promo",)) for host in "ab"),)
        ),
        "warning",
        "workers run on 2 hosts",
    ),
    "relative": (sqlite(is_relative=True), "warning", "named from the working directory"),
    "no-info": (redis(refused="NOPERM"), "warning", "not checked: INFO is refused (NOPERM)"),
    "cluster": (redis(is_cluster=True), "problem", "it is a Redis Cluster"),
    "old-redis": (redis(version="4.0.9"), "problem", "version 4.0.9 is too old"),
    "evicts": (redis(policy="allkeys-lru"), "problem", "maxmemory-policy is allkeys-lru"),
    "would-evict": (redis(policy="allkeys-lru", max_bytes=0), "warning", "maxmemory-policy is allkeys-lru"),
    "filling": (redis(used_bytes=850), "warning", "85% of maxmemory is used, policy noeviction"),
    "full": (redis(used_bytes=990, policy="volatile-lru"), "problem", "99% of maxmemory is used, policy volatile-lru"),
    "out-of-memory": (redis(max_bytes=0, used_bytes=9000), "warning", "uses 90% of its host's memory"),
    "snapshots-only": (redis(append_only=False), "warning", "AOF is off, only snapshots are made"),
    "unsaved": (redis(append_only=False, snapshots=False), "warning", "nothing is saved"),
    "save-unknown": (redis(append_only=False, snapshots=None), "warning", "does not tell whether it saves"),
    "results-away": (replace(HEALTHY, backend=NotAsked("no route")), "problem", "cannot be reached: no route"),
    # what runs
    "broker-away": (replace(HEALTHY, broker=AWAY, workers=AWAY), "problem", "it cannot be reached: ConnectionError"),
    "queues-unknown": (replace(HEALTHY, broker=BrokerFacts(REDIS, AWAY)), "warning", "not checked: ConnectionError"),
    "stuck": (rabbitmq(shop=QueueFacts(3, 0)), "problem", "messages wait and nobody takes them: shop (3 waiting)"),
    "stuck-retries": (rabbitmq(shop_retry=QueueFacts(2, 0)), "problem", "nobody takes them: shop.retry (2 waiting)"),
    "idle": (rabbitmq(shop=QueueFacts(0, 0)), "warning", "nobody serves shop"),
    "idle-retries": (rabbitmq(shop_retry=QueueFacts(0, 0, is_there=False)), "warning", "nobody serves shop.retry"),
    "stuck-on-redis": (workers(), "problem", "nobody takes them: shop (7 waiting)"),
    "who-serves": (replace(HEALTHY, workers=AWAY), "warning", "who serves shop.retry"),
    "replaying": (rabbitmq(shop_dead=QueueFacts(0, 1)), "warning", "somebody consumes shop.dead"),
    "no-answer": (replace(HEALTHY, workers=AWAY), "warning", "not checked: ConnectionError: refused"),
    "no-worker": (workers(), "problem", "none that serves shop answers"),
    "others-only": (workers(WorkerFacts("x@y", ("blog",), ())), "problem", "answers; 1 of other queues do"),
    "unregistered": (
        workers(WorkerFacts("w1@host", ("shop", "shop.retry"), ("other",))),
        "problem",
        "w1@host lacks shop.promo",
    ),
    "no-leader": (state(leader=None), "problem", "nobody leads in namespace shop, though workers are up"),
    "watcher-off": (
        replace(state(leader=None), settings=settings(watcher=False).settings),
        "problem",
        "nobody leads in namespace shop, and watcher is off",
    ),
    "nobody": (replace(state(leader=None), workers=()), "problem", "nobody leads in namespace shop"),
    "state-unknown": (room(state=NotAsked("no tables")), "warning", "not checked: no tables"),
    "overdue": (lanes(clock=Lane(9, 4, NOW - 300)), "problem", "4 overdue, the first one by 5 min"),
    "late-looks": (lanes(look=Lane(9, 4, NOW - 300)), "warning", "4 looked at late, the first one by 5 min"),
    "never-begun": (
        room(never_begun=("id-1 (shop.promo)",)),
        "problem",
        "never begun, though sent again and again: id-1 (shop.promo)",
    ),
    "alarm": (lanes(dead=Lane(999), dead_new=Lane(1)), "problem", "1000 waiting for somebody (alarm at 1000)"),
    "near-alarm": (lanes(dead=Lane(900)), "warning", "900 waiting for somebody (alarm at 1000)"),
    "unannounced": (lanes(dead_new=Lane(2, 2, NOW - 90)), "warning", "2 not announced on their queue"),
    "dead-webhook": (
        replace(
            settings(has_webhooks=True),
            room=replace(
                HEALTHY.room, ends={"hint": Ends(9, 9, 1.0), "sweep": Ends(41, 41, 90.0), "long_poll": Ends(99)}
            ),
        ),
        "warning",
        "9 of 50 ends of jobs were told by webhooks",
    ),
    "hold": (
        room(holds=(Hold("acme", "quota_exceeded", "402", NOW - 7200, NOW + 3600),)),
        "warning",
        "account acme is on hold for quota_exceeded since 2023-11-14 20:13 UTC (2 h)",
    ),
}


def test_a_healthy_deployment_has_nothing_but_ok() -> None:
    for facts in (HEALTHY, rabbitmq(), sqlite(), replace(HEALTHY, conf=replace(HEALTHY.conf, backend="file"))):
        assert [finding for finding in run(facts) if finding.level != "ok"] == []


def test_webhooks_that_tell_of_most_ends_are_well() -> None:
    ends = {"hint": Ends(41), "sweep": Ends(9)}
    facts = replace(settings(has_webhooks=True), room=replace(HEALTHY.room, ends=ends))
    assert [finding.what for finding in run(facts) if finding.check == "webhooks"] == [
        "41 of 50 ends of jobs were told by webhooks (today and yesterday, long-polls apart)"
    ]


@pytest.mark.parametrize(("facts", "level", "what"), CASES.values(), ids=CASES)
def test_each_finding_is_there_when_it_should_and_only_then(facts: Facts, level: str, what: str) -> None:
    found = [finding for finding in run(facts) if what in finding.what]
    assert [finding.level for finding in found] == [level]
    assert all(finding.why for finding in found)
    assert all(finding.change or "not checked" in finding.what for finding in found)
    assert not [finding for finding in run(HEALTHY) if what in finding.what]


def test_the_checks_bear_that_nothing_at_all_could_be_asked() -> None:
    nothing = Facts(settings=AWAY, api=AWAY, room=AWAY, broker=AWAY, backend=AWAY, workers=AWAY)
    assert {finding.level for finding in run(nothing)} == {"problem", "warning", "ok"}
    known = replace(nothing, settings=HEALTHY.settings)
    assert "not checked: ConnectionError: refused" in [finding.what for finding in run(known)]


def test_a_server_with_three_uses_is_judged_once_and_three_servers_thrice() -> None:
    assert [f.check for f in run(redis(policy="allkeys-lfu")) if "allkeys" in f.what] == [
        "Redis (room, broker, results)"
    ]
    others = replace(
        HEALTHY,
        broker=BrokerFacts(replace(REDIS, server_id="two", policy="allkeys-lfu")),
        backend=BackendFacts(replace(REDIS, server_id="three", append_only=False, snapshots=False)),
    )
    found = {f.check: f.level for f in run(others) if f.check.startswith("Redis")}
    assert found == {"Redis (room)": "ok", "Redis (broker)": "problem", "Redis (results)": "ok"}


def test_a_released_hold_is_none() -> None:
    over = room(holds=(Hold("acme", "operator", "r", NOW - 9, None, NOW),))
    assert [f.what for f in run(over) if f.check == "holds"] == ["none"]


def test_what_waits_for_longer_than_results_live_is_kept_alive_and_said_so() -> None:
    assert [(f.level, f.what) for f in run(HEALTHY) if f.check == "results"] == [
        ("ok", "result_expires 24 h; tasks may wait for 35 days")
    ]
    assert "longer than tasks wait" in next(f.what for f in run(conf(result_expires_s=None)) if f.check == "results")


def test_confirms_that_are_off_are_a_note() -> None:
    off = rabbitmq(conf(broker_options={}))
    assert [(f.level, bool(f.change)) for f in run(off) if f.check == "publisher confirms"] == [("ok", True)]


def test_the_supported_versions_are_those_of_the_metadata() -> None:
    from pathlib import Path

    text = Path(__file__, "../../../pyproject.toml").resolve().read_text()
    for name in ("celery", "kombu", "pydantic", "sqlalchemy"):
        low, end = SUPPORTED[name]
        assert f'"{name}>={low}' + (f",<{end}" if end else "") + '"' in text
    assert LIVE_URL == "https://api.framelane.io"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5.04, "5 s"), (150, "2.5 min"), (119, "119 s"), (120, "2 min"), (3600, "1 h"), (6 * 86400, "6 days")],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Any) -> None:
    mounts = f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\nproc {tmp_path}-other proc rw 0 0\n"
    assert file_system_of(tmp_path / "room.db", mounts) == "nfs4"
    assert file_system_of(tmp_path.parent / "room.db", mounts) == "ext4"
    assert file_system_of(tmp_path, "") is None


def test_health_is_the_room_a_leader_and_nothing_overdue() -> None:
    assert [entry.is_healthy for entry in judge(STATE)] == [True, True, True]
    assert [(e.check, e.is_healthy) for e in judge(AWAY)] == [("room", False)]
    sick = replace(STATE, leader=None, lanes={"clock": Lane(1, 1, NOW - 90)})
    assert [(e.is_healthy, e.what) for e in judge(sick)] == [
        (True, "it answers"),
        (False, "nobody leads"),
        (False, "1 overdue, the first one by 90 s"),
    ]
