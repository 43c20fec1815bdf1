"""The admin's pages, with CSRF checks on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from celery import Celery
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from sqlalchemy.engine import Engine

from framelane_celery.django import pages
from framelane_celery.operations import room_for
from framelane_celery.room import Room
from tests.cli.rooms import ID, ODD, fill, make_letter, make_record
from tests.room.stores import RedisStore

LISTS = {"waiting": "waitingtask", "letters": "deadletter", "holds": "heldaccount"}
EVERYTHING = (
    "view_waitingtask",
    "cancel_waitingtask",
    "view_deadletter",
    "replay_deadletter",
    "discard_deadletter",
    "view_heldaccount",
    "release_heldaccount",
)

pytestmark = pytest.mark.usefixtures("database", "room")


class Operator:
    """Somebody of the staff, in a browser: has cookies, and the token of the page that was read last."""

    def __init__(self, *permissions: str) -> None:
        self.user = User.objects.create_user(f"op-{uuid4().hex[:8]}", is_staff=True)
        self.user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        assert self.user.user_permissions.count() == len(permissions)
        self.client = Client(enforce_csrf_checks=True)
        self.client.force_login(self.user)
        self.token = ""

    def get(self, path: str, status: int = 200) -> str:
        answer = self.client.get(f"/admin/framelane/{path}")
        assert answer.status_code == status, answer.content.decode()[:500]
        text = answer.content.decode()
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', text)
        self.token = found[1] if found else self.token
        return text

    def post(self, path: str, *ids: str, status: int = 302, follow: bool = True, **fields: str) -> str:
        data = {"id": ids, "csrfmiddlewaretoken": self.token, **fields}
        answer = self.client.post(f"/admin/framelane/{path}", data)
        assert answer.status_code == status, answer.content.decode()[:500]
        if status != 302 or not follow:
            return answer.content.decode()
        return unescape(self.client.get(answer.headers["Location"]).content.decode())


@pytest.fixture
def operator() -> Operator:
    return Operator(*EVERYTHING)


def ids_in(page: str) -> list[str]:
    return [unescape(found) for found in re.findall(r'name="id" value="([^"]*)"', page)]


def until(room: Room, task_id: str) -> str:
    record = room.read(task_id)[0]
    assert record is not None
    return record.until


def link(model: str, id: str) -> str:
    return f"{model}/{quote(id)}/change/"


# --- what is shown -----------------------------------------------------------------------------------------------


def test_the_index_has_the_three_lists(operator: Operator) -> None:
    page = operator.client.get("/admin/").content.decode()
    for model in LISTS.values():
        assert f'href="/admin/framelane/{model}/"' in page
        assert f"/admin/framelane/{model}/add/" not in page


def test_what_waits_by_until_task_code_and_account(operator: Operator) -> None:
    assert len(ids_in(operator.get("waitingtask/"))) == 11
    assert ids_in(operator.get("waitingtask/?until=slot")) == [ID + "3", ID + "4"]
    assert ids_in(operator.get("waitingtask/?task=framelane.transcribe")) == []
    assert ids_in(operator.get("waitingtask/?code=internal")) == [ID + "6"]
    assert ids_in(operator.get("waitingtask/?code=source_not_found&until=release")) == [ID + "9"]
    assert "None that fits." in operator.get("waitingtask/?account=other")
    page = unescape(operator.get("waitingtask/?until=job"))
    assert "the job's end, which a watcher looks for" in page
    assert "<option selected>job</option>" in page


def test_dead_letters_by_code_and_task(operator: Operator) -> None:
    assert ids_in(operator.get("deadletter/")) == [ID + "9", ID + "d", ODD, ID + "e"]
    assert ids_in(operator.get("deadletter/?code=source_not_found")) == [ID + "9", ID + "d"]
    assert ids_in(operator.get("deadletter/?task=shop.promo")) == [ODD]


def test_details(operator: Operator) -> None:
    page = unescape(operator.get(link("waitingtask", ID + "5")))
    assert all(text in page for text in ("render_5", "encoding", "40", "the job's end"))
    assert "it is the next one" in operator.get(link("waitingtask", ID + "3"))
    assert "1 before it" in operator.get(link("waitingtask", ID + "4"))
    page = unescape(operator.get(link("deadletter", ID + "d")))
    assert all(text in page for text in ("framelane.transcribe → shop.publish", "shop.all_done", "render_1"))
    assert "quota_exceeded" in operator.get(link("heldaccount", "default"))


def test_an_id_may_hold_anything(operator: Operator, room: Room) -> None:
    room.create(make_letter("x/../<b>&'\"?#%2F_"))
    assert "shop.promo" in operator.get(link("deadletter", ODD))
    page = operator.get(link("deadletter", "x/../<b>&'\"?#%2F_"))
    assert "<b>" not in page
    assert "<b>" not in operator.get("deadletter/")
    operator.post("deadletter/discard/", "x/../<b>&'\"?#%2F_", confirmed="yes")
    assert until(room, "x/../<b>&'\"?#%2F_") == "done"


def test_text_of_others_is_text(operator: Operator, room: Room) -> None:
    evil = "<script>alert(1)</script>"
    failure = {"failure": {"code": evil, "message": evil}}
    room.create(make_letter("evil", task=evil, args=(evil,), **failure))
    room.create(make_record("evil-wait", "instant", task=evil, attempt=2, **failure))
    room.hold(evil, evil, evil)
    for path in (
        *(f"{model}/" for model in LISTS.values()),
        f"deadletter/?code={evil}",
        *(link("deadletter", "evil"), link("waitingtask", "evil-wait"), link("heldaccount", evil)),
    ):
        page = operator.get(path)
        assert evil not in page, path
        assert "alert(1)" in page, path


def test_no_key_and_no_signed_url_anywhere(operator: Operator, room: Room) -> None:
    records = [record.id for record in room.scan()]
    paths = [f"{model}/" for model in LISTS.values()] + [link("waitingtask", id) for id in records]
    paths += [link("deadletter", id) for id in ids_in(operator.get("deadletter/"))] + [link("heldaccount", "default")]
    assert len(paths) > 20
    for path in paths:
        page = operator.get(path)
        assert "s3cr3t" not in page, path
        assert "fl_test_key" not in page, path


def test_arguments_are_for_who_may_replay(operator: Operator) -> None:
    assert "https://files.example/shoe.mp4?…" in operator.get(link("deadletter", ID + "d"))
    assert "out_point" in operator.get(link("deadletter", ID + "d"))
    onlooker = Operator("view_deadletter", "view_waitingtask", "discard_deadletter")
    assert "out_point" not in onlooker.get(link("deadletter", ID + "d"))
    for path in ("deadletter/", "waitingtask/", link("waitingtask", ID + "1"), link("waitingtask", ID + "d")):
        assert "out_point" not in operator.get(path)


def test_what_is_not_there(operator: Operator, room: Room) -> None:
    before = state_of(room)
    paths = [link(model, "no-such") for model in LISTS.values()]
    paths += [link("deadletter", ID + "1"), "waitingtask/add/", f"waitingtask/{ID}1/delete/", "deadletter/export/"]
    answers = {path: operator.client.get(f"/admin/framelane/{path}") for path in paths}
    assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(paths, 404)
    for answer in answers.values():
        assert "no-such" not in answer.content.decode()
    assert state_of(room) == before


def test_a_room_that_is_away_is_told(operator: Operator, app: Celery) -> None:
    app.conf.framelane = {**app.conf.framelane, "room_url": "redis://:hunter2@127.0.0.1:1/0"}
    for model in LISTS.values():
        page = operator.get(f"{model}/", status=503)
        assert "The room on Redis" in page
        assert "hunter2" not in page
    operator.get(link("deadletter", ID + "d"), status=503)
    operator.client.get("/admin/")


# --- pages -------------------------------------------------------------------------------------------------------


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements that go to the room."""
    seen: list[str] = []

    def note(conn: Any, cursor: Any, statement: str, *args: Any) -> None:
        seen.append(statement)

    sa.event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(Engine, "before_cursor_execute", note)


def test_a_page_is_read_at_once_and_the_next_one_follows(operator: Operator, room: Room) -> None:
    def reads(path: str) -> int:
        with counted() as seen:
            operator.get(path)
        return len(seen)

    few = reads("waitingtask/"), reads("deadletter/")
    for number in range(pages.PAGE_ROWS):
        room.create(make_record(f"more-{number:03}", "job", account="a", created_at=1e9 + number))
        room.create(make_letter(f"dead-{number:03}"))
    many = reads("waitingtask/"), reads("deadletter/")
    assert all(after - before <= 1 for before, after in zip(few, many, strict=True))  # not one for each row
    first, second = operator.get("waitingtask/?account=a"), operator.get("waitingtask/?p=2")
    assert len(ids_in(first)) == pages.PAGE_ROWS
    assert len(ids_in(second)) == 11
    assert 'href="?p=1"' in second
    room.create(make_record("last", "job", account="a"))
    assert 'href="?account=a&amp;p=2"' in operator.get("waitingtask/?account=a")
    for odd in ("x", "-1", "0", "9" * 30, "²"):
        assert len(ids_in(operator.get(f"waitingtask/?p={odd}"))) == pages.PAGE_ROWS
    assert ids_in(operator.get("waitingtask/?p=900")) == []


# --- what is done ------------------------------------------------------------------------------------------------


def test_a_letter_is_replayed_once(operator: Operator, room: Room) -> None:
    operator.get("deadletter/")
    page = operator.post("deadletter/replay/", ID + "d")
    new_id = re.search(rf"{ID}d is replayed as ([\w-]+)", page)
    assert new_id
    assert until(room, new_id[1]) == "slot"
    assert "was replayed before, as " + new_id[1] in operator.post("deadletter/replay/", ID + "d")
    assert f"{ID}9 goes on" in operator.post("deadletter/replay/", ID + "9")


def test_replaying_many_or_what_may_be_paid_for_is_confirmed(operator: Operator, room: Room) -> None:
    operator.get("deadletter/")
    page = operator.post("deadletter/replay/", ID + "d", ID + "e", status=200)
    assert "Each is a job that is paid for" in page
    assert ids_in(page) == [ID + "d", ID + "e"]
    page = operator.post("deadletter/replay/", ODD, status=200)
    assert "may be paid for twice" in page
    assert {until(room, id) for id in (ID + "d", ID + "e", ODD)} == {"dead"}
    operator.post("deadletter/replay/", ID + "d", ID + "e", confirmed="yes")
    assert {until(room, id) for id in (ID + "d", ID + "e")} == {"done"}


def test_discard_and_cancel_are_confirmed(operator: Operator, room: Room) -> None:
    operator.get("deadletter/")
    assert "Yes, discard" in operator.post("deadletter/discard/", ID + "d", status=200)
    assert until(room, ID + "d") == "dead"
    assert f"{ID}d is discarded" in operator.post("deadletter/discard/", ID + "d", confirmed="yes")
    assert until(room, ID + "d") == "done"
    assert "Yes, cancel" in operator.post("waitingtask/cancel/", ID + "5", status=200)
    record = room.read(ID + "5")[0]
    assert record is not None
    assert record.ending is None
    page = operator.post("waitingtask/cancel/", ID + "5", confirmed="yes")
    assert f"{ID}5 is cancelled, and its job render_5 will be" in page
    record = room.read(ID + "5")[0]
    assert record is not None
    assert record.ending == "revoked"


def test_an_account_is_released(operator: Operator, room: Room) -> None:
    operator.get("heldaccount/")
    assert "Account default is released" in operator.post("heldaccount/release/", "default")
    assert not room.holds()[0][0].is_on
    assert "Account default is not on hold" in operator.post("heldaccount/release/", "default")


def test_one_that_fails_stops_nobody_and_who_did_it_is_kept(operator: Operator, room: Room) -> None:
    operator.get("deadletter/")
    page = operator.post("deadletter/discard/", "no-such", ID + "d", confirmed="yes")
    assert "No-such is no dead letter: no such task" in page
    assert until(room, ID + "d") == "done"
    entry = LogEntry.objects.get(user=operator.user)
    assert (entry.object_id, entry.change_message) == (ID + "d", f"{ID}d is discarded")


def test_django_writes_nothing_before_the_room_is_done(operator: Operator) -> None:
    """In one SQLite file, with ATOMIC_REQUESTS, the room would wait for a transaction that waits for it."""
    operator.get("deadletter/")
    order: list[str] = []

    def of_django(execute: Any, statement: str, *rest: Any) -> Any:
        order.append(statement)
        return execute(statement, *rest)

    def of_the_room(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        order.append(statement)

    sa.event.listen(Engine, "before_cursor_execute", of_the_room)
    try:
        with connection.execute_wrapper(of_django):
            operator.post("deadletter/discard/", ID + "d", ID + "e", confirmed="yes", follow=False)
    finally:
        sa.event.remove(Engine, "before_cursor_execute", of_the_room)
    writes = [one.split()[0:3] for one in order if one.startswith(("UPDATE", "INSERT"))]
    tables = ["django" if "django_" in " ".join(words) else "room" for words in writes]
    assert tables == sorted(tables, reverse=True)
    assert (tables.count("room"), tables.count("django")) == (2, 2)


def test_nothing_selected(operator: Operator) -> None:
    operator.get("deadletter/")
    assert "Nothing was selected." in operator.post("deadletter/discard/")


def test_over_redis_too(app: Celery, operator: Operator) -> None:
    """The pages know no store: a short walk on the other one, in a namespace of its own."""
    store, namespace = RedisStore(), f"admin-{uuid4().hex[:8]}"
    app.conf.framelane = {**app.conf.framelane, "room_url": store.url, "namespace": namespace}
    room = room_for(app)
    try:
        fill(room)
        assert sorted(ids_in(operator.get("deadletter/"))) == sorted([ID + "9", ID + "d", ODD, ID + "e"])
        assert len(ids_in(operator.get("waitingtask/"))) == 11
        assert "1 before it" in operator.get(link("waitingtask", ID + "4"))
        assert "is replayed as" in operator.post("deadletter/replay/", ID + "d")
        assert "is discarded" in operator.post("deadletter/discard/", ODD, confirmed="yes")
        assert "is cancelled" in operator.post("waitingtask/cancel/", ID + "5", confirmed="yes")
        operator.get("heldaccount/")
        assert "is released" in operator.post("heldaccount/release/", "default")
        assert (until(room, ID + "d"), until(room, ODD)) == ("done", "done")
    finally:
        store.clean(namespace)
        store.close()
        room.close()


# --- by whom -----------------------------------------------------------------------------------------------------

ACTS = [
    ("deadletter/replay/", "replay_deadletter", ID + "d"),
    ("deadletter/discard/", "discard_deadletter", ID + "d"),
    ("waitingtask/cancel/", "cancel_waitingtask", ID + "5"),
    ("heldaccount/release/", "release_heldaccount", "default"),
]


def state_of(room: Room) -> Any:
    return [(record.id, record.version) for record in room.scan()], room.holds()[0]


@pytest.mark.parametrize(("path", "permission", "id"), ACTS)
def test_each_act_takes_its_own_permission(room: Room, path: str, permission: str, id: str) -> None:
    before = state_of(room)
    others = Operator(*(one for one in EVERYTHING if one != permission))
    page = others.get(path.split("/")[0] + "/")
    assert path not in page
    assert path not in others.get(link(path.split("/")[0], id))
    others.post(path, id, confirmed="yes", status=403)
    assert state_of(room) == before
    allowed = Operator(permission, f"view_{path.split('/')[0]}")
    assert path in allowed.get(path.split("/")[0] + "/")
    allowed.post(path, id, confirmed="yes")
    assert state_of(room) != before


@pytest.mark.parametrize(("path", "permission", "id"), ACTS)
def test_no_act_without_a_token_nor_by_a_link(
    room: Room, operator: Operator, path: str, permission: str, id: str
) -> None:
    before = state_of(room)
    operator.post(path, id, confirmed="yes", status=403)
    assert operator.client.get(f"/admin/framelane/{path}?id={id}&confirmed=yes").status_code == 405
    assert state_of(room) == before


@pytest.mark.parametrize("model", list(LISTS.values()))
def test_who_may_not_view_sees_nothing(model: str) -> None:
    others = Operator(*(one for one in EVERYTHING if one != f"view_{model}"))
    others.get(f"{model}/", status=403)
    others.get(link(model, ID + "d"), status=403)
    stranger = Client()
    answer = stranger.get(f"/admin/framelane/{model}/")
    assert (answer.status_code, answer.headers["Location"].split("?")[0]) == (302, "/admin/login/")


def test_who_is_not_of_the_staff_gets_to_log_in() -> None:
    operator = Operator(*EVERYTHING)
    User.objects.filter(pk=operator.user.pk).update(is_staff=False)
    for path, _, id in ACTS:
        operator.client.cookies["csrftoken"] = "a" * 32
        answer = operator.client.post(
            f"/admin/framelane/{path}", {"id": id, "confirmed": "yes", "csrfmiddlewaretoken": "a" * 32}
        )
        assert (answer.status_code, answer.headers["Location"].split("?")[0]) == (302, "/admin/login/")
