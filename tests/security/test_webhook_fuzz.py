"""Ten thousand malformed webhooks: each is the one refusal, whatever is wrong with it, and none changes anything.

They are made of an authentic one, by mutations of its header, of what holds the header, and of its body; so nearly all
of them get far. What is let through has to be authentic by an oracle that knows nothing of how headers are read.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from django.test import RequestFactory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framelane_celery import webhooks
from framelane_celery.django import views
from framelane_celery.room import Room
from framelane_celery.webhooks import Received, WebhookRefused, receive
from tests.cli.rooms import ID
from tests.django.conftest import SECRET

NAME = "Framelane-Signature"
BODY = b'{"type": "render.completed", "data": {"id": "render_5", "status": "completed", "metadata": {"a": "\xc3\xa9"}}}'
EXAMPLES = [pytest.param(1_000, id="quick"), pytest.param(10_000, id="10000", marks=pytest.mark.slow)]

# --- what is sent ------------------------------------------------------------------------------------------------

PIECES = (
    "", ",", "=", "t=", "v1=", "v0=", ";", " ", "\t", "\r\n", "\0", "-", "+", "0", "00", "\u0661", "\uff11", "\xb2",
    "e9", "t=1", "v1=" + "0" * 64, "v1=" + "\uff10" * 64, "sha256=", "\ud800", "\u202e", "é", "%20", '"', "a" * 5000,
    "t" * 70, "9" * 400, "None", "[]", "{}", "\x7f", "v1", "t", "=,=,=", "V1=", "T=", "t=-1", "t=1e9", "t=0x10",
)  # fmt: skip
KINDS = ("drop", "put", "swap", "cut", "twice", "upper", "reverse", "part", "late", "other secret", "nothing")

Edit = tuple[str, int, str]
places = st.integers(0, 14) | st.integers(0, 90)  # in the time, or anywhere
pieces = st.sampled_from(PIECES) | st.sampled_from(PIECES) | st.text(max_size=3)
edits = st.lists(st.tuples(st.sampled_from(("put", *KINDS)), places, pieces), max_size=3)
holders = st.sampled_from(
    ["dict", "pairs", "lower", "environ", "bytes", "list of one", "several", "nested", "none", "number", "other name",
     "beside", "names of bytes", "no headers"]
)  # fmt: skip
body_edits = st.lists(st.tuples(st.sampled_from(["drop", "flip", "put", "cut"]), st.integers(0, 130)), max_size=2)


def edited(header: str, edit: Edit) -> str:
    kind, at, piece = edit
    at = min(at, len(header))
    parts = header.split(",")
    done: dict[str, Callable[[], str]] = {
        "drop": lambda: header[:at] + header[at + 1 :],
        "put": lambda: header[:at] + piece + header[at:],
        "swap": lambda: ",".join(reversed(parts)),
        "cut": lambda: header[:at],
        "twice": lambda: f"{header},{header}",
        "upper": lambda: header.upper(),
        "reverse": lambda: header[::-1],
        "part": lambda: ",".join([*parts[: at % (len(parts) + 1)], piece, *parts[at % (len(parts) + 1) :]]),
        "late": lambda: signed(BODY, SECRET, time.time() - 301 - at),
        "other secret": lambda: signed(BODY, f"{SECRET}x", time.time()),
        "nothing": lambda: header,
    }
    return done[kind]()


def signed(body: bytes, secret: str, at: float) -> str:
    return f"t={int(at)},v1={hexed(body, secret, str(int(at)))}"


def hexed(body: bytes, secret: str, at: str) -> str:
    return hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()


def changed(body: bytes, edit: tuple[str, int]) -> bytes:
    kind, at = edit[0], min(edit[1], len(body))
    if kind == "flip":
        return body[:at] + bytes(byte ^ 1 for byte in body[at : at + 1]) + body[at + 1 :]
    return {"drop": body[:at] + body[at + 1 :], "put": body[:at] + b"\xff" + body[at:], "cut": body[:at]}[kind]


def held(header: str, how: str) -> Any:
    """The header, as a framework might hand it over, or as a mistake might."""
    encoded = header.encode("utf-8", "surrogatepass")
    return {
        "dict": {NAME: header},
        "pairs": [("Host", "x"), (NAME, header)],
        "lower": {NAME.lower(): header},
        "environ": {"HTTP_FRAMELANE_SIGNATURE": header, "wsgi.input": object()},
        "bytes": [(NAME.lower().encode(), encoded)],
        "list of one": {NAME: [header]},
        "several": {NAME: [header, header]},
        "nested": {NAME: [[header]]},
        "none": {NAME: None},
        "number": {NAME: 17},
        "other name": {"X-Framelane-Signature": header, "Framelane_Signature": header, NAME + " ": header},
        "beside": [(NAME, header), (NAME.upper(), "t=1,v1=x")],
        "names of bytes": {NAME.encode(): header},
        "no headers": {},
    }[how]


def is_authentic(header: str, body: bytes) -> bool:
    """What has to be true of whatever is let through: a time, and what only the secret makes of time and body."""
    now = int(time.time())
    times = [found for found in re.findall(r"t=([0-9]+)", header) if abs(now - int(found[:12])) <= 301]
    return any(hexed(body, SECRET, at) in header for at in times)


# --- the tests ---------------------------------------------------------------------------------------------------


@pytest.fixture
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def fuzz(examples: int, send: Callable[[Any, str, bytes], str]) -> Counter[str]:
    """Send so many, and count what came of them: "refused" or "taken"."""
    seen: Counter[str] = Counter()

    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(edits, holders, body_edits)
    def run(header_edits: list[Edit], holder: str, edits_of_body: list[tuple[str, int]]) -> None:
        header, body = signed(BODY, SECRET, time.time()), BODY
        for edit in header_edits:
            header = edited(header, edit)[:20_000]
        for change in edits_of_body:
            body = changed(body, change)
        came_of_it = send(held(header, holder), header, body)
        assert came_of_it == "refused" or is_authentic(header, body), header
        seen[came_of_it] += 1

    run()
    return seen


def due_at(room: Room) -> float | None:
    record = room.read(ID + "5")[0]
    assert record is not None
    return record.due_at


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.usefixtures("quiet")
def test_receive_refuses_and_never_breaks(app: Celery, room: Room, examples: int) -> None:
    refusals: set[str] = set()

    def send(headers: Any, header: str, body: bytes) -> str:
        try:
            assert isinstance(receive(headers, body, app=app), Received)
        except WebhookRefused as refused:
            refusals.add(f"{refused!r} {refused.args}")
            return "refused"
        return "taken"

    seen = fuzz(examples, send)
    assert len(refusals) == 1
    assert seen["refused"] > examples * 0.7
    assert seen["taken"] > examples * 0.01  # the mutations begin near enough


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.usefixtures("quiet")
def test_djangos_view_answers_400(app: Celery, room: Room, examples: int) -> None:
    factory, answers = RequestFactory(), set()

    def send(headers: Any, header: str, body: bytes) -> str:
        request = factory.post("/framelane/webhook/", body, content_type="application/json")
        if isinstance(headers, dict) and isinstance(headers.get(NAME), str):
            request.META["HTTP_FRAMELANE_SIGNATURE"] = header  # as the server has read it, latin-1 or not
        answer = views.webhook(request)
        answers.add((answer.status_code, answer.content))
        return {200: "taken", 400: "refused"}[answer.status_code]

    seen = fuzz(examples, send)
    assert answers == {(200, b""), (400, b"")}
    assert seen["refused"] > examples * 0.7


@pytest.mark.usefixtures("quiet")
def test_what_is_refused_changes_nothing(app: Celery, room: Room) -> None:
    before = due_at(room)
    for _ in range(3):
        for piece in PIECES:
            with pytest.raises(WebhookRefused):
                receive({NAME: piece + signed(BODY, "whsec_other", time.time())}, BODY, app=app)
    assert due_at(room) == before
    own = BODY + b" "  # whatever was taken in this very second is a replay
    assert receive({NAME: signed(own, SECRET, time.time())}, own, app=app).is_new
    assert due_at(room) != before


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("render_5"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "job", "job_id", "data", "metadata", "a", "taskId", ""]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
TAILS = (b"", b"\xff", b"}", b" " * 9, b"\0", b'{"id":' * 2000, b"[" * 30_000, b"1" * 6000, "\ufeff".encode())


@pytest.mark.parametrize("examples", [pytest.param(500, id="quick"), pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("quiet")
def test_an_authentic_body_may_hold_anything(app: Celery, room: Room, examples: int) -> None:
    """Whoever knows the secret, or Framelane on a bad day."""

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(values, st.sampled_from(TAILS), st.sampled_from(["utf-8", "utf-16", "latin-1"]))
    def run(event: Any, tail: bytes, encoding: str) -> None:
        body = json.dumps(event).encode(encoding) + tail
        assert isinstance(receive({NAME: signed(body, SECRET, time.time())}, body, app=app), Received)

    run()


def test_the_largest_body_takes_no_longer_than_a_request_may(app: Celery, room: Room) -> None:
    """Anybody may send a megabyte; with the secret, a megabyte of JSON."""
    for filling in (b'{"id": "render_x"},', b"[", b'{"a":', b'"\\ud800",', b"1e999999,"):
        body = (b"[" + filling * (webhooks.MAX_BODY_BYTES // len(filling)))[: webhooks.MAX_BODY_BYTES]
        began = time.monotonic()
        receive({NAME: signed(body, SECRET, time.time())}, body, app=app)
        assert time.monotonic() - began < 5, filling
