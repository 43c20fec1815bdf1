"""The saved call: it keeps what a task was called with, and makes the same message of it every time."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from celery import Celery, chain, chord, group
from celery.app.task import Context
from kombu import Queue

from framelane_celery import wakeups
from framelane_celery.errors import InvalidArguments
from framelane_celery.records import Record

OPTIONS: dict[str, Any] = {
    "root_id": "root", "parent_id": "parent", "group_id": "group", "group_index": 3, "shadow": "shown",
    "time_limit": 60, "soft_time_limit": 50, "retries": 2, "reply_to": "me", "origin": "gen1@host", "priority": 4,
    "queue": "renders", "headers": {"x-mine": "kept"}, "replaced_task_nesting": 1, "argsrepr": "(hidden)",
    "kwargsrepr": "{hidden}", "serializer": "json", "compression": "gzip", "ignore_result": True,
    "stamped_headers": ["customer"], "customer": ["acme"],
}  # fmt: skip
"""celery_facts, "signature_from_request keeps / loses": all of it."""


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("unit", set_as_current=False, broker="memory://", backend="cache+memory://")
    yield app
    app.close()


def anything(*args: Any, **kwargs: Any) -> None:
    """A task's body."""


@pytest.fixture
def task(app: Celery) -> Any:
    return app.task(name="unit.task", shared=False)(anything)


@pytest.fixture
def plain(app: Celery) -> Any:
    return app.task(name="unit.plain", shared=False)(anything)


def record_of(call: wakeups.Call, **fields: Any) -> Record:
    return Record(id="the-id", task=call.task, call=call.to_text(), digest=wakeups.digest_of(call), **fields)


def sent(app: Celery, record: Record, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The message that a record makes: its headers, properties and body, as the broker gets them."""
    caught: dict[str, Any] = {}

    def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> None:
        headers = {**message.headers, **(options.pop("headers", None) or {})}  # as Celery merges them
        caught.update(headers=headers, properties=message.properties, body=message.body, options=options)

    monkeypatch.setitem(app.amqp.__dict__, "send_task_message", send_task_message)
    wakeups.publish(app, record)
    return caught


def test_every_option_makes_the_round_trip(app: Celery, task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """celery_facts, "signature_from_request keeps / loses"."""
    call = wakeups.call_of(task, ("a",), {"b": 1}, OPTIONS)
    assert wakeups.Call.from_text(call.to_text()) == call
    assert {name: call.options[name] for name in OPTIONS} == OPTIONS
    message = sent(app, record_of(call, step=5), monkeypatch)
    headers = message["headers"]
    assert headers["framelane"] == {"step": 5}
    assert (headers["id"], message["properties"]["correlation_id"]) == ("the-id", "the-id")
    assert {name: headers[name] for name in ("root_id", "parent_id", "shadow", "retries", "origin", "argsrepr")} == {
        "root_id": "root", "parent_id": "parent", "shadow": "shown", "retries": 2, "origin": "gen1@host",
        "argsrepr": "(hidden)",
    }  # fmt: skip
    assert (headers["group"], headers["group_index"], headers["timelimit"]) == ("group", 3, [60, 50])
    assert (headers["ignore_result"], headers["x-mine"], headers["expires"], headers["eta"]) == (
        True,
        "kept",
        None,
        None,
    )
    assert headers["stamps"] == {"customer": ["acme"]}
    assert message["properties"]["reply_to"] == "me"
    assert message["options"]["priority"] == 4
    assert (message["options"]["serializer"], message["options"]["compression"]) == ("json", "gzip")
    assert message["options"]["queue"].name == "renders"
    assert message["body"][:2] == (["a"], {"b": 1})


def test_what_belongs_to_one_publication_is_not_saved(task: Any) -> None:
    options = {
        "producer": object(), "connection": object(), "countdown": 5, "eta": dt.datetime.now(dt.timezone.utc),
        "expires": 9, "task_id": "x", "retry_policy": {"max_retries": 1}, "queue": Queue("renders"),
        "headers": {"framelane": {"step": 8}}, "link": None,
    }  # fmt: skip
    assert wakeups.call_of(task, (), {}, options).options == {"queue": "renders", "headers": {}}


def test_celerys_json_types_survive(task: Any) -> None:
    values = [
        dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc),
        dt.date(2026, 1, 2),
        UUID(int=5),
        Decimal("1.5"),
        b"\x00",
    ]
    call = wakeups.call_of(task, values, {"deep": {"er": values}}, {})
    assert wakeups.Call.from_text(call.to_text()).args == values
    assert wakeups.digest_of(call) == wakeups.digest_of(wakeups.Call.from_text(call.to_text()))


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j])
def test_what_is_not_json_is_refused(task: Any, value: Any) -> None:
    with pytest.raises(InvalidArguments, match="JSON"):
        wakeups.call_of(task, (value,), {}, {})


def test_the_digest_is_about_name_and_arguments_alone(task: Any, plain: Any) -> None:
    one = wakeups.call_of(task, ({"a": 1, "b": [1, 2]},), {}, {"queue": "x"})
    same = wakeups.call_of(task, ({"b": (1, 2), "a": 1},), {}, {"queue": "y", "priority": 9})
    others = [
        wakeups.call_of(task, ({"a": 1, "b": [2, 1]},), {}, {}),
        wakeups.call_of(task, (), {"a": 1, "b": [1, 2]}, {}),
        wakeups.call_of(plain, ({"a": 1, "b": [1, 2]},), {}, {}),
    ]
    assert wakeups.digest_of(one) == wakeups.digest_of(same)
    assert len({wakeups.digest_of(call) for call in (one, *others)}) == 4


# --- ids of links ------------------------------------------------------------------------------------------------


def ids_in(value: Any) -> list[str]:
    """Every task id in a saved tail, at any depth."""
    if isinstance(value, dict):
        own = [value["options"]["task_id"]] if "task_id" in value.get("options", {}) else []
        return own + [each for inner in value.values() for each in ids_in(inner)]
    return [each for inner in value for each in ids_in(inner)] if isinstance(value, (list, tuple)) else []


def test_ids_are_frozen_on_a_copy(task: Any, plain: Any) -> None:
    """design.md, rule 12: two calls of one signature do not share the ids of its links."""
    link, errback = plain.s(1), plain.s(2)
    calls = [wakeups.call_of(task, (), {}, {"link": [link], "link_error": [errback]}) for _ in range(2)]
    ids = [ids_in(call.options["link"]) + ids_in(call.options["link_error"]) for call in calls]
    assert [len(each) for each in ids] == [2, 2]
    assert not set(ids[0]) & set(ids[1])
    assert "task_id" not in link.options
    assert "task_id" not in errback.options


def test_a_tail_that_is_sent_twice_has_the_same_ids(
    app: Celery, task: Any, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """celery_facts row 6c: `link` ran twice with different ids."""
    tail = [
        plain.s(1),
        chain(plain.s(2), plain.s(3)),
        group(plain.s(4), plain.s(5)),
        chord([plain.s(6), plain.s(7)], plain.s(8)),
    ]
    call = wakeups.call_of(task, (), {}, {"link": tail})
    record = record_of(call)
    first, second = (sent(app, record, monkeypatch)["body"][2]["callbacks"] for _ in range(2))
    assert json.dumps(first, default=dict) == json.dumps(second, default=dict)
    published: list[list[str]] = []
    for _ in range(2):
        ids: list[str] = []
        note_id = lambda producer, name, message, ids=ids, **options: ids.append(message.headers["id"])  # noqa: E731
        monkeypatch.setitem(app.amqp.__dict__, "send_task_message", note_id)
        for link in wakeups.Call.from_text(record.call).options["link"]:
            app.signature(link).apply_async((0,))
        published.append(ids)
    assert published[0] == published[1]
    assert len(published[0]) >= 6


def test_an_id_that_is_there_stays(task: Any, plain: Any) -> None:
    call = wakeups.call_of(task, (), {}, {"link": plain.s(1).set(task_id="mine")})
    assert ids_in(call.options["link"]) == ["mine"]


# --- messages and records ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "step"),
    [({}, 0), ({"framelane": {"step": 4}}, 4), ({"framelane": None}, 0), ({"framelane": "junk"}, 0)],
)
def test_the_step_of_a_message(headers: dict[str, Any], step: int) -> None:
    assert wakeups.step_of(Context(headers=headers)) == step
    assert wakeups.step_of(Context(**headers)) == step


def test_a_call_that_a_message_brought(task: Any, plain: Any) -> None:
    """celery_facts row 9b (a native delay is over) and row 12 (5.5 loses ignore_result)."""
    request = Context(
        id="the-id", task=task.name, args=["a"], kwargs={"b": 1}, root_id="root", parent_id="parent", group="group",
        group_index=1, ignore_result=True, argsrepr="(hidden)", timelimit=[60, 50], retries=1, reply_to="me",
        callbacks=[dict(plain.s(1))], stamps={"customer": ["acme"]}, stamped_headers=["customer"],
        headers={"x-mine": "kept", "framelane": {"step": 0}},
        delivery_info={"exchange": "celery_delayed_27", "routing_key": "0.0.0.1.renders", "priority": 4},
    )  # fmt: skip
    options = wakeups.call_of_request(task, request).options
    assert (options["ignore_result"], options["argsrepr"], options["priority"]) == (True, "(hidden)", 4)
    assert (options["root_id"], options["group_index"], options["retries"]) == ("root", 1, 1)
    assert (options["time_limit"], options["soft_time_limit"]) == (60, 50)
    assert options["customer"] == ["acme"]
    assert options["headers"]["x-mine"] == "kept"
    assert "framelane" not in options["headers"]
    assert "exchange" not in options
    assert "celery_delayed" not in json.dumps(options)
    assert "0.0.0.1" not in json.dumps(options)
    assert len(ids_in(options["link"])) == 1


def test_the_context_of_a_waiting_task_is_whole(task: Any, plain: Any) -> None:
    """celery_facts row 13: a state without a request wipes name, arguments and worker."""
    call = wakeups.call_of(task, ("a",), {"b": 1}, {**OPTIONS, "chord": dict(plain.s()), "link_error": plain.s(1)})
    context = wakeups.context_of(record_of(call, run_node="w1@host"))
    assert (context.id, context.task, context.args, context.kwargs) == ("the-id", task.name, ["a"], {"b": 1})
    assert (context.hostname, context.root_id, context.group, context.group_index) == ("w1@host", "root", "group", 3)
    assert (context.ignore_result, context.reply_to, context.correlation_id) == (True, "me", "the-id")
    assert context.delivery_info == {"routing_key": "renders"}
    assert context.stamps == {"customer": ["acme"]}
    assert context.chord["task"] == plain.name
    assert len(context.errbacks) == 1


def test_revoke_marks_are_the_id_and_every_stamp(task: Any) -> None:
    call = wakeups.call_of(task, (), {}, {"stamped_headers": ["customer", "run"], "customer": ["a", "b"], "run": 7})
    assert sorted(wakeups.revoke_marks(record_of(call))) == [
        "id:the-id",
        "stamp:customer=a",
        "stamp:customer=b",
        "stamp:run=7",
    ]


def test_instants(app: Celery) -> None:
    at = dt.datetime(2026, 1, 2, 3, tzinfo=dt.timezone.utc)
    assert wakeups.instant_of(app, None) is None
    assert wakeups.instant_of(app, at) == at.timestamp()
    assert wakeups.instant_of(app, at.replace(tzinfo=None)) == at.timestamp()
    assert wakeups.instant_of(app, "2026-01-02T03:00:00Z") == at.timestamp()
    soon = wakeups.instant_of(app, 10)
    assert soon is not None
    assert 9 < soon - app.now().timestamp() <= 10


# --- retries and letters -----------------------------------------------------------------------------------------


def test_a_retry_is_published_to_its_queue_and_to_no_other(
    app: Celery, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"queue": "renders", "priority": 4, "headers": {"x-mine": "kept"}}
    record = record_of(wakeups.call_of(task, ("a",), {}, options), step=5, retry_queue="renders.retry")
    message = sent(app, record, monkeypatch)
    assert message["options"]["queue"].name == "renders.retry"
    assert (message["options"]["priority"], message["headers"]["x-mine"]) == (4, "kept")
    assert message["headers"]["framelane"] == {"step": 5}


def test_a_retry_leaves_the_exchange_and_key_of_its_call(
    app: Celery, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would go past its queue, to wherever the first message went."""
    options = {"exchange": "media", "routing_key": "video.long"}
    record = record_of(wakeups.call_of(task, (), {}, options), retry_queue="renders.retry")
    message = sent(app, record, monkeypatch)["options"]
    assert (message["queue"].name, message.get("exchange"), message.get("routing_key")) == ("renders.retry", None, None)


def test_a_retry_queue_is_known_even_where_the_app_makes_none(
    app: Celery, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.conf.task_create_missing_queues = False
    record = record_of(wakeups.call_of(task, (), {}, {}), retry_queue="renders.retry")
    assert sent(app, record, monkeypatch)["options"]["queue"].name == "renders.retry"


def test_a_letters_message_says_what_a_tool_may_read_and_no_more(
    app: Celery, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught: dict[str, Any] = {}

    def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> None:
        caught.update(name=name, body=message.body, headers=message.headers, options=options)

    monkeypatch.setitem(app.amqp.__dict__, "send_task_message", send_task_message)
    signed = "https://cdn.example.com/a.mp4?signature=sesame"
    call = wakeups.call_of(task, ({"text": "sesame"}, signed), {"source": signed}, {"queue": "renders"})
    letter = {"at": 9.5, "queue": "shop.dead", "route": {"code": "*"}, "keep_waiting": False, "announced": False}
    failure = {"code": "source_not_found", "message": f"{signed} is gone"}
    record = record_of(call, until="dead", step=7, due_at=9.5, letter=letter, failure=failure, request="sesame")
    wakeups.announce(app, record, "shop.dead")
    assert caught["name"] == "framelane.replay"
    assert caught["options"]["queue"].name == "shop.dead"
    args, kwargs, canvas = caught["body"]
    assert (args, kwargs) == (("the-id", 7), {"task": task.name, "code": "source_not_found", "at": 9.5})
    assert not any(canvas.values())
    assert caught["headers"]["ignore_result"] is True
    assert "sesame" not in json.dumps(caught, default=str)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, None),
        ({"group_id": "a group"}, None),
        ({"group_id": "g", "chord": {"options": {"task_id": "b"}}}, "g b"),
        ({"group_id": "g", "chord": {"options": {"task_id": "another"}}}, "g another"),
        ({"chain": [{"options": {"group_id": "g", "chord": {"options": {"task_id": "b"}}}}]}, "g b"),
    ],
)
def test_which_chord_counts_a_call(options: dict[str, Any], told: str | None) -> None:
    """Celery 5.5 gives a chord that is called again the same group and another body."""
    assert wakeups.chord_of(options) == told
