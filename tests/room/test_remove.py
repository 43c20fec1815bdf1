"""What `Room.remove` takes, and what it leaves: to other namespaces, to other users of the store."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from framelane_celery.records import Record
from framelane_celery.room import Ends, Room
from framelane_celery.room.redis import RedisRoom
from scripts.check_servers import SERVERS
from tests.room.steps import Make, put
from tests.room.stores import RedisStore, SqlStore

URLS = {server.name: server.url for server in SERVERS}


@pytest.fixture(autouse=True)
def keeper(store: RedisStore | SqlStore) -> Iterator[None]:
    """A room that stays meanwhile, so that no table is dropped which other tests share."""
    keeper = store.open(f"test-{uuid4().hex[:12]}-keeper")
    keeper.add_counts({"resends": 1})
    yield
    keeper.close()
    store.clean(keeper.namespace)


def fill(room: Room, make_record: Make) -> None:
    """Something of each kind that a room keeps."""
    put(room, make_record("waits", due_at=1.0))
    put(room, make_record("job", until="job", job_id="render_1", job_kind="render", due_at=1.0))
    put(room, make_record("done", until="done"))
    room.hold("default", "operator", "stop")
    room.brake("render", 60)
    room.lead("w1", 10)
    room.add_revokes(["id:x"])
    room.add_ends({"hint": Ends(1, 1, 0.5)})
    room.add_counts({"resends": 2})


def test_it_takes_all_of_its_namespace_and_nothing_else(
    store: RedisStore | SqlStore, namespace: str, room: Room, make_record: Make
) -> None:
    others = [store.open(f"{namespace}{end}") for end in ("-other", ":x", "*")]
    try:
        for one in (room, *others):
            fill(one, make_record)
            assert one.open_count() == 2
        assert room.remove().entries > 5
        assert (list(room.scan()), room.open_count()) == ([], 0)
        assert room.read("done")[0] is None
        assert room.task_of("render_1") is None
        assert (room.holds()[0], room.ends(), room.counts()) == ([], {}, {})
        assert room.revokes_since(0)[0] == []
        assert room.slots_free("render", 3) == 3
        assert room.lead("w2", 10) is not None
        for other in others:
            assert {record.id for record in other.scan()} == {"waits", "job"}
            assert other.read("done")[0] is not None
            assert other.lead("w2", 10) is None
            assert other.counts() == {"resends": 2}
        assert others[2].remove().entries > 5  # a name that SCAN would take for a pattern
        assert {record.id for record in others[0].scan()} == {"waits", "job"}
    finally:
        for other in others:
            other.close()
            store.clean(other.namespace)


def test_twice_is_as_good_as_once(room: Room, make_record: Make) -> None:
    fill(room, make_record)
    room.remove()
    assert room.remove().entries == 0


def test_the_users_own_prefix_is_no_pattern(make_record: Make) -> None:
    """``global_keyprefix`` may hold whatever SCAN takes for a pattern."""
    url, namespace = URLS["Redis"].rsplit("/", 1)[0] + "/12", f"test-{uuid4().hex[:12]}"
    ours, theirs = (
        RedisRoom.from_url(url, namespace, {"global_keyprefix": prefix}) for prefix in ("a[bc]?\\*", "ab1\\x")
    )
    try:
        put(ours, make_record())
        put(theirs, make_record())
        assert ours.remove().entries == 2  # the record, and the open list
        assert ours.read("task-1")[0] is None
        assert theirs.read("task-1")[0] is not None
    finally:
        for room in (ours, theirs):
            room.remove()
            room.close()


def test_records_of_another_format_go_too(room: Room, make_record: Make) -> None:
    put(room, make_record("new", unread={"format": 99}))
    assert (list(room.scan()), room.open_count()) == ([], 1)
    assert room.remove().entries > 0
    assert room.create(Record("new", "framelane.render", "{}", "d")) is None
