"""`orphans`, against a server and a room on Redis and on SQLite."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
import redis
from celery import Celery

from framelane_celery import FramelaneClient, FramelaneTask, RenderRequest
from framelane_celery.models import Job, TranscribeRequest
from framelane_celery.operations import room_for
from framelane_celery.records import Record
from framelane_celery.room import Room
from framelane_celery.tasks.jobs import job_metadata
from framelane_celery.testing import FramelaneServer, Never, Switches
from scripts.check_servers import SERVERS
from tests.cli.conftest import Shell
from tests.cli.rooms import COMPOSITION, SOURCE, make_app, make_record

REDIS = next(server.url for server in SERVERS if server.name == "Redis").rsplit("/", 1)[0] + "/12"
DAY_S = 24 * 3600.0


class Bound(FramelaneTask):
    abstract = True

    def completed(self, job: Job, product_id: int) -> Any:
        return [job.id, product_id]


class Scene(NamedTuple):
    server: FramelaneServer
    app: Celery
    shell: Shell
    room: Room

    def submit(self, task_id: str, task: str = "framelane.render") -> str:
        """A job of a task, two minutes old."""
        with FramelaneClient("fl_test_key", self.server.base_url) as client:
            metadata, key = job_metadata(task, task_id), str(uuid4())
            if task == "framelane.transcribe":
                request: Any = TranscribeRequest(source_url=SOURCE)
            else:
                request = RenderRequest.model_validate(COMPOSITION)
            return client.submit(request.path, request.body(metadata), key).job.id

    def wait_for(self, task_id: str, job_id: str, **fields: Any) -> Record:
        waits = {"job_id": job_id, "job_kind": "render", "accepted_at": time.time() - 120, "due_at": time.time()}
        record = make_record(task_id, "job", **{**waits, **fields})
        assert self.room.create(record) is None
        return record

    def read(self, task_id: str) -> Record | None:
        return self.room.read(task_id)[0]

    def status(self, job_id: str) -> str:
        return str(self.server.jobs[job_id]["status"])

    def deletes(self) -> int:
        return sum(entry.method == "DELETE" for entry in self.server.ledger)


@pytest.fixture
def options() -> dict[str, Any]:
    """The server's, beside its own."""
    return {}


@pytest.fixture(params=["redis", "sqlite"])
def scene(request: pytest.FixtureRequest, tmp_path: Path, options: dict[str, Any]) -> Iterator[Scene]:
    namespace = f"test-{uuid4().hex[:10]}"
    own = {"room_url": REDIS} if request.param == "redis" else {}
    with (
        FramelaneServer(start_at=time.time() - 120, outcome=lambda job: Never(), **options) as server,
        make_app(tmp_path, base_url=server.base_url, namespace=namespace, **own) as app,
    ):

        @app.task(base=Bound, name="shop.promo", shared=False)
        def promo(product_id: int) -> RenderRequest:
            return RenderRequest.model_validate(COMPOSITION)

        yield Scene(server, app, Shell(app), room_for(app))
        room_for(app).close()
    if request.param == "redis":
        with redis.Redis.from_url(REDIS) as client:
            for key in client.scan_iter(f"{{framelane:{namespace}}}:*", count=1000):
                client.delete(key)


def test_list_says_why_each_is_one_and_what_can_be_done(scene: Scene) -> None:
    render, text, promo = (
        scene.submit("t1"),
        scene.submit("t2", "framelane.transcribe"),
        scene.submit("t3", "shop.promo"),
    )
    ended, live, awaited = scene.submit("t4"), scene.submit("t5"), scene.submit("t6")
    scene.submit("x", "other.promo")
    scene.server.finish(ended)
    scene.room.create(make_record("t5", "done", outcome="timed_out", job_id=live, due_at=None, call=""))
    scene.wait_for("t6", awaited)
    scene.wait_for("t7", "render_gone")
    rows = {row["id"]: row for row in scene.shell.json("orphans", "list")}
    assert {id: (row["code"], row["task_id"], row["can"]) for id, row in rows.items()} == {
        render: ("no_record", "t1", ["adopt", "cancel"]),
        text: ("no_record", "t2", ["adopt", "cancel"]),
        promo: ("no_record", "t3", ["adopt", "cancel"]),
        ended: ("no_record", "t4", ["adopt"]),
        live: ("ended", "t5", ["cancel"]),
        "t7": ("not_found", "t7", ["route"]),
    }
    assert [row["id"] for row in rows.values() if row["needs_arguments"]] == [promo]
    assert rows["t7"]["job_id"] == "render_gone"
    assert rows[render]["at"] == pytest.approx(time.time() - 120, abs=60)
    lines = scene.shell.run("orphans", "list").stdout.splitlines()
    assert len(lines) == 8
    assert lines[-1] == "6 orphans."
    line = next(line for line in lines if promo in line)
    assert line.endswith("t3       no record of its task is there: adopt --args, cancel")
    assert [row["id"] for row in scene.shell.json("orphans", "list", "--task", "shop.promo")] == [promo]
    assert len(scene.shell.json("orphans", "list", "--limit", "2")) == 2
    assert "The first 2 are shown" in scene.shell.run("orphans", "list", "--limit", "2").stdout
    assert [record.id for record in scene.room.scan()] == ["t6", "t7"]
    assert scene.deletes() == 0


def test_no_orphans(scene: Scene) -> None:
    assert scene.shell.run("orphans", "list").stdout == "No orphans.\n"
    assert scene.shell.json("orphans", "list") == []
    for command in (("adopt", "--all"), ("cancel", "--all", "--yes")):
        assert scene.shell.run("orphans", *command, exits=1).stderr == "Error: no orphan matches\n"


def test_what_ended_long_ago_is_listed_only_if_asked_for(scene: Scene) -> None:
    old = scene.submit("t1")
    scene.server.finish(old)
    scene.app.conf.result_expires = 60
    assert scene.shell.json("orphans", "list") == []
    assert [row["id"] for row in scene.shell.json("orphans", "list", "--old")] == [old]
    assert scene.shell.json("orphans", "adopt", old)[0]["task_id"] == "t1"  # by its id it is taken in any case


def test_the_id_that_is_shown_is_the_one_to_adopt(scene: Scene) -> None:
    for task, task_id in (("framelane.render", "t1"), ("framelane.transcribe", "t2")):
        job_id = scene.submit(task_id, task)
        shown = next(row["id"] for row in scene.shell.json("orphans", "list") if row["task"] == task)
        assert shown == job_id
        rows = scene.shell.json("orphans", "adopt", shown)
        assert rows == [{"id": job_id, "task": task, "task_id": task_id, "until": "job"}]
        assert [row["job_id"] for row in scene.shell.json("waiting") if row["id"] == task_id] == [job_id]
    assert scene.shell.json("orphans", "list") == []
    record = scene.read("t2")
    assert (record.job_kind, record.accepted_at) == ("task", pytest.approx(time.time() - 120, abs=60))


def test_adopt_all_leaves_out_what_needs_its_arguments(scene: Scene) -> None:
    jobs = {scene.submit(f"t{n}"): f"t{n}" for n in range(3)}
    promo, done = scene.submit("t8", "shop.promo"), scene.submit("t9")
    scene.room.create(make_record("t9", "done", outcome="timed_out", job_id=done, due_at=None, call=""))
    result = scene.shell.run("orphans", "adopt", "--all")
    assert result.stderr == "1 job left out, whose tasks need their arguments: --args.\n"
    assert result.stdout.splitlines()[-1].startswith("3 jobs adopted")
    assert {record.job_id: record.id for record in scene.room.scan()} == jobs
    wrong = scene.shell.run("orphans", "adopt", promo, exits=1).stderr
    assert wrong == f"Error: {promo}: shop.promo makes its result of its arguments too: give them\n"
    assert "completed() does not take" in scene.shell.run(
        "orphans", "adopt", promo, "--args", "[1]", "--kwargs", '{"product_id": 2}', exits=1
    ).stderr.replace("multiple values", "completed() does not take")
    assert scene.shell.json("orphans", "adopt", promo, "--args", "[7]")[0]["task_id"] == "t8"
    assert scene.shell.run("orphans", "adopt", "--all", exits=1).stderr == "Error: no orphan matches\n"


def test_cancel_asks_and_takes_what_goes_on(scene: Scene) -> None:
    lost, ended, given_up, awaited = (scene.submit(f"t{n}") for n in range(4))
    scene.server.finish(ended)
    scene.room.create(make_record("t2", "done", outcome="timed_out", job_id=given_up, due_at=None, call=""))
    scene.wait_for("t3", awaited)
    for command in (("--all",), (lost,)):
        assert "add --yes" in scene.shell.run("orphans", "cancel", *command, exits=2).stderr
    assert scene.deletes() == 0
    assert scene.shell.json("orphans", "cancel", given_up, "--yes") == [
        {"id": given_up, "task": "framelane.render", "task_id": "t2", "code": "ended"}
    ]
    refused = scene.shell.run("orphans", "cancel", awaited, ended, "--yes", exits=1).stderr.splitlines()
    assert refused == [
        f"Error: {awaited} is no orphan: its task t3 is job",
        f"Error: {ended} is completed: there is nothing left to cancel",
    ]
    assert "1 job cancelled" in scene.shell.run("orphans", "cancel", "--all", "--yes").stdout
    assert [scene.status(job_id) for job_id in (lost, given_up)] == ["cancelled", "cancelled"]
    assert scene.status(awaited) in ("queued", "processing")
    assert scene.deletes() == 2


@pytest.mark.parametrize("options", [{"switches": Switches(cancel_processing=False)}], ids=[""])
def test_what_cannot_be_cancelled_any_more_is_told(scene: Scene) -> None:
    job_id = scene.submit("t1")
    scene.server.clock.advance(60)
    result = scene.shell.run("orphans", "cancel", job_id, "--yes", exits=1)
    assert "cannot be cancelled" in result.stderr
    assert result.stdout == ""


def test_a_record_whose_job_is_gone_is_routed(scene: Scene) -> None:
    scene.wait_for("t1", "render_gone")
    scene.wait_for("t2", scene.submit("t2"))
    assert [row["id"] for row in scene.shell.json("orphans", "list")] == ["t1"]
    rows = scene.shell.json("orphans", "route", "t1", "t2", "no-such", exits=1)
    assert rows[0] == {"id": "t1", "task": "framelane.render", "task_id": "t1", "until": "start", "code": "not_found"}
    assert ["error" in row for row in rows] == [False, True, True]
    record = scene.read("t1")
    assert (record.outcome, record.letter["queue"]) == ("not_found", f"{scene.room.namespace}.dead")
    assert scene.read("t2").until == "job"
    assert scene.shell.run("orphans", "route", "t1", exits=1).stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        ("adopt",),
        ("cancel", "--yes"),
        ("route",),
        ("adopt", "render_1", "--all"),
        ("cancel", "render_1", "--all", "--yes"),
        ("adopt", "a", "b", "--args", "[]"),
        ("adopt", "--all", "--kwargs", "{}"),
        ("adopt", "a", "--args", "{}"),
        ("adopt", "a", "--kwargs", "no json"),
        ("list", "--limit", "-1"),
        ("find",),
    ],
    ids=" ".join,
)
def test_wrong_usage(shell: Shell, words: tuple[str, ...]) -> None:
    shell.run("orphans", *words, exits=2)


@pytest.mark.parametrize("wrong", ["no-such-id", "", "☂ \x1b[31m", "a\nb", "../usage", "\udcff"])
@pytest.mark.parametrize("command", [("adopt",), ("cancel", "--yes"), ("route",)], ids=" ".join)
def test_a_wrong_id_is_one_line(scene: Scene, command: tuple[str, ...], wrong: str) -> None:
    result = scene.shell.run("orphans", *command, wrong, exits=1)
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Error: ")
    assert "\x1b" not in result.stderr


ALL = [("list",), ("adopt", "--all"), ("adopt", "x"), ("cancel", "--all", "--yes"), ("cancel", "x", "--yes")]


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_an_api_that_is_away_is_one_line(scene: Scene, command: tuple[str, ...]) -> None:
    scene.server.stop()
    result = scene.shell.run("orphans", *command, exits=1)
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout in ("", "[]\n")


@pytest.mark.parametrize("command", [*ALL, ("route", "x")], ids=" ".join)
def test_a_room_that_is_away_is_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    with (
        FramelaneServer() as server,
        make_app(tmp_path, base_url=server.base_url, room_url="redis://127.0.0.1:1") as app,
    ):
        result = Shell(app).run("orphans", *command, exits=1)
        room_for(app).close()
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("options", [{"switches": Switches(has_list=False)}], ids=[""])
def test_an_api_without_a_list_is_one_line(scene: Scene) -> None:
    result = scene.shell.run("orphans", "list", exits=1)
    assert len(result.stderr.splitlines()) == 1
    scene.wait_for("t1", "render_gone")
    assert scene.shell.json("orphans", "route", "t1")[0]["until"] == "start"


@pytest.mark.parametrize("options", [{"reads_per_minute": 7}], ids=[""])
def test_a_limit_stops_it_and_the_same_command_goes_on(scene: Scene) -> None:
    jobs = [scene.submit(f"t{n}") for n in range(8)]
    result = scene.shell.run("orphans", "adopt", "--all", exits=1)
    assert "(5 of 8 were done before; the same command goes on)" in result.stderr
    assert result.stdout.splitlines()[-1].startswith("5 jobs adopted")
    scene.server.clock.advance(61)
    assert len(scene.shell.json("orphans", "adopt", "--all")) == 3
    assert {record.job_id for record in scene.room.scan()} == set(jobs)
