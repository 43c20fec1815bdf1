"""Named accounts without a worker: their settings, their share of the reads, their lanes, and what is left alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from framelane_celery import orphans, records, wakeups, webhooks
from framelane_celery.client import shared_client
from framelane_celery.errors import InvalidArguments, NotFound, SettingsError
from framelane_celery.models import Job, JobPage, Usage
from framelane_celery.records import Record
from framelane_celery.room import Room, room_of
from framelane_celery.settings import FramelaneSettings, settings_of
from framelane_celery.tasks.jobs import fresh_url
from framelane_celery.tasks.routes import decide
from framelane_celery.testing.webhooks import signature
from framelane_celery.waits import wait_of
from framelane_celery.watching import looks
from framelane_celery.watching.slots import AHEAD
from framelane_celery.watching.watcher import Watcher
from framelane_celery.webhooks import WebhookRefused
from tests.unit.test_settings import SECRET, make_settings, refusal

EU = {"api_key": "fl_eu"}
COMPOSITION = {"elements": [{"type": "text", "text": "hello", "duration": 2}]}


# --- settings ----------------------------------------------------------------------------------------------------


def test_an_accounts_values_lie_over_the_top_levels() -> None:
    guard = {"submissions_per_day": 3}
    settings = make_settings(
        {
            "api_key": "fl_top",
            "webhook_secrets": "whsec_top",
            "deadline_s": 5,
            "accounts": {
                "eu": {**EU, "base_url": "https://eu.example/v1/", "renders_per_minute": 7, "spend_guard": guard},
                "us-2.b_C": {"api_key": "fl_us\n", "webhook_secrets": ["whsec_us", "whsec_old"]},
            },
        }
    )
    assert settings.of("default") is settings
    eu, us = settings.of("eu"), settings.of("us-2.b_C")
    assert settings.of("eu") is eu
    assert settings.account_names == ("default", "eu", "us-2.b_C")
    keys = [one.api_key.get_secret_value() for one in (settings, eu, us) if one.api_key]
    assert keys == ["fl_top", "fl_eu", "fl_us"]
    assert [one.base_url for one in (settings, eu, us)] == [
        "https://api.framelane.io", "https://eu.example", "https://api.framelane.io",
    ]  # fmt: skip
    assert (eu.renders_per_minute, eu.media_tasks_per_minute, us.renders_per_minute) == (7, 300, 120)
    assert (eu.spend_guard.submissions_per_day, us.spend_guard.submissions_per_day) == (3, None)
    assert {one.deadline_s for one in (settings, eu, us)} == {5}
    secrets = [secret.get_secret_value() for secret in settings.all_webhook_secrets]
    assert secrets == ["whsec_top", "whsec_us", "whsec_old"]


@pytest.mark.parametrize(
    ("accounts", "told"),
    [
        ({"eu": {}}, "accounts.eu.api_key: Field required"),
        ({"eu": {"api_kye": SECRET}}, "accounts.eu: unknown key 'api_kye'; did you mean 'api_key'?"),
        ({"eu": {**EU, "deadline_s": 4}}, "accounts.eu: unknown key 'deadline_s'; the keys are api_key, base_url"),
        ({"eu": {"api_key": f"{SECRET} {SECRET}"}}, "accounts.eu.api_key: must be printable ASCII without spaces"),
        ({"eu": {"api_key": ""}}, "accounts.eu.api_key: must be printable ASCII"),
        ({"eu": {**EU, "base_url": f"ftp://{SECRET}"}}, "accounts.eu.base_url: must look like https://"),
        ({"eu": {**EU, "webhook_secrets": [SECRET, ""]}}, "accounts.eu.webhook_secrets: holds an empty secret"),
        ({"eu": {**EU, "renders_per_minute": 0}}, "accounts.eu.renders_per_minute: "),
        ({"eu": {**EU, "spend_guard": {"minutes_per_day": -1}}}, "accounts.eu.spend_guard.minutes_per_day: "),
        ({"default": EU}, "accounts: 'default' is the top level itself"),
        ({"e:u": EU}, "accounts: an account's name may hold only letters, digits and _ . -, not 'e:u'"),
        ({"": EU}, "accounts: an account's name may hold only"),
        ({"eu": SECRET}, "accounts.eu: "),
        ([SECRET], "accounts: "),
    ],
)
def test_what_is_wrong_is_named_and_no_secret_is(accounts: Any, told: str) -> None:
    assert told in refusal({"accounts": accounts})


def test_an_unknown_account_is_told_with_the_nearest_name() -> None:
    settings = make_settings({"accounts": {"europe": EU}})
    with pytest.raises(SettingsError, match=r"no account 'euorpe' in framelane\['accounts'\]; did you mean 'europe'"):
        settings.of("euorpe")
    with pytest.raises(SettingsError, match="the accounts are default, europe"):
        settings.of("?")


def test_no_key_is_shown_and_equal_settings_are_equal() -> None:
    conf = {"accounts": {"eu": {"api_key": SECRET, "webhook_secrets": SECRET}}}
    settings, again = make_settings(conf), make_settings(conf)
    for shown in (settings, settings.of("eu"), settings.accounts["eu"]):
        assert SECRET not in f"{shown!r} {shown} {shown.model_dump()}"
    assert (settings == again, hash(settings) == hash(again)) == (True, True)
    assert settings != make_settings({"accounts": {"eu": EU}})
    assert shared_client(settings.of("eu")) is shared_client(again.of("eu"))


@pytest.mark.parametrize(
    ("kind", "own", "bucket", "per_minute"),
    [
        ("render", {}, "render", 120),
        ("task", {}, "task", 300),
        ("import", {}, "task", 300),
        ("render", {"renders_per_minute": 7}, "render:eu", 7),
        ("task", {"renders_per_minute": 7}, "task", 300),
        ("import", {"media_tasks_per_minute": 7}, "task:eu", 7),
    ],
)
def test_accounts_share_the_slots_unless_they_have_a_limit_of_their_own(
    kind: str, own: dict[str, int], bucket: str, per_minute: int
) -> None:
    settings = make_settings({"accounts": {"eu": {**EU, **own}}})
    assert (settings.bucket("eu", kind), settings.per_minute("eu", kind)) == (bucket, per_minute)
    assert settings.bucket("default", kind) == ("render" if kind == "render" else "task")


# --- the budget of reads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "shares"),
    [
        ({"default": 0}, {"default": 600}),
        ({"default": 1}, {"default": 600}),
        ({"default": 5000, "eu": 0}, {"default": 588, "eu": 12}),
        ({"default": 5000, "eu": 3}, {"default": 420, "eu": 180}),
        ({"default": 5000, "eu": 5000}, {"default": 300, "eu": 300}),
        ({"default": 9, "eu": 10**6, "us": 10**6}, {"default": 200, "eu": 200, "us": 200}),
    ],
)
def test_nobody_takes_the_reads_of_others(counts: dict[str, int], shares: dict[str, int]) -> None:
    assert looks.shares(counts, 600) == shares


@given(
    counts=st.dictionaries(st.text(max_size=3), st.integers(0, 10**5), min_size=1, max_size=9),
    per_minute=st.integers(200, 10**4),
)
def test_all_shares_together_are_the_budget(counts: dict[str, int], per_minute: int) -> None:
    shares = looks.shares(counts, per_minute)
    assert sum(shares.values()) == per_minute
    least = min(per_minute // len(counts), looks.LEAST_SHARE)
    assert all(share >= least for share in shares.values())


# --- a watcher's parts -------------------------------------------------------------------------------------------


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    with Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        app.conf.framelane = {
            "api_key": "fl_top",
            "room_url": f"sqlite:///{tmp_path}/room.sqlite",
            "accounts": {"eu": EU, "us": {"api_key": "fl_us", "renders_per_minute": 5, "reads_per_minute": 30}},
        }
        yield app
        room_of(app, settings_of(app)).close()


@pytest.fixture
def room(app: Celery) -> Room:
    return room_of(app, settings_of(app))


class Leader:
    """A watcher that leads, without its threads. What its pools would call is kept, by account."""

    def __init__(self, app: Celery, room: Room) -> None:
        nothing: dict[str, Any] = {"runs": tuple, "revokes": tuple, "events_are_on": lambda: False}
        self.watcher = Watcher(app, room, settings_of(app), "w@host", **nothing)
        self.watcher.token = room.lead(self.watcher._owner, 60)
        self.published: list[str] = []
        self.watcher.publish = lambda record: self.published.append(record.id)  # type: ignore[method-assign]
        self.calls: dict[str, list[Any]] = {}
        for account, workspace in self.watcher._workspaces.items():
            self.calls[account] = []
            workspace.pool.call = self.calls[account].append  # type: ignore[method-assign]


@pytest.fixture
def leader(app: Celery, room: Room) -> Leader:
    return Leader(app, room)


def put(app: Celery, room: Room, task_id: str, account: str = "eu", **fields: Any) -> Record:
    call = wakeups.call_of(app.tasks["framelane.render"], [COMPOSITION], {}, {}).to_text()
    record = Record(id=task_id, task="framelane.render", call=call, digest="d", account=account, **fields)
    assert room.create(record) is None
    return record


def waiting_for(app: Celery, room: Room, account: str, number: int = 1) -> None:
    now = time.time()
    for n in range(number):
        job_id = f"render_{account}_{n}"
        put(
            app, room, f"{account}-{n}", account, until="job", due_at=1.0, job_id=job_id, job_kind="render",
            accepted_at=now, deadline_at=now + 600,
        )  # fmt: skip


def test_each_account_is_looked_at_with_its_own_key(app: Celery, room: Room, leader: Leader) -> None:
    for account in ("default", "eu", "us", "gone"):
        waiting_for(app, room, account)
    leader.watcher._look()
    asked: dict[str, list[str]] = {}
    for account, calls in leader.calls.items():
        client = SimpleNamespace(get_job=lambda kind, job_id, wait_s, a=account: asked.setdefault(a, []).append(job_id))
        for call in calls:
            call(client)
    assert asked == {account: [f"render_{account}_0"] for account in ("default", "eu", "us")}
    record, _ = room.read("gone-0")
    assert record is not None
    assert (record.lane, record.due_at) == ("look:gone", 1.0)  # nobody has touched it


def test_the_reads_are_shared_out(app: Celery, room: Room, leader: Leader) -> None:
    waiting_for(app, room, "eu", 3)
    waiting_for(app, room, "us")
    leader.watcher._look()
    leader.watcher._look()
    plans = {account: one.looker._plan for account, one in leader.watcher._workspaces.items()}
    assert {account: plan._per_minute for account, plan in plans.items()} == {"default": 12, "eu": 588, "us": 30}


def test_the_clients_of_the_pools_have_their_accounts_keys(leader: Leader) -> None:
    keys = {account: one.pool._client()._auth.key for account, one in leader.watcher._workspaces.items()}
    assert keys == {"default": "fl_top", "eu": "fl_eu", "us": "fl_us"}


def test_usage_is_read_with_the_key_of_who_is_on_hold(app: Celery, room: Room, leader: Leader) -> None:
    room.hold("eu", "quota_exceeded", "spent")
    room.hold("gone", "quota_exceeded", "spent")
    put(app, room, "held", "gone", until="release", due_at=1.0, held_at=1.0)
    leader.watcher._holds.keep()
    assert {account: len(calls) for account, calls in leader.calls.items()} == {"default": 0, "eu": 1, "us": 0}
    end = datetime.now(timezone.utc) + timedelta(days=3)
    leader.calls["eu"][0](SimpleNamespace(get_usage=lambda: Usage(period_end=end)))
    assert {hold.account: hold.ends_at for hold in room.holds()[0]} == {"eu": end.timestamp(), "gone": None}
    record, _ = room.read("held")
    assert record is not None
    assert record.until == "release"  # though it was held for long enough: nobody could submit it


@pytest.mark.parametrize("account", ["default", "eu", "us"])
def test_who_is_held_without_a_hold_is_let_go_whatever_the_account(
    app: Celery, room: Room, leader: Leader, account: str
) -> None:
    put(app, room, "held", account, until="release", due_at=time.time() + 600, held_at=1.0, bucket="render:us")
    leader.watcher._holds.keep()
    record, _ = room.read("held")
    assert record is not None
    assert record.lane == "slot:render:us"


def test_every_queue_of_slots_is_woken_also_one_whose_account_has_no_limit_any_more(
    app: Celery, room: Room, leader: Leader
) -> None:
    for task_id, account, bucket in (("a", "us", "render:us"), ("b", "eu", "render:eu"), ("c", "default", None)):
        put(app, room, task_id, account, until="slot", due_at=1.0, queued_at=1.0, job_kind="render", bucket=bucket)
    for queue in leader.watcher._slots:
        queue.let_in()
    assert sorted(leader.published) == ["a", "b", "c"]


def test_an_own_limit_has_slots_of_its_own(app: Celery, room: Room, leader: Leader) -> None:
    for n in range(9):
        put(
            app, room, f"us-{n}", "us", until="slot", due_at=1.0 + n, queued_at=1.0, job_kind="render",
            bucket="render:us",
        )  # fmt: skip
    room.brake("render", 60)
    for queue in leader.watcher._slots:
        queue.let_in()
    assert leader.published == [f"us-{n}" for n in range(5)]


def test_those_of_a_removed_account_do_not_stop_the_queue(app: Celery, room: Room, leader: Leader) -> None:
    for n in range(AHEAD):
        put(app, room, f"gone-{n}", "gone", until="slot", due_at=1.0 + n, queued_at=1.0, job_kind="render")
    put(app, room, "web", until="slot", due_at=100.0, queued_at=100.0, job_kind="render")
    leader.watcher._slots[0].let_in()
    leader.watcher._slots[0].let_in()
    assert leader.published[-1] == "web"


def test_what_is_left_alone_is_told_once_a_round_and_its_results_are_kept(
    app: Celery, room: Room, leader: Leader, caplog: pytest.LogCaptureFixture
) -> None:
    put(app, room, "waits", "gone", due_at=time.time() + 60)
    waiting_for(app, room, "gone", 2)
    waiting_for(app, room, "eu", 2)
    kept: list[str] = []
    leader.watcher._scribe.keep_alive = lambda record: kept.append(record.id)  # type: ignore[method-assign]
    for _ in range(5):
        leader.watcher._keeper.keep()
        while not leader.watcher._desk.is_idle:
            leader.watcher._desk._work.get()()  # type: ignore[misc]
    assert sorted(kept) == ["gone-0", "gone-1", "waits"]
    told = [line for line in caplog.messages if "does not name it" in line]
    assert told == ["3 records of account gone wait: framelane['accounts'] does not name it (any more)"]


def test_a_revoked_task_of_a_removed_account_ends_without_its_key(app: Celery, room: Room, leader: Leader) -> None:
    put(app, room, "x", "gone", until="job", due_at=0.0, job_id="render_1", ending="revoked")
    leader.watcher._keep_due_times()
    assert not any(leader.calls.values())
    leader.watcher._desk._work.get()()  # type: ignore[misc]
    record, _ = room.read("x")
    assert record is not None
    assert record.until == "done"


# --- beside the watcher ------------------------------------------------------------------------------------------


def test_the_spend_guard_is_the_accounts_own(app: Celery, room: Room) -> None:
    app.conf.framelane = {
        **app.conf.framelane,
        "accounts": {"eu": {**EU, "spend_guard": {"max_attempts": 1}}},
        "routes": [{"code": "internal", "action": "retry", "max_attempts": 5, "backoff_s": 1}],
    }
    kinds = {
        account: type(decide(app, settings_of(app), put(app, room, account, account), "internal")).__name__
        for account in ("default", "eu", "gone")
    }
    assert kinds == {"default": "Retry", "eu": "DeadLetter", "gone": "Retry"}


def test_a_wait_says_that_its_account_is_not_named(app: Celery, room: Room) -> None:
    names = settings_of(app).account_names
    waits = {
        until: wait_of(put(app, room, until, "gone", until=until, due_at=time.time()), 0.0, accounts=names)
        for until in ("start", "slot", "job", "instant", "release")
    }
    for wait in waits.values():
        assert wait is not None
        assert wait.wakes == "settings that name account gone (again): nobody has its key meanwhile"
    ends = wait_of(put(app, room, "ends", "gone", outcome="completed"), 0.0, accounts=names)
    assert ends is not None
    assert "to return the result" in ends.wakes
    known = wait_of(put(app, room, "known", "eu"), 0.0, accounts=names)
    assert known is not None
    assert "settings" not in known.wakes


def test_a_webhook_of_any_account_is_taken(app: Celery, room: Room) -> None:
    app.conf.framelane = {
        **app.conf.framelane, "webhook_secrets": "whsec_top", "accounts": {"eu": {**EU, "webhook_secrets": "whsec_eu"}}
    }  # fmt: skip
    waiting_for(app, room, "eu")
    body = b'{"data": {"id": "render_eu_0"}}'
    for secret in ("whsec_eu", "whsec_top"):
        headers = {"Framelane-Signature": signature(body, secret, time.time())}
        assert webhooks.receive(headers, body, app=app).task_id == "eu-0"
    with pytest.raises(WebhookRefused):
        webhooks.receive({"Framelane-Signature": signature(body, "whsec_us", time.time())}, body, app=app)


class Api:
    """One workspace: jobs of its own, and what was cancelled."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs, self.cancelled = {job.id: job for job in jobs}, list[str]()

    def list_jobs(self, kind: str, **filters: Any) -> JobPage:
        return JobPage(data=[job for job in self.jobs.values() if job.kind == kind])

    def get_job(self, kind: str, job_id: str, **options: Any) -> Job:
        if job_id not in self.jobs:
            raise NotFound("no such job", 404, "not_found")
        return self.jobs[job_id]

    def cancel_job(self, kind: str, job_id: str) -> None:
        self.cancelled.append(job_id)

    def download_url(self, kind: str, job_id: str) -> str:
        return f"https://cdn.example/{self.get_job(kind, job_id).id}"


def job_of(task_id: str, job_id: str) -> Job:
    named = {"celery_task": "framelane.render", "celery_task_id": task_id}
    return Job.model_validate({"id": job_id, "kind": "render", "status": "processing", "metadata": named})


@pytest.fixture
def apis(monkeypatch: pytest.MonkeyPatch) -> dict[str, Api]:
    apis = {"fl_top": Api(job_of("a", "render_a")), "fl_eu": Api(job_of("b", "render_b")), "fl_us": Api()}

    def client(settings: FramelaneSettings) -> Any:
        assert settings.api_key is not None
        return apis[settings.api_key.get_secret_value()]

    monkeypatch.setattr("framelane_celery.client.shared_client", client)
    return apis


def test_orphans_are_searched_for_in_every_workspace(app: Celery, room: Room, apis: dict[str, Api]) -> None:
    long_ago = time.time() - 3600
    for account in ("default", "eu"):
        put(
            app, room, f"{account}-gone", account, until="job", due_at=1.0, job_id=f"render_no_{account}",
            accepted_at=long_ago,
        )  # fmt: skip
    apis["fl_us"] = apis["fl_eu"]  # two keys of one workspace
    found = orphans.find(app)
    assert [(one.id, one.account) for one in found.jobs] == [("render_a", "default"), ("render_b", "eu")]
    assert [(one.id, one.account) for one in found.gone] == [("default-gone", "default"), ("eu-gone", "eu")]
    assert orphans.read(app, "render_b").account == "eu"
    orphans.cancel(app, "render_b")
    assert (apis["fl_top"].cancelled, apis["fl_eu"].cancelled) == ([], ["render_b"])
    adopted = orphans.adopt(app, "render_b")
    assert (adopted.account, adopted.lane) == ("eu", "look:eu")
    assert orphans.route(app, "eu-gone").account == "eu"
    put(app, room, "left", "gone", until="job", job_id="render_left", accepted_at=long_ago)
    with pytest.raises(SettingsError, match="no account 'gone'"):
        orphans.route(app, "left")


def test_a_top_level_without_a_key_is_not_searched(app: Celery, room: Room, apis: dict[str, Api]) -> None:
    app.conf.framelane = {**app.conf.framelane, "api_key": None}
    assert [one.id for one in orphans.find(app).jobs] == ["render_b"]
    watcher = Leader(app, room).watcher
    searched: list[str] = []
    for account, workspace in watcher._workspaces.items():
        workspace._search.keep = lambda a=account: searched.append(a)  # type: ignore[method-assign,misc]
        workspace.search()
    assert searched == ["eu", "us"]


def test_a_link_of_a_job_whose_account_is_gone_is_an_argument_that_is_wrong(app: Celery, apis: dict[str, Api]) -> None:
    job = {"id": "render_b", "kind": "render", "status": "completed", "framelane_account": "eu"}
    assert fresh_url(app, job) == "https://cdn.example/render_b"
    app.conf.framelane = {**app.conf.framelane, "accounts": {}}
    with pytest.raises(InvalidArguments, match="render_b: no account 'eu'"):
        fresh_url(app, job)


def test_a_replacement_may_name_another_account_and_a_retry_may_not() -> None:
    running = Record(id="x", task="t", call="", digest="d", until="running", run_id="run", account="eu")
    known: dict[str, Any] = {"task": "t", "call": "", "digest": "e", "due_at": 1.0, "at_once": True}
    again = records.redo(running, run_id="run", account="us", **known)
    assert again is not None
    assert again.account == "eu"
    replacing = records.start_replacing(running, run_id="run", now=0.0, lease_s=60)
    assert replacing is not None
    for named, account in ((None, "eu"), ("us", "us")):
        other = records.redo(replacing, run_id=None, account=named, **known)
        assert other is not None
        assert other.account == account


@pytest.fixture(autouse=True)
def _warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
