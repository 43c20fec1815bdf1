"""Which account a task runs on: who says it, what it survives, and that no broker ever hears of an option of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from celery import Celery, chain, chord, group, signature
from celery.worker.request import Request

from framelane_celery import DuplicateTask, FramelaneTask, Job, RenderRequest, wakeups
from framelane_celery.errors import FramelaneError, InvalidArguments, SettingsError
from framelane_celery.records import Record, dump_state
from framelane_celery.room import Room, room_of
from framelane_celery.settings import settings_of
from framelane_celery.tasks import choice
from framelane_celery.tasks.begin import new_record
from framelane_celery.tasks.choice import account_of_source
from framelane_celery.testing import FramelaneServer

COMPOSITION: dict[str, Any] = {"elements": [{"type": "text", "text": "hello", "duration": 2}]}
JOB: dict[str, Any] = {"id": "render_1", "kind": "render", "status": "completed"}
OF_EU = {**JOB, "framelane_account": "eu"}
OF_US = {**JOB, "framelane_account": "us"}


def make_app(tmp_path: Path, **settings: Any) -> Celery:
    app = Celery(f"unit-{uuid4().hex[:6]}", set_as_current=False, broker="memory://", backend="cache+memory://")
    app.conf.task_default_queue = app.main
    app.conf.framelane = {
        "api_key": "fl_default",
        "namespace": app.main,
        "room_url": f"sqlite:///{tmp_path}/room.sqlite",
        "accounts": {"eu": {"api_key": "fl_eu"}, "us": {"api_key": "fl_us"}},
        **settings,
    }
    return app


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    app = make_app(tmp_path)

    @app.task(base=FramelaneTask, name="unit.european", framelane_account="eu", shared=False)
    def european(text: str = "") -> RenderRequest:
        return RenderRequest.model_validate(COMPOSITION)

    @app.task(name="unit.plain", shared=False)
    def plain(value: Any = None) -> Any:
        return value

    yield app
    room_of(app, settings_of(app)).close()
    app.close()


@pytest.fixture
def room(app: Celery) -> Room:
    return room_of(app, settings_of(app))


def account_in(room: Room, result: Any) -> str:
    record, _ = room.read(result.id)
    assert record is not None
    return record.account


def messages(app: Celery) -> list[Any]:
    """What was published, taken away."""
    found = []
    with app.connection_for_read() as connection:
        while (message := connection.default_channel.basic_get(app.main, no_ack=True)) is not None:
            found.append(message)
    return found


# --- who says it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "args", "options", "account"),
    [
        ("framelane.render", (COMPOSITION,), {}, "default"),
        ("framelane.render", (COMPOSITION,), {"framelane_account": "eu"}, "eu"),
        ("unit.european", (), {}, "eu"),
        ("unit.european", (), {"framelane_account": "us"}, "us"),
        ("unit.european", (), {"framelane_account": "default"}, "default"),
        ("framelane.transcribe", (OF_EU,), {}, "eu"),
        ("framelane.transcribe", (OF_EU,), {"framelane_account": "us"}, "us"),
        ("framelane.transcribe", (OF_EU,), {"framelane_account": "default"}, "default"),
        ("framelane.transcribe", (JOB,), {}, "default"),
        ("unit.european", (OF_US,), {}, "eu"),
        ("framelane.download", (OF_EU, "/tmp/x.mp4"), {}, "eu"),
    ],
)
def test_the_option_then_the_task_then_the_source(
    app: Celery, room: Room, task: str, args: Any, options: dict[str, str], account: str
) -> None:
    assert account_in(room, app.tasks[task].apply_async(args, **options)) == account
    assert account_in(room, app.tasks[task].s(*args).set(**options).apply_async()) == account
    [first, second] = messages(app)
    assert first.headers["framelane"] == second.headers["framelane"] == {"step": 0, "account": account}
    assert not [name for one in (first, second) for name in (*one.properties, *one.headers) if "_account" in name]


@pytest.mark.parametrize(
    ("args", "kwargs", "account"),
    [
        ((OF_EU,), {}, "eu"),
        ((), {"job": OF_EU}, "eu"),
        (([OF_EU, OF_EU],), {}, "eu"),
        (([OF_EU, OF_US],), {}, None),
        (([OF_EU, JOB],), {}, None),
        ((JOB, OF_EU), {}, None),
        (("text",), {}, None),
        ((COMPOSITION,), {"n": 1}, None),
        (([],), {}, None),
    ],
)
def test_of_several_jobs_the_account_that_all_have(args: Any, kwargs: Any, account: str | None) -> None:
    assert account_of_source(args, kwargs) == account


def test_an_unknown_account_is_refused_before_anything_is_written(app: Celery, room: Room) -> None:
    render, name = app.tasks["framelane.render"], "no account 'euu'.*did you mean 'eu'"
    with pytest.raises(SettingsError, match=name):
        render.apply_async((COMPOSITION,), task_id="x", framelane_account="euu")
    with pytest.raises(SettingsError, match=name):
        render.s(COMPOSITION).set(framelane_account="euu").delay()
    with pytest.raises(SettingsError, match="the accounts are default, eu, us"):
        render.apply_async((COMPOSITION,), framelane_account="zzz")
    assert list(room.scan()) == []
    assert messages(app) == []


@pytest.mark.parametrize("shape", ["chain", "nested", "group", "link", "errback", "chord"])
def test_an_unknown_account_of_a_later_step_is_refused_too(app: Celery, room: Room, shape: str) -> None:
    """Else the first job is paid for, and the second waits for an account that nobody has."""
    render, transcribe, plain = (app.tasks[name] for name in ("framelane.render", "framelane.transcribe", "unit.plain"))

    def pipeline(account: str) -> Any:
        first, later = render.s(COMPOSITION), transcribe.s().set(framelane_account=account)
        return {
            "chain": lambda: chain(first, plain.s(), later),
            "nested": lambda: chain(first, plain.s().set(link=later)),
            "group": lambda: chain(first, group(plain.s(), chain(plain.s(), later))),
            "link": lambda: first.on_error(plain.s()).set(link=later),
            "errback": lambda: first.on_error(later),
            "chord": lambda: chord([first, render.s(COMPOSITION)], chain(plain.s(), later)),
        }[shape]()

    with pytest.raises(SettingsError, match=r"no account 'euu'.*did you mean 'eu'"):
        pipeline("euu").apply_async()
    assert list(room.scan()) == []
    assert messages(app) == []
    pipeline("eu").apply_async()
    assert len(messages(app)) == (2 if shape == "chord" else 1)


def test_the_account_of_a_later_task_that_is_not_ours_is_not_asked_about(app: Celery) -> None:
    """A plain task has none; that of another service may have one that only that service's settings know."""
    render, plain = app.tasks["framelane.render"], app.tasks["unit.plain"]
    theirs = signature("other.task", app=app)
    for later in (plain.s(), theirs, group(plain.s(), theirs)):
        chain(render.s(COMPOSITION), later.set(framelane_account="euu")).apply_async()
    assert len(messages(app)) == 3


def test_the_same_id_on_another_account_is_other_work(app: Celery, room: Room) -> None:
    render = app.tasks["framelane.render"]
    render.apply_async((COMPOSITION,), task_id="x", framelane_account="eu")
    render.apply_async((COMPOSITION,), task_id="x", framelane_account="eu")
    with pytest.raises(DuplicateTask, match="on account eu"):
        render.apply_async((COMPOSITION,), task_id="x")
    assert account_in(room, app.AsyncResult("x")) == "eu"


# --- what it survives --------------------------------------------------------------------------------------------


def test_it_is_kept_in_every_shape_of_a_canvas(app: Celery, room: Room) -> None:
    def eu() -> Any:
        return app.tasks["framelane.render"].s(COMPOSITION).set(framelane_account="eu")

    chained = chain(eu(), app.tasks["framelane.transcribe"].s().set(framelane_account="us")).apply_async()
    grouped = group(eu(), eu()).apply_async()
    app.backend.ensure_chords_allowed = lambda: None
    header = chord([eu()], app.tasks["unit.plain"].s())
    linked = eu().on_error(eu())
    linked.link(app.tasks["framelane.transcribe"].s().set(framelane_account="us"))
    linked = linked.apply_async()
    assert [account_in(room, one) for one in (chained.parent, *grouped.children, linked)] == ["eu"] * 4
    assert [one.options["framelane_account"] for one in header.tasks] == ["eu"]
    [next_] = next(m for m in messages(app) if m.headers["id"] == chained.parent.id).decode()[2]["chain"]
    published = signature(json.loads(json.dumps(next_)), app=app).clone((JOB,)).apply_async()  # as another worker does
    assert account_in(room, published) == "us"
    record, _ = room.read(linked.id)
    assert record is not None
    [link], [errback] = (wakeups.Call.from_text(record.call).options[name] for name in ("link", "link_error"))
    assert (link["options"]["framelane_account"], errback["options"]["framelane_account"]) == ("us", "eu")


def test_who_does_not_know_the_task_publishes_the_choice_in_the_header(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery publishes a canvas' next task by its name then: kombu would get the option."""
    monkeypatch.setattr(choice, "current_app", app)
    sig = app.tasks["framelane.render"].s(COMPOSITION).set(framelane_account="eu")
    stranger = signature(json.loads(json.dumps({**sig, "task": "unit.unknown_here"})), app=app)
    stranger.apply_async()
    app.send_task("framelane.render", (COMPOSITION,), framelane_account="us")
    group(app.tasks["unit.plain"].s()).set(framelane_account="eu").apply_async()
    app.tasks["unit.plain"].apply_async(framelane_account="eu")
    first, second, *plain = messages(app)
    assert first.headers["framelane"] == {"step": 0, "account": "eu"}
    assert second.headers["framelane"] == {"step": 0, "account": "us"}
    assert len(plain) == 2
    assert [one.headers.get("framelane") for one in plain] == [None, None]
    for one in (first, second, *plain):
        assert "framelane_account" not in one.properties
        assert "framelane_account" not in one.headers


@pytest.mark.parametrize(
    ("task", "args", "headers", "account"),
    [
        ("framelane.render", [COMPOSITION], {"framelane": {"step": 0, "account": "eu"}}, "eu"),
        ("unit.european", [], {}, "eu"),
        ("framelane.transcribe", [OF_US], {}, "us"),
        ("framelane.transcribe", [OF_US], {"framelane": {"step": 0, "account": "default"}}, "default"),
        ("framelane.render", [COMPOSITION], {"framelane": "?"}, "default"),
    ],
)
def test_a_message_whose_record_was_never_written_says_it(
    app: Celery, task: str, args: Any, headers: dict[str, Any], account: str
) -> None:
    app.send_task(task, args, headers=headers)
    [message] = messages(app)
    request = Request(message, app=app, task=app.tasks[task])
    assert new_record(app.tasks[task], request._context, 0.0).account == account


def test_a_retry_says_it_again(app: Celery, room: Room) -> None:
    app.tasks["framelane.render"].apply_async((COMPOSITION,), framelane_account="eu")
    [message] = messages(app)
    task = app.tasks["framelane.render"]
    again = task.signature_from_request(Request(message, app=app, task=task)._context, task_id="again")
    assert account_in(room, again.apply_async()) == "eu"


def test_a_record_of_a_named_account_is_unreadable_to_who_knows_none() -> None:
    """It would submit it with the wrong key."""
    record = Record(id="x", task="t", call="", digest="")
    assert json.loads(dump_state(record))["format"] == 1
    assert json.loads(dump_state(Record(id="x", task="t", call="", digest="", account="eu")))["format"] == 2


# --- in place ----------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Celery, FramelaneServer, FramelaneServer]]:
    """An app of two workspaces, each with a key of its own."""
    with ExitStack() as opened:
        home = opened.enter_context(FramelaneServer(job_seconds=0.05, api_keys=("fl_default",)))
        eu = opened.enter_context(FramelaneServer(job_seconds=0.05, api_keys=("fl_eu",)))
        accounts = {"eu": {"api_key": "fl_eu", "base_url": eu.base_url}}
        app = opened.enter_context(make_app(tmp_path, base_url=home.base_url, accounts=accounts))
        app.conf.task_always_eager = True
        yield app, home, eu


def jobs_in(server: FramelaneServer) -> int:
    return int(server.ledger.counts()["jobs"])


def test_in_place_too(two: tuple[Celery, FramelaneServer, FramelaneServer]) -> None:
    app, home, eu = two
    render, transcribe = app.tasks["framelane.render"], app.tasks["framelane.transcribe"]
    assert "framelane_account" not in render(COMPOSITION)
    assert (jobs_in(home), jobs_in(eu)) == (1, 0)
    made = render.apply((COMPOSITION,), framelane_account="eu").get()
    assert made["framelane_account"] == "eu"
    assert render.apply_async((COMPOSITION,), framelane_account="eu").get()["framelane_account"] == "eu"
    assert (jobs_in(home), jobs_in(eu)) == (1, 2)
    assert transcribe(made)["framelane_account"] == "eu"  # with the link of its own workspace
    chained = chain(render.s(COMPOSITION).set(framelane_account="eu"), transcribe.s()).apply_async()
    assert chained.get()["framelane_account"] == "eu"
    assert (jobs_in(home), jobs_in(eu)) == (1, 5)
    with pytest.raises(SettingsError, match="no account 'us'"):
        render.apply((COMPOSITION,), framelane_account="us").get()


def port_of(url: str) -> int | None:
    return urlsplit(url).port


# --- the job says whose it is ------------------------------------------------------------------------------------


def test_a_fresh_link_is_asked_for_with_the_jobs_own_key(two: tuple[Celery, FramelaneServer, FramelaneServer]) -> None:
    app, home, eu = two
    render = app.tasks["framelane.render"]
    mine, theirs = render(COMPOSITION), render.apply((COMPOSITION,), framelane_account="eu").get()
    assert port_of(render.fresh_url(mine)) == port_of(home.base_url)
    assert port_of(render.fresh_url(theirs)) == port_of(eu.base_url)
    assert port_of(render.fresh_url(Job.model_validate(theirs))) == port_of(eu.base_url)
    with pytest.raises(FramelaneError):
        render.fresh_url({**theirs, "framelane_account": None})  # the other key's workspace does not know it
    with pytest.raises(InvalidArguments, match="no account 'gone'"):
        render.fresh_url({**theirs, "framelane_account": "gone"})


def test_a_job_of_the_default_account_looks_as_ever() -> None:
    assert "framelane_account" not in Job.model_validate(JOB).to_json()
    assert Job.model_validate(OF_EU).to_json()["framelane_account"] == "eu"
    assert Job.model_validate(OF_EU).framelane_account == "eu"
