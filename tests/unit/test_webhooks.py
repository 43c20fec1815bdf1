"""Webhooks: what proves bytes, what is read of them, what is left in the room; and what the local server sends."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
import requests
import stripe
from celery import Celery
from hypothesis import given, settings
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict
from werkzeug.datastructures import Headers
from werkzeug.serving import make_server
from werkzeug.wrappers import Request

from framelane_celery import records, webhooks
from framelane_celery.errors import RoomError, SettingsError
from framelane_celery.records import Record
from framelane_celery.records.transitions import HINT_AHEAD_S
from framelane_celery.room import Place, Room, move, room_of
from framelane_celery.room.inspect import LATE_S
from framelane_celery.settings import settings_of
from framelane_celery.testing import Deliveries, FramelaneServer, Never
from framelane_celery.testing.webhooks import event_body, signature
from framelane_celery.webhooks import Received, WebhookRefused, job_ids_in, prove, receive

SECRET, OTHER = "whsec_new", "whsec_old"
NOW = 1_700_000_000.0
BODY = b'{"type": "render.completed", "data": {"id": "render_1", "status": "completed"}}'
DOCS = Path(__file__).parents[2] / "docs" / "webhooks.md"


def hexes(body: bytes, secret: str, at: str) -> str:
    return hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()


def signed(body: bytes = BODY, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    return {"Framelane-Signature": signature(body, secret, time.time() if at is None else at)}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    """An app of a process that is no worker."""
    app = Celery(f"unit-{uuid4().hex[:8]}", set_as_current=False, broker="memory://")  # marks are by namespace
    app.conf.framelane = {"webhook_secrets": [SECRET, OTHER], "room_url": f"sqlite:///{tmp_path}/room.sqlite"}
    yield app
    room_of(app, settings_of(app)).close()


@pytest.fixture(autouse=True)
def _each_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "_refusals", webhooks._Refusals())


def test_a_flood_of_forged_webhooks_does_not_flood_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(webhooks.time, "monotonic", lambda: clock[0])
    for _ in range(10_000):
        with pytest.raises(WebhookRefused):
            prove(None, b"{}", [SECRET], now=0.0)
    clock[0] += 2
    with pytest.raises(WebhookRefused):
        prove(None, b"{}", [SECRET], now=0.0)
    assert len(caplog.messages) == 2
    assert "9999 more" in caplog.messages[1]


@pytest.fixture
def room(app: Celery) -> Room:
    return room_of(app, settings_of(app))


def started(room: Room, task_id: str = "task-1") -> None:
    room.create(Record(id=task_id, task="framelane.render", call='{"args":[]}', digest="d"))
    begin = {"step": 0, "run_id": "run", "node": "node", "lease_s": 60}
    assert move(room, task_id, lambda old, now: records.begin(old, now=now, **begin))


def accepted(room: Room, task_id: str = "task-1", job_id: str = "render_1") -> Record:
    job: dict[str, Any] = {"run_id": "run", "job": {"id": job_id}, "kind": "render", "deadline_s": 600}
    record = move(room, task_id, lambda old, now: records.accept(old, now=now, **job))
    assert record is not None
    return record


def looked(room: Room, task_id: str = "task-1", in_s: float = 600) -> float:
    """The watcher has taken it over; returns when it is due again."""
    token = room.lead("watcher", 60)
    record, now = room.read(task_id)
    assert record is not None
    assert token is not None
    room.put_off("look", [Place(task_id, record.version, now + in_s)], token)
    return due_at(room, task_id)


def waiting(room: Room, task_id: str = "task-1", job_id: str = "render_1") -> float:
    started(room, task_id)
    accepted(room, task_id, job_id)
    return looked(room, task_id)


def due_at(room: Room, task_id: str = "task-1") -> float:
    record = room.read(task_id)[0]
    assert record is not None
    assert record.due_at is not None
    return record.due_at


# --- the proof ---------------------------------------------------------------------------------------------------

GOOD = f"t={NOW:.0f},v1={hexes(BODY, SECRET, f'{NOW:.0f}')}"
V1 = GOOD.partition(",")[2]
WRONG = f"v1={'0' * 64}"


def is_proven(header: str | None, body: bytes = BODY, now: float = NOW) -> bool:
    try:
        return prove(header, body, [SECRET, OTHER], now=now) == int(NOW)
    except WebhookRefused:
        return False


@pytest.mark.parametrize(
    "header",
    [
        GOOD,
        f"{V1},t={NOW:.0f}",
        f"{GOOD},{WRONG}",
        f"t={NOW:.0f},{WRONG},{V1}",
        f"{GOOD},v0=abc,v2=YWJj+/-_~=,scheme_3=",
        f"t={NOW:.0f},v1={hexes(BODY, OTHER, f'{NOW:.0f}')}",
    ],
)
def test_a_signature_with_one_of_the_secrets_proves_the_bytes(header: str) -> None:
    assert is_proven(header)
    assert not is_proven(header, BODY + b" ")


@pytest.mark.parametrize(("late_s", "proven"), [(-300, True), (300, True), (-300.5, False), (300.5, False)])
def test_the_window_is_300_s_both_ways(late_s: float, proven: bool) -> None:
    assert is_proven(GOOD, now=NOW + late_s) is proven


def _with_time(text: str) -> str:
    """A header whose time is written in another way, and signed like that."""
    return f"t={text},v1={hexes(BODY, SECRET, text)}"


MALFORMED = {
    "none": None,
    "empty": "",
    "no time": V1,
    "no signature": f"t={NOW:.0f}",
    "two times": f"{GOOD},t={NOW:.0f}",
    "the header twice, joined": f"{GOOD},{GOOD}",
    "the header twice, joined with a space": f"{GOOD}, {GOOD}",
    "signature of another time": f"t={NOW + 1:.0f},{V1}",
    "wrong signature": f"t={NOW:.0f},{WRONG}",
    "upper case": GOOD.upper(),
    "upper-case hex": f"t={NOW:.0f},v1={V1[3:].upper()}",
    "upper-case hex beside a good one": f"{GOOD},v1={V1[3:].upper()}",
    "one malformed beside a good one": f"{GOOD},v1=abc",
    "cut": GOOD[:-1],
    "longer": GOOD + "0",
    "not ASCII": GOOD[:-1] + "é",
    "not ASCII beside a good one": f"{GOOD},v1=é",
    "a scheme that is not ASCII": f"{GOOD},v2=é",
    "negative": _with_time(f"-{NOW:.0f}"),
    "plus": _with_time(f"+{NOW:.0f}"),
    "leading zero": _with_time(f"0{NOW:.0f}"),
    "underscores": _with_time("1_700_000_000"),
    "fraction": _with_time(f"{NOW:.0f}.0"),
    "exponent": _with_time("17e8"),
    "huge": _with_time("1" * 5000),
    "twelve digits": _with_time("1" * 12),
    "zero": _with_time("0"),
    "no digits": _with_time(""),
    "Arabic digits": "t=" + "".join(chr(0x660 + int(digit)) for digit in f"{NOW:.0f}") + "," + V1,
    "full-width digits": "t=" + "".join(chr(0xFF10 + int(digit)) for digit in f"{NOW:.0f}") + "," + V1,
    "superscript": _with_time("²"),
    "space in front": f" {GOOD}",
    "space behind": f"{GOOD} ",
    "newline behind": f"{GOOD}\n",
    "space after the comma": GOOD.replace(",", ", "),
    "spaces around the sign": GOOD.replace("=", " = "),
    "tab": GOOD.replace(",", ",\t"),
    "NUL": f"{GOOD}\0",
    "semicolon": GOOD.replace(",", ";"),
    "comma behind": f"{GOOD},",
    "two commas": GOOD.replace(",", ",,"),
    "no sign": "t,v1",
    "quoted": f'"{GOOD}"',
    "very long": GOOD + f",{WRONG}" * 1000,
    "JSON": json.dumps({"t": int(NOW), "v1": V1[3:]}),
}


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED)
def test_every_other_header_is_the_same_refusal(header: str | None, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(WebhookRefused) as refused:
        prove(header, BODY, [SECRET, OTHER], now=NOW)
    assert refused.value.args == WebhookRefused().args == ("not a webhook of Framelane's",)
    assert refused.value.__cause__ is refused.value.__context__ is None
    (line,) = caplog.messages
    assert line.startswith("a webhook was refused: it")
    assert V1[3:] not in line
    assert SECRET not in line


def test_a_body_that_is_too_long_is_refused_however_it_is_signed() -> None:
    longest = b" " * webhooks.MAX_BODY_BYTES
    for body, proven in ((longest, True), (longest + b" ", False)):
        assert is_proven(f"t={NOW:.0f},v1={hexes(body, SECRET, f'{NOW:.0f}')}", body) is proven


def test_every_secret_is_compared_with_every_signature_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: pairs.append((a, b)) or compare(a, b))
    assert is_proven(f"{GOOD},{WRONG}")  # the first secret and the first signature fit
    assert len(pairs) == 4
    assert {(type(a), len(a)) for pair in pairs for a in pair} == {(bytes, 64)}


secret = st.sampled_from([SECRET, OTHER, SECRET, OTHER, "whsec_forged"])
offset_s = st.one_of(st.integers(-300, 300), st.sampled_from([-300, -301, 300, 301, -10_000, 10_000_000]))


@st.composite
def headers(draw: st.DrawFn) -> tuple[str, bytes, bool]:
    """A header, its body, and whether it is written as we have it: strictly, and not from the future."""
    body = draw(st.one_of(st.just(BODY), st.text(max_size=20).map(str.encode)))
    at = int(NOW) + draw(offset_s)
    time_text = draw(st.sampled_from([f"{at}"] * 15 + [f"0{at}", f" {at}", f"+{at}", f"{at}.0", "", "x", f"{at:_}"]))
    good = [f"v1={hexes(body, draw(secret), f'{at}')}" for _ in range(draw(st.sampled_from([0, 1, 1, 2])))]
    odd = st.sampled_from([*[WRONG, "v0=abc"] * 6, "v1=", "v1=abc", "v2=é", "t=1", "x", " v1=a", "v1=é", "v1=A=B"])
    rest = draw(st.lists(odd, max_size=2))
    parts = draw(st.permutations([f"t={time_text}", *good, *rest]))
    header = draw(st.sampled_from([","] * 9 + [", "])).join(parts)
    strict = re.fullmatch(r"(?:(?:t=[1-9][0-9]*|v1=[0-9a-f]{64}|v0=abc)(?:,(?!\Z)|\Z))+", header) is not None
    return header, body, strict and header.count("t=") == 1 and at <= NOW + 300


@settings(max_examples=300, database=None)
@given(headers())
def test_stripes_verifier_agrees(given_: tuple[str, bytes, bool]) -> None:
    """But that it takes any future, and falls over what is not ASCII: both refused here (celery_facts.md)."""
    header, body, is_strict = given_
    oracle = any(_stripe_takes(header, body, one) for one in (SECRET, OTHER))
    try:
        prove(header, body, [SECRET, OTHER], now=NOW)
        ours = True
    except WebhookRefused:
        ours = False
    assert ours is (oracle and is_strict)


def _stripe_takes(header: str, body: bytes, secret: str) -> bool:
    clock = time.time
    time.time = lambda: NOW  # what its module reads; freezegun takes a second to look for them all
    try:
        return bool(stripe.WebhookSignature.verify_header(body, header, secret, 300))
    except (stripe.SignatureVerificationError, TypeError):
        return False
    finally:
        time.time = clock


# --- headers and bodies of any framework -------------------------------------------------------------------------


def as_django(headers: dict[str, str]) -> Any:
    from django.http.request import HttpHeaders

    return HttpHeaders({f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()})


FORMS: dict[str, Callable[[dict[str, str]], Any]] = {
    "dict": dict,
    "lower": lambda headers: {name.lower(): value for name, value in headers.items()},
    "upper": lambda headers: {name.upper(): value for name, value in headers.items()},
    "bytes": lambda headers: {name.encode(): value.encode() for name, value in headers.items()},
    "requests": CaseInsensitiveDict,
    "Django": as_django,
    "werkzeug, Flask": Headers,
    "WSGI": lambda headers: {"HTTP_FRAMELANE_SIGNATURE": headers["Framelane-Signature"], "wsgi.input": io.BytesIO()},
    "ASGI": lambda headers: [(b"host", b"x"), (b"framelane-signature", headers["Framelane-Signature"].encode())],
    "values in lists": lambda headers: {name: [value] for name, value in headers.items()},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_headers_of_any_framework(app: Celery, form: Callable[[dict[str, str]], Any]) -> None:
    django = pytest.importorskip("django.conf")
    if not django.settings.configured:
        django.settings.configure(USE_TZ=True, ALLOWED_HOSTS=["*"])
    assert receive(form({"Host": "x", **signed()}), BODY, app=app).job_id == "render_1"
    with pytest.raises(WebhookRefused):
        receive(form({"Host": "x", **signed(secret="whsec_forged")}), BODY, app=app)


@pytest.mark.parametrize(
    "twice",
    [
        lambda value: Headers([("Framelane-Signature", value), ("framelane-signature", value)]),
        lambda value: [(b"framelane-signature", value.encode())] * 2,
        lambda value: {"Framelane-Signature": value, "framelane-signature": value},
        lambda value: {"Framelane-Signature": [value, value]},
        lambda value: {"Framelane-Signature": []},
        lambda value: {"HTTP_FRAMELANE_SIGNATURE": f"{value},{value}"},
        lambda value: {"Framelane-Signature": None},
        lambda value: {},
        lambda value: {"X-Framelane-Signature": value, "Stripe-Signature": value},
        lambda value: {"Framelane-Signature": b"\xff" + value.encode()},
    ],
)
def test_a_header_that_is_missing_or_repeated_is_refused(app: Celery, twice: Callable[[str], Any]) -> None:
    with pytest.raises(WebhookRefused, match="not a webhook of Framelane's"):
        receive(twice(signed()["Framelane-Signature"]), BODY, app=app)


@pytest.mark.parametrize("body", ["text", None, {"id": "render_1"}, bytearray(b"{}")])
def test_a_body_that_is_not_bytes_is_the_callers_mistake(app: Celery, body: Any) -> None:
    with pytest.raises(TypeError, match="body must be the bytes as they were received, not "):
        receive(signed(), body, app=app)


def test_without_a_secret_it_says_what_to_set(app: Celery) -> None:
    app.conf.framelane = {**app.conf.framelane, "webhook_secrets": []}
    with pytest.raises(SettingsError, match=r"set framelane\['webhook_secrets'\] or FRAMELANE_WEBHOOK_SECRET"):
        receive({}, BODY, app=app)


def test_the_secret_may_come_from_the_environment(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMELANE_WEBHOOK_SECRET", "whsec_a, whsec_b")
    app.conf.framelane = {"room_url": app.conf.framelane["room_url"]}
    assert receive(signed(secret="whsec_b"), BODY, app=app).job_id == "render_1"


# --- what is read of the body ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "ids"),
    [
        ({"id": "render_1"}, ["render_1"]),
        ({"event": "x", "job_id": "render_1"}, ["render_1"]),
        ({"type": "x", "render_id": "render_1"}, ["render_1"]),
        ({"type": "x", "task_id": "task_1"}, ["task_1"]),
        ({"type": "x", "jobId": "render_1"}, ["render_1"]),
        ({"job": "render_1"}, ["render_1"]),
        ({"id": "evt_1", "data": {"id": "render_1"}}, ["render_1", "evt_1"]),
        ({"id": "evt_1", "data": {"job": {"id": "render_1"}}}, ["render_1", "evt_1"]),
        ({"id": "evt_1", "data": {"object": {"id": "render_1"}}}, ["render_1", "evt_1"]),
        ({"id": "evt_1", "delivery_id": "dlv_1", "render": {"id": "render_1"}}, ["render_1", "evt_1", "dlv_1"]),
        ({"id": "render_1", "workspace_id": "ws_1", "metadata": {"id": "no"}}, ["render_1", "ws_1"]),
        ({"resource_id": "render_1", "workspace_id": "ws_1"}, ["render_1", "ws_1"]),
        (
            {"events": [{"job_id": "render_1"}, {"job_id": "render_2"}, {"job_id": "render_1"}]},
            ["render_1", "render_2"],
        ),
        ([{"id": "render_1"}], ["render_1"]),
        ({"job_ids": ["render_1"], "output": {"url": "https://x"}}, []),
        ({"id": 7, "job_id": None, "data": {"id": ["render_1"]}}, ["render_1"]),
        ({"id": "a b", "job_id": "", "task_id": "x" * 201, "render_id": "é", "data": {"id": "\0"}}, []),
        ("render_1", []),
        (None, []),
    ],
)
def test_where_a_jobs_id_may_be(event: Any, ids: list[str]) -> None:
    assert job_ids_in(json.dumps(event).encode()) == ids


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\x00",
        b"not JSON",
        b'{"id": ',
        b"[" * 500_000,
        b'{"id":' * 100_000,
        b'{"id": "\\ud800"}',
        b'{"n": ' + b"9" * 100_000 + b"}",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_a_body_that_is_no_json_or_no_sane_json_names_no_job(app: Celery, body: bytes) -> None:
    assert receive(signed(body), body, app=app) == Received(None, None, is_known=False, is_new=False)


def test_a_number_that_is_too_long_for_python_hides_no_job() -> None:
    assert job_ids_in(b'{"n": ' + b"9" * 5000 + b', "id": "render_1"}') == ["render_1"]


def test_what_is_looked_up_of_one_body_is_bounded() -> None:
    started_at = time.process_time()
    for events, found in ((900, 16), (35_000, 0)):
        many = json.dumps({"events": [{"job_id": f"render_{n}"} for n in range(events)]}).encode()
        assert len(many) < webhooks.MAX_BODY_BYTES
        assert len(job_ids_in(many)) == found
    deep: Any = {"id": "render_1"}
    for _ in range(50):
        deep = {"data": deep}
    assert job_ids_in(json.dumps(deep).encode()) == []
    assert time.process_time() - started_at < 2


# --- the hint ----------------------------------------------------------------------------------------------------


def test_a_hint_is_due_at_once_and_ahead_of_other_looks(app: Celery, room: Room) -> None:
    waiting(room, "task-1", "render_1")
    started(room, "task-2")
    accepted(room, "task-2", "render_2")  # its first look is due, and waits for the budget
    assert receive(signed(), BODY, app=app) == Received("render_1", "task-1", is_known=True, is_new=True)
    page, now = room.due("look", 10)
    assert [record.id for record in page] == ["task-1", "task-2"]
    assert page[0].due_at == pytest.approx(now - HINT_AHEAD_S, abs=5)
    assert page[0].until == "job"  # never a state from the body
    assert page[0].job == {"id": "render_1"}


def test_no_flood_of_hints_starves_a_look_that_is_late(app: Celery, room: Room) -> None:
    waiting(room, "task-1", "render_1")
    waiting(room, "late", "render_2")
    looked(room, "late", -HINT_AHEAD_S - 9)
    receive(signed(), BODY, app=app)
    assert [record.id for record in room.due("look", 10)[0]] == ["late", "task-1"]
    assert HINT_AHEAD_S < LATE_S  # nor does a hint look like a job that nobody looks at


def test_a_hint_is_seen_by_who_looks_meanwhile(app: Celery, room: Room) -> None:
    """It is a new version, so what the watcher writes about the old one does not take its place in the lane."""
    started(room)
    before = accepted(room)
    receive(signed(), BODY, app=app)
    after = room.read("task-1")[0]
    assert after is not None
    assert (after.version, after.step) == (before.version + 1, before.step)
    again = BODY + b" "
    receive(signed(again), again, app=app)  # hinted already: it is written all the same, and goes no further ahead
    last = room.read("task-1")[0]
    assert last is not None
    assert (last.version, last.due_at) == (after.version + 1, after.due_at)


def test_what_is_put_off_meanwhile_does_not_put_off_the_hint(room: Room, app: Celery) -> None:
    started(room)
    before, token = accepted(room), room.lead("watcher", 60)
    assert token is not None
    receive(signed(), BODY, app=app)
    room.put_off("look", [Place("task-1", before.version, time.time() + 600)], token)  # as it was before the hint
    page, now = room.due("look", 10)
    assert [record.id for record in page] == ["task-1"]
    assert page[0].hinted_at == pytest.approx(now, abs=5)


def test_an_event_before_its_record_waits_for_the_job_costs_nothing_and_is_made_good(app: Celery, room: Room) -> None:
    started(room)
    before = room.read("task-1")[0]
    assert receive(signed(), BODY, app=app) == Received("render_1", None, is_known=False, is_new=False)
    assert room.read("task-1")[0] == before  # nothing is written anywhere
    assert room.due("look", 10)[0] == []
    accepted(room)
    page, now = room.due("look", 10)
    assert [record.id for record in page] == ["task-1"]
    assert page[0].due_at is not None
    assert page[0].due_at <= now
    looked(room)  # and the same event, sent again, is a hint now
    assert receive(signed(), BODY, app=app).is_new


def test_a_replay_leaves_no_second_hint_and_a_later_delivery_does(app: Celery, room: Room) -> None:
    waiting(room)
    at = time.time() - 1
    assert receive(signed(at=at), BODY, app=app).is_new
    later = looked(room)
    more = {"Framelane-Signature": signed(at=at)["Framelane-Signature"] + ",v2=x"}  # it proves the same bytes
    for headers in (signed(at=at), more):
        assert receive(headers, BODY, app=app) == Received("render_1", "task-1", is_known=True, is_new=False)
    assert due_at(room) == later
    assert receive(signed(at=at + 1), BODY, app=app).is_new  # a body may name the job and nothing else
    assert due_at(room) < later


def test_marks_are_kept_for_a_while() -> None:
    seen = webhooks._Seen(10)
    for n in range(100):
        seen.add("n", b"%d" % n)
        assert all(seen.has("n", b"%d" % last) for last in range(max(0, n - 9), n + 1))
    assert not seen.has("n", b"50")
    assert not seen.has("other", b"99")


@pytest.mark.parametrize("body", [BODY.replace(b"render_1", b"render_9"), b'{"type": "asset.ready", "id": "asset_1"}'])
def test_a_job_that_nobody_waits_for_is_nothing_wrong(app: Celery, room: Room, body: bytes) -> None:
    later = waiting(room)
    received = receive(signed(body), body, app=app)
    assert (received.task_id, received.is_known, received.is_new) == (None, False, False)
    assert due_at(room) == later


def test_several_jobs_in_one_body(app: Celery, room: Room) -> None:
    later = [waiting(room, f"task-{n}", f"render_{n}") for n in (1, 2)]
    body = json.dumps({"data": [{"id": "render_0"}, {"id": "render_1"}, {"id": "render_2"}]}).encode()
    assert receive(signed(body), body, app=app) == Received("render_1", "task-1", is_known=True, is_new=True)
    assert all(due_at(room, f"task-{n}") < before for n, before in zip((1, 2), later, strict=True))


@pytest.mark.parametrize("forge", [{"secret": "whsec_forged"}, {"at": 1.0}, {"ahead_s": 1000.0}])
def test_what_is_forged_or_stale_changes_nothing(app: Celery, room: Room, forge: dict[str, Any]) -> None:
    later = waiting(room)
    if "ahead_s" in forge:  # not told by the parameters: those are made long before, when the tests are collected
        forge = {"at": time.time() + forge["ahead_s"]}
    with pytest.raises(WebhookRefused):
        receive(signed(**forge), BODY, app=app)
    with pytest.raises(WebhookRefused):
        receive(signed(), BODY.replace(b"completed", b"failed"), app=app)
    assert due_at(room) == later


def test_a_room_that_is_away_is_the_servers_trouble(app: Celery) -> None:
    """The caller answers 5xx, and Framelane sends it again."""
    app.conf.framelane = {"webhook_secrets": SECRET, "room_url": "redis://127.0.0.1:1/0"}
    with pytest.raises(RoomError):
        receive(signed(), BODY, app=app)
    with pytest.raises(WebhookRefused):  # what is forged does not reach it
        receive(signed(secret="whsec_forged"), BODY, app=app)


def test_a_record_of_another_version_is_left_alone(
    app: Celery, room: Room, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import sqlite3

    waiting(room)
    with sqlite3.connect(tmp_path / "room.sqlite") as connection:
        connection.execute("UPDATE framelane_records SET state = ?", ('{"format": 99}',))
    connection.close()
    with caplog.at_level(logging.WARNING):
        assert receive(signed(), BODY, app=app) == Received("render_1", "task-1", is_known=True, is_new=False)
    assert "no hint" in caplog.text


# --- the local server's own --------------------------------------------------------------------------------------


class Receiver:
    """An endpoint that takes what comes; `answers` are its first statuses, then it says 200."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}/hooks?a=b"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def _answer(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        status = self.answers.pop(0) if self.answers else 200
        self.requests.append((request.full_path, dict(request.headers), request.get_data()))
        start_response(f"{status} Any", [("Content-Length", "0")])
        return [b""]

    def wait(self, count: int) -> list[tuple[str, dict[str, str], bytes]]:
        end = time.monotonic() + 30
        while len(self.requests) < count and time.monotonic() < end:
            time.sleep(0.005)
        return list(self.requests)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def submit(server: FramelaneServer, **fields: Any) -> str:
    body = {"elements": [{"type": "text", "text": "hello", "duration": 2}], "metadata": {"a": "b"}, **fields}
    headers = {"Authorization": f"Bearer {server.api_key}"}
    answer = requests.post(f"{server.base_url}/v1/renders", json=body, headers=headers, timeout=30)
    return str(answer.json()["id"])


def delivered(server: FramelaneServer, count: int) -> list[Any]:
    end = time.monotonic() + 30
    while len(server.delivered) < count and time.monotonic() < end:
        time.sleep(0.005)
    return server.delivered


SHAPES = ["data", "data.job", "data.object", "job", "flat", "ids"]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_the_local_servers_events_is_understood(
    app: Celery, room: Room, receiver: Receiver, shape: Any
) -> None:
    with FramelaneServer(
        webhook_url=receiver.url, webhook_secret=SECRET, deliveries=Deliveries(shape=shape), job_seconds=0.01
    ) as server:
        job_id = submit(server)
        ((path, headers, body),) = receiver.wait(1)
    assert path == "/hooks?a=b"
    waiting(room, "task-1", job_id)
    assert receive(headers, body, app=app) == Received(job_id, "task-1", is_known=True, is_new=True)
    assert "render.completed" in json.loads(body).values()


def test_failed_and_cancelled_jobs_are_told_too_and_a_jobs_own_url_comes_first(
    receiver: Receiver,
) -> None:
    with FramelaneServer(
        webhook_url=f"{receiver.url}&of=workspace", outcome=lambda _: Never(), virtual_time=True
    ) as server:
        jobs = [submit(server), submit(server, webhook_url=f"{receiver.url}&of=job"), submit(server)]
        server.fail(jobs[0], "internal")
        receiver.wait(1)
        server.cancel(jobs[1])
        receiver.wait(2)
        server.finish(jobs[2])
        receiver.wait(3)
        told = [(one.event, one.job_id, one.url.rpartition("=")[2], one.status) for one in delivered(server, 3)]
    assert told == [
        ("render.failed", jobs[0], "workspace", 200),
        ("render.cancelled", jobs[1], "job", 200),
        ("render.completed", jobs[2], "workspace", 200),
    ]
    bodies = [json.loads(body) for _, _, body in receiver.requests]
    assert bodies[0]["data"]["error"]["code"] == "internal"
    assert bodies[1]["data"]["metadata"] == {"a": "b"}


def test_by_a_virtual_clock_events_come_when_it_has_moved(receiver: Receiver) -> None:
    with FramelaneServer(webhook_url=receiver.url, virtual_time=True, job_seconds=50) as server:
        first, second = submit(server), submit(server)
        server.clock.advance(49)
        server.finish(second)
        receiver.wait(1)
        server.clock.advance(60)
        receiver.wait(2)
        time.sleep(0.05)  # the end that the second would have had tells nothing more
    assert [json.loads(body)["data"]["id"] for _, _, body in receiver.requests] == [second, first]


def test_an_event_that_is_not_taken_is_sent_again_signed_anew(receiver: Receiver) -> None:
    receiver.answers = [500, 302, 404]
    deliveries = Deliveries(retry_after_s=(0.01, 0.01, 0.01, 0.01))
    with FramelaneServer(webhook_url=receiver.url, job_seconds=0, deliveries=deliveries) as server:
        submit(server)
        sent = delivered(server, 4)
    assert [(one.number, one.status) for one in sent] == [(1, 500), (2, 302), (3, 404), (4, 200)]
    assert len({body for _, _, body in receiver.requests}) == 1


def test_nobody_there_is_no_answer_and_is_given_up(receiver: Receiver) -> None:
    receiver.close()
    with FramelaneServer(
        webhook_url=receiver.url, job_seconds=0, deliveries=Deliveries(retry_after_s=(0.01,))
    ) as server:
        submit(server)
        assert [(one.number, one.status) for one in delivered(server, 2)] == [(1, None), (2, None)]
        time.sleep(0.05)
        assert len(server.delivered) == 2


def test_events_may_be_lost_doubled_forged_and_late(app: Celery, receiver: Receiver) -> None:
    def sent(count: int, jobs: int = 1, **options: Any) -> list[tuple[str, dict[str, str], bytes]]:
        receiver.requests.clear()
        with FramelaneServer(
            webhook_url=receiver.url, webhook_secret=SECRET, job_seconds=0, deliveries=Deliveries(**options)
        ) as server:
            for _ in range(jobs):
                submit(server)
            return receiver.wait(count) if count else (time.sleep(0.2), list(receiver.requests))[1]

    assert sent(0, lose=1.0) == []
    assert len({body for _, _, body in sent(3, copies=3)}) == 1
    proven = 0
    for _, headers, body in sent(4, copies=2, forged=1):
        try:
            proven += receive(headers, body, app=app).job_id is not None
        except WebhookRefused:
            proven += 0
    assert proven == 2
    started_at = time.monotonic()
    assert len(sent(1, delay_s=0.3)) == 1
    assert time.monotonic() - started_at > 0.3
    order = [json.loads(body)["data"]["id"] for _, _, body in sent(12, jobs=12, spread_s=0.4, delay_s=0.2)]
    assert order != sorted(order)  # ids are made in their order, but for those of one millisecond


def test_a_server_without_webhooks_starts_no_thread_for_them() -> None:
    before = {thread.name for thread in threading.enumerate()}
    with FramelaneServer(job_seconds=0) as server:
        submit(server)
        assert "framelane-events" not in {thread.name for thread in threading.enumerate()} - before
        assert server.delivered == []


# --- the docs ----------------------------------------------------------------------------------------------------


def snippet(word: str) -> str:
    """The one Python snippet of the page that has this word."""
    (text,) = [text for text in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL) if word in text]
    return str(text)


def test_the_wsgi_receiver_of_the_docs(app: Celery, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = ModuleType("shop.celery")
    shop.app = app  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "shop", ModuleType("shop"))
    monkeypatch.setitem(__import__("sys").modules, "shop.celery", shop)
    names: dict[str, Any] = {}
    exec(snippet("environ"), names)
    later = waiting(room)

    def call(headers: dict[str, str], body: bytes = BODY) -> str:
        told: list[str] = []
        environ = {
            "HTTP_FRAMELANE_SIGNATURE": headers["Framelane-Signature"],
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        }
        assert names["framelane_webhook"](environ, lambda status, headers: told.append(status)) == [b""]
        return told[0]

    long = b" " * (webhooks.MAX_BODY_BYTES + 2)
    assert call(signed(secret="whsec_forged")).startswith("400")
    assert call(signed(long), long).startswith("400")
    assert due_at(room) == later
    assert call(signed()).startswith("200")
    assert due_at(room) < later


def test_the_django_view_of_the_docs(app: Celery, room: Room) -> None:
    conf = pytest.importorskip("django.conf")
    if not conf.settings.configured:
        conf.settings.configure(USE_TZ=True, ALLOWED_HOSTS=["*"])
    from celery import _state
    from django.test import RequestFactory

    names: dict[str, Any] = {}
    exec(snippet("csrf_exempt"), names)
    view, later, factory = names["framelane_webhook"], waiting(room), RequestFactory(enforce_csrf_checks=True)
    before = _state._tls.current_app
    app.set_current()
    try:

        def call(headers: dict[str, str]) -> int:
            request = factory.post("/hooks", BODY, content_type="application/json", headers=headers)
            return int(view(request).status_code)

        assert view(factory.get("/hooks")).status_code == 405
        assert call(signed(secret="whsec_forged")) == call({}) == 400
        assert due_at(room) == later
        assert call(signed()) == 200
        assert due_at(room) < later
    finally:
        _state._set_current_app(before)


@pytest.mark.parametrize("framework", ["Django", "Flask, werkzeug", "ASGI, without a framework"])
def test_the_arguments_that_the_docs_name(app: Celery, framework: str) -> None:
    (arguments,) = re.findall(rf"\| {framework} \| `(.*?)` \|", DOCS.read_text())
    value = signed()["Framelane-Signature"]
    environ = {
        "REQUEST_METHOD": "POST",
        "HTTP_FRAMELANE_SIGNATURE": value,
        "CONTENT_LENGTH": str(len(BODY)),
        "wsgi.input": io.BytesIO(BODY),
    }
    names: dict[str, Any] = {"scope": {"headers": [(b"framelane-signature", value.encode())]}, "body": BODY}
    if framework == "Django":
        conf = pytest.importorskip("django.conf")
        if not conf.settings.configured:
            conf.settings.configure(USE_TZ=True, ALLOWED_HOSTS=["*"])
        from django.core.handlers.wsgi import WSGIRequest

        names["request"] = WSGIRequest(environ)
    else:
        names["request"] = Request(environ)  # Flask's is made of it
    headers, body = eval(arguments, names)
    assert receive(headers, body, app=app).job_id == "render_1"


def test_the_local_server_of_the_docs(receiver: Receiver) -> None:
    text = snippet("FramelaneServer").replace("    ...", "    server.job_seconds = 0; submit(server); receiver.wait(2)")
    exec(text, {"url": receiver.url, "submit": submit, "receiver": receiver})
    assert len(receiver.requests) == 2


def test_the_events_are_what_deliveries_says() -> None:
    job = {"id": "render_1", "kind": "render", "status": "completed", "metadata": {}, "output": None, "error": None}
    for shape in SHAPES:
        body = json.loads(event_body(shape, "render.completed", job))  # type: ignore[arg-type]
        assert job_ids_in(json.dumps(body).encode())[0] == "render_1", shape
    assert replace(Deliveries(), lose=0.5) == Deliveries(lose=0.5)
