"""Stores that misbehave: restarted, full, read-only, silent, failed over; and many who come first at once."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
import sqlalchemy as sa

from framelane_celery.errors import RoomError
from framelane_celery.records import Record
from framelane_celery.room import Room, SlotClaim, SpendClaim, move, open_room
from tests.room.steps import is_revoked
from tests.room.stores import POSTGRES_URL

RECORD = Record(id="task-1", task="framelane.render", call="{}", digest="d", due_at=1.0)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class PrivateRedis:
    """A server of the test's own, to restart, fill up and fail over."""

    def __init__(self, folder: Path, *options: str) -> None:
        binary = shutil.which("redis-server")
        assert binary, "these tests start a Redis of their own: install redis-server"
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        head = [binary] if not options or options[0] != "sentinel" else [binary, str(folder / "sentinel.conf")]
        self.command = [*head, "--port", str(self.port), "--dir", str(folder), *(o for o in options if o != "sentinel")]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        self.client = redis.Redis(port=self.port, protocol=2)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., PrivateRedis]]:
    servers: list[PrivateRedis] = []

    def start(*options: str) -> PrivateRedis:
        folder = tmp_path / str(len(servers))
        folder.mkdir(exist_ok=True)
        servers.append(PrivateRedis(folder, *options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def open_one() -> Iterator[Callable[..., Room]]:
    rooms: list[Room] = []

    def open_it(url: str, namespace: str = "n", **options: Any) -> Room:
        rooms.append(open_room(url, namespace, options=options))
        return rooms[-1]

    yield open_it
    for room in rooms:
        room.close()


def test_a_restarted_redis_is_found_again_and_a_token_is_never_given_twice(
    start_redis: Callable[..., PrivateRedis], open_one: Callable[..., Room]
) -> None:
    server = start_redis("--save", "")
    room = open_one(server.url)
    token = room.lead("a", 60)
    assert room.create(RECORD) is None
    server.stop()
    with pytest.raises(RoomError):
        room.read("task-1")
    server.start()  # without its data: scripts, records and the token's counter are lost
    assert room.create(RECORD) is None
    new = room.lead("b", 60)
    assert new is not None
    assert token is not None
    assert new > token


def test_a_redis_that_is_full_or_read_only_is_a_room_error(
    start_redis: Callable[..., PrivateRedis], open_one: Callable[..., Room]
) -> None:
    server = start_redis("--save", "")
    room = open_one(server.url)
    assert room.create(RECORD) is None
    server.client.config_set("maxmemory", "1")
    with pytest.raises(RoomError, match=r"(?i)memory"):
        move(room, "task-1", lambda r, now: r)
    server.client.config_set("maxmemory", "0")
    server.client.replicaof("127.0.0.1", 1)
    with pytest.raises(RoomError, match=r"(?i)read"):
        move(room, "task-1", lambda r, now: r)
    server.client.replicaof("no", "one")
    assert move(room, "task-1", lambda r, now: r) is not None


class LossyProxy:
    """Passes everything on to Redis, but loses the next answer when told: the connection breaks instead."""

    def __init__(self, port: int) -> None:
        self.server_port, self.loses_next = port, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self._serve, args=(client,), daemon=True))
            self.threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.server_port)) as server:
            while request := client.recv(1 << 16):
                server.sendall(request)
                answer = server.recv(1 << 16)
                if self.loses_next and b"EVALSHA" in request:
                    self.loses_next = False
                    return
                client.sendall(answer)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(5)


def test_a_write_whose_answer_was_lost_counts_once(
    start_redis: Callable[..., PrivateRedis], open_one: Callable[..., Room]
) -> None:
    server = start_redis("--save", "")
    proxy = LossyProxy(server.port)
    room = open_one(f"redis://127.0.0.1:{proxy.port}/0")
    assert room.create(replace(RECORD, id="other")) is None  # the script is known now
    proxy.loses_next = True
    assert room.create(RECORD) is None  # and not "is there already"
    proxy.loses_next = True
    assert room.save(RECORD, RECORD, claim=SlotClaim("render", 3, from_queue=False)) == "saved"  # and not "conflict"
    assert room.slots_free("render", 3) == 2
    assert room.read("task-1")[0] == replace(RECORD, version=1)
    proxy.loses_next = True
    assert room.save(replace(RECORD, version=1), RECORD, claim=SpendClaim("a", 1.5, 1, 2.0)) == "saved"
    assert room.spent("a") == (1, 1.5)
    room.hold("first", "operator", "r")  # this script is known now, too
    proxy.loses_next = True
    hold = room.hold("a", "operator", "r")
    assert room.holds()[0] == [hold, room.hold("first", "operator", "r")]
    proxy.loses_next = True
    assert room.release("a")  # and not "none is on"
    proxy.loses_next = True
    room.drop_hold("a")
    assert not proxy.loses_next
    assert [hold.account for hold in room.holds()[0]] == ["first"]
    room.close()
    proxy.close()


def test_a_connection_that_is_cut_between_the_halves_is_replaced(
    start_redis: Callable[..., PrivateRedis], open_one: Callable[..., Room]
) -> None:
    server = start_redis("--save", "")
    room = open_one(server.url)
    for n in range(3):
        with room.creating(replace(RECORD, id=str(n))) as there:
            server.client.client_kill_filter(_type="normal", skipme=True)
            assert there() is None
    assert sorted(record.id for record in room.scan()) == ["0", "1", "2"]


def test_a_script_that_the_server_has_forgotten_is_run_all_the_same(
    start_redis: Callable[..., PrivateRedis], open_one: Callable[..., Room]
) -> None:
    server = start_redis("--save", "")
    room = open_one(server.url)
    for n in range(3):
        assert room.create(replace(RECORD, id=str(n))) is None
        server.client.script_flush()
    assert server.client.info("stats")["total_connections_received"] == 2  # ours and the test's


def test_more_threads_than_redis_py_has_connections_for_are_no_error(
    start_redis: Callable[..., PrivateRedis], open_one: Callable[..., Room]
) -> None:
    """redis-py 8 has 100 unless it is told."""
    room = open_one(start_redis("--save", "").url)
    with ExitStack() as opened:
        asks = [opened.enter_context(room.creating(replace(RECORD, id=str(n)))) for n in range(130)]
        assert [there() for there in asks] == [None] * 130


def test_a_write_that_is_refused_is_not_sent_again(
    start_redis: Callable[..., PrivateRedis], open_one: Callable[..., Room]
) -> None:
    server = start_redis("--save", "")
    room = open_one(server.url)
    assert room.create(RECORD) is None
    server.client.set("{framelane:n}:record:x", "no hash")
    calls = server.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    with pytest.raises(RoomError, match="WRONGTYPE"):
        room.create(replace(RECORD, id="x"))
    assert server.client.info("commandstats")["cmdstat_evalsha"]["calls"] == calls + 1
    assert room.create(replace(RECORD, id="y")) is None
    assert server.client.info("stats")["total_connections_received"] == 2  # it is no reason to leave the connection


def test_a_server_that_is_away_is_a_room_error_in_either_half(
    start_redis: Callable[..., PrivateRedis], open_one: Callable[..., Room]
) -> None:
    server = start_redis("--save", "")
    room = open_one(server.url)
    assert room.create(RECORD) is None
    server.stop()
    with pytest.raises(RoomError), room.creating(replace(RECORD, id="x")):
        pass
    server.start()
    with room.creating(replace(RECORD, id="x")) as there:
        server.stop()
        with pytest.raises(RoomError):
            there()


def test_a_record_in_two_halves_takes_one_connection_and_gives_it_back(
    start_redis: Callable[..., PrivateRedis], open_one: Callable[..., Room]
) -> None:
    server = start_redis("--save", "")
    room = open_one(f"{server.url}?max_connections=1")
    for n in range(3):
        with suppress(ZeroDivisionError), room.creating(replace(RECORD, id=f"broken off {n}")):
            raise ZeroDivisionError
        with room.creating(replace(RECORD, id=str(n))) as there:
            assert there() is None
            assert room.read(str(n))[0] is not None  # it is free again once the answer is read
    assert len(server.client.client_list()) == 2  # ours and the test's


def test_a_wrong_password_is_a_room_error_that_does_not_show_it(
    start_redis: Callable[..., PrivateRedis], open_one: Callable[..., Room]
) -> None:
    server = start_redis("--save", "")
    server.client.config_set("requirepass", "right")
    room = open_one(server.url.replace("//", "//:s3cret-pw@"))
    with pytest.raises(RoomError) as caught:
        room.read("x")
    assert "s3cret-pw" not in caught.value.message
    server.client = redis.Redis(port=server.port, password="right", protocol=2)
    assert open_one(server.url.replace("//", "//:right@")).read("x")[0] is None


def test_a_room_behind_sentinel(start_redis: Callable[..., PrivateRedis], open_one: Callable[..., Room]) -> None:
    master = start_redis("--save", "")
    folder = Path(master.command[master.command.index("--dir") + 1]).parent / "1"
    folder.mkdir()
    (folder / "sentinel.conf").write_text(f"sentinel monitor main 127.0.0.1 {master.port} 1\n")
    sentinel = start_redis("sentinel", "--sentinel")
    url = f"sentinel://127.0.0.1:{free_port()};sentinel://127.0.0.1:{sentinel.port}/0"  # the first one is down
    room = open_one(url, master_name="main", global_keyprefix="app1:")
    assert room.create(RECORD) is None
    assert [r.id for r in room.due("clock", 1)[0]] == ["task-1"]
    keys = {key.decode() for key in master.client.scan_iter()}
    assert keys == {"app1:{framelane:n}:record:task-1", "app1:{framelane:n}:lane:clock", "app1:{framelane:n}:open"}


def test_a_user_who_may_only_touch_the_prefix_is_enough(
    start_redis: Callable[..., PrivateRedis], open_one: Callable[..., Room]
) -> None:
    server = start_redis("--save", "")
    server.client.acl_setuser(
        "app", enabled=True, passwords=["+pw"], keys=["app1:*"], commands=["+@all", "-@dangerous"]
    )
    room = open_one(server.url.replace("//", "//app:pw@"), global_keyprefix="app1:")
    assert room.create(RECORD) is None
    token = room.lead("a", 60)
    assert move(room, "task-1", lambda r, now: r, token=token) is not None
    assert [r.id for r in room.due("clock", 1)[0]] == [r.id for r in room.scan()] == ["task-1"]
    room.brake("render", 60)
    assert room.slots_free("render", 1) == 0
    room.add_revokes(["id:x"])
    assert (is_revoked(room, ["id:x"]), room.revokes_since(0)[0], room.waiting("clock")) == (True, ["id:x"], 1)
    room.resign("a")
    room.hold("a", "operator", "r")
    assert (room.release("a"), len(room.holds()[0]), room.spent("a")) == (True, 1, (0, 0.0))
    room.drop_hold("a")
    record = room.read("task-1")[0]
    assert record is not None
    assert room.save(record, record, claim=SpendClaim("a", 1.0, None, None)) == "saved"
    assert [r.id for r in room.scan("clock")] == ["task-1"]


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "creates", "within_s"), [
    ("redis", False, 15), ("redis", True, 15), ("postgresql", False, 15), ("postgresql", True, 15),
])  # fmt: skip
def test_a_server_that_never_answers_is_given_up(
    scheme: str, creates: bool, within_s: float, open_one: Callable[..., Room]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        room = open_one(f"{scheme}://u:s3cret-pw@127.0.0.1:{silent.getsockname()[1]}/0")
        started_at = time.monotonic()
        with pytest.raises(RoomError) as caught:
            room.create(RECORD) if creates else room.read("x")
    assert time.monotonic() - started_at < within_s
    assert "s3cret-pw" not in caught.value.message


def test_connections_that_postgresql_has_closed_are_replaced(open_one: Callable[..., Room]) -> None:
    namespace = f"test-{uuid4().hex[:12]}"
    room = open_one(f"{POSTGRES_URL}?application_name={namespace}", namespace)
    assert room.create(RECORD) is None
    engine = sa.create_engine(POSTGRES_URL, poolclass=sa.NullPool)
    with engine.begin() as connection:
        query = sa.text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = :name")
        assert connection.execute(query, {"name": namespace}).scalar_one() >= 1
    assert room.read("task-1")[0] == RECORD
    room.forget(RECORD)
    assert room.read("task-1")[0] is None


def test_many_who_come_first_at_once_make_the_tables_once(open_one: Callable[..., Room]) -> None:
    schema = f"test_{uuid4().hex[:12]}"
    engine = sa.create_engine(POSTGRES_URL, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    try:
        rooms = [open_one(f"{POSTGRES_URL}?options=-csearch_path%3D{schema}") for _ in range(6)]
        barrier, answers = threading.Barrier(6), []

        def come(room: Room) -> None:
            barrier.wait(10)
            answers.append(room.create(RECORD))

        threads = [threading.Thread(target=come, args=(room,)) for room in rooms]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(answer is None for answer in answers) == [False] * 5 + [True]
    finally:
        for room in rooms:
            room.close()
        with engine.begin() as connection:
            connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))


WRITER = """
import sys
from dataclasses import replace
from framelane_celery.records import Record
from framelane_celery.room import move, open_room, SpendClaim
room = open_room(sys.argv[1], "n")
saved = 0
for n in range(40):
    mine = Record(id=f"{sys.argv[2]}-{n}", task="t", call="{}", digest="d", due_at=1.0)
    room.create(mine)
    saved += room.save(mine, mine, claim=SpendClaim("a", 0.1, 99, 9.0)) == "saved"
    room.create(Record(id="shared", task="t", call="{}", digest="d"))
    assert move(room, "shared", lambda r, now: replace(r, resends=r.resends + 1)) is not None
    room.lead(sys.argv[2], 0.001)
    assert len(room.due("clock", 5)[0]) > 0
room.close()
print(saved)
"""


@pytest.mark.timeout(300)
def test_processes_that_share_a_sqlite_file_wait_for_each_other(tmp_path: Path, open_one: Callable[..., Room]) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    command = [sys.executable, "-W", "error", "-c", WRITER, url]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, str(n)], **pipes) for n in range(4)]
    saved = 0
    for writer in writers:
        answer, errors = writer.communicate(timeout=250)
        assert (writer.returncode, errors) == (0, "")
        saved += int(answer)
    room = open_one(url)
    shared = room.read("shared")[0]
    assert shared is not None
    assert (shared.version, shared.resends) == (160, 160)
    assert room.waiting("clock") == 160
    assert saved == 90
    assert room.spent("a") == (90, pytest.approx(9.0))
