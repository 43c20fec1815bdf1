"""The way out: `celery framelane drain` with jobs in flight, then removal, then no package. docs/removing.md."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
import sqlalchemy as sa
from celery import chain
from celery.exceptions import TaskRevokedError

from framelane_celery.draining.broker import remove_queues
from framelane_celery.testing import FramelaneServer
from scripts import wheel
from tests.cli.conftest import Shell
from tests.worker.project import composition
from tests.worker.stacks import POSTGRES, REDIS, WAIT_S, Stack, jobs_of, make_server, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.timeout(240)]

OURS = {"framelane_records", "framelane_room"}


@pytest.fixture
def server() -> Iterator[FramelaneServer]:
    with make_server() as running:
        yield running


@pytest.fixture
def schema() -> Iterator[str]:
    """A schema of PostgreSQL that is nobody else's, so that its tables may go."""
    schema = f"test_{uuid4().hex[:12]}"
    engine = sa.create_engine(POSTGRES.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    yield schema
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


@pytest.fixture(params=["redis", "rabbitmq"])
def stack(
    request: pytest.FixtureRequest, make_stack: Callable[..., Stack], server: FramelaneServer, schema: str
) -> Stack:
    rooms = {"rabbitmq": {"room_url": f"{POSTGRES}?options=-csearch_path%3D{schema}"}}
    routes = [{"code": "internal", "action": "retry", "backoff_s": 600}, {"code": "codec", "action": "dead_letter"}]
    return make_stack(request.param, server, framelane={"routes": routes, **rooms.get(request.param, {})})


def render(stack: Stack, text: str = "hello", **metadata: str) -> Any:
    return stack.sig("framelane.render", composition(text, **metadata))


def tables(stack: Stack) -> set[str]:
    engine = sa.create_engine(stack.framelane["room_url"].replace("postgresql://", "postgresql+psycopg://"))
    try:
        return set(sa.inspect(engine).get_table_names())
    finally:
        engine.dispose()


def left(stack: Stack) -> set[str]:
    """What there is under the names of the stack, at the broker and in the room."""
    found = {name for name in (f"{stack.queue}.retry", f"{stack.namespace}.dead") if stack.waiting_in(name) is not None}
    if stack.name == "rabbitmq":
        with stack.app.connection_for_write() as connection:
            for name in (f"{stack.queue}.retry", f"{stack.namespace}.dead"):
                channel = connection.channel()
                try:
                    channel.exchange_declare(name, "direct", passive=True)
                    found.add(f"exchange {name}")
                except connection.channel_errors:
                    pass
        found |= tables(stack)
    for db in (10, 11, 12):
        with redis.Redis.from_url(f"{REDIS}/{db}") as client:
            for pattern in (f"*{stack.namespace}*", f"*{stack.queue}*"):
                found |= {key.decode() for key in client.scan_iter(pattern, count=1000)}
    return found


def in_background(shell: Shell, *words: str) -> Future[Any]:
    """Run the command in a thread: its JSON."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(lambda: json.loads(shell.run(*words).stdout))
    pool.shutdown(wait=False)
    return future


@pytest.mark.parametrize("stack", ["rabbitmq"], indirect=True)
def test_a_queue_that_somebody_takes_from_stays(stack: Stack) -> None:
    """Two apps may name one queue for their retries, and one of them is alive."""
    shared, own = f"{stack.queue}.retry", f"{stack.namespace}.dead"
    with stack.app.connection_for_write() as connection:
        for name in (shared, own):
            connection.SimpleQueue(name).put("x")
        with connection.Consumer([stack.app.amqp.queues.new_missing(shared)]):
            removed, in_use = remove_queues(stack.app, [own, shared])
            assert ([one.name for one in removed], in_use) == ([own], {shared})
        assert stack.waiting_in(shared) is not None
    removed, in_use = remove_queues(stack.app, [own, shared])
    assert ([one.name for one in removed], in_use) == ([shared], set())


# --- waiting, and going back -------------------------------------------------------------------------------------


def test_what_is_in_flight_ends_and_nothing_new_is_submitted(stack: Stack, server: FramelaneServer) -> None:
    shell = Shell(stack.app)
    with stack.worker():
        going = chain(render(stack, "going", seconds="3"), stack.sig("note", tag="tail")).apply_async()
        followed = chain(render(stack, "followed", seconds="2"), stack.sig("framelane.transcribe")).apply_async()
        again = render(stack, "again", outcome="fail").apply_async()
        broken = render(stack, "broken", outcome="fail", code="codec").apply_async()
        later = render(stack, "later").apply_async(countdown=3600)
        stack.until(going.parent.id, "job")
        stack.until(followed.parent.id, "job")
        stack.until(again.id, "instant")
        stack.until(broken.id, "dead")
        draining = in_background(shell, "drain", "--json")
        wait_for(lambda: [hold for hold in stack.room.holds()[0] if hold.is_on], what="a hold")
        new = render(stack, "new").apply_async()
        stack.until(new.id, "release")
        told = draining.result(WAIT_S)
        assert told["drained"] is True
        assert told["in_flight"] == {}
        assert told["not_submitted"] == {"release": 2, "instant": 2}
        assert told["letters"] == 1
        assert told["leader"].startswith("w1@")
        assert going.get(timeout=WAIT_S)["status"] == "completed"
        assert [note["tag"] for note in stack.journal("plain")] == ["tail"]
        assert followed.parent.get(timeout=WAIT_S)["status"] == "completed"
        assert [len(jobs_of(server, one.id)) for one in (followed, new, again, later)] == [0, 0, 1, 0]
        assert shell.json("drain")["not_submitted"] == {"release": 2, "instant": 2}  # once more is as good
        assert "still works here" in shell.run("drain", "--remove", "--discard", "--yes", exits=1).stderr
        shell.run("drain", "--undo")
        assert new.get(timeout=WAIT_S)["status"] == "completed"
        assert followed.get(timeout=WAIT_S)["status"] == "completed"
        assert [len(jobs_of(server, one.id)) for one in (followed, new)] == [1, 1]


def test_cancelled_jobs_are_cancelled_at_framelane_and_their_tasks_revoked(
    stack: Stack, server: FramelaneServer
) -> None:
    shell = Shell(stack.app)
    with stack.worker():
        never = chain(render(stack, "never", outcome="never"), stack.sig("note", tag="tail")).apply_async()
        later = render(stack, "later").apply_async(countdown=3600)
        stack.until(never.parent.id, "job")
        stack.until(later.id, "instant")
        told = shell.json("drain", "--cancel", "--yes", "--timeout", str(WAIT_S))
        assert (told["drained"], told["in_flight"], told["not_submitted"]) == (True, {}, {})
        for result in (never.parent, later):
            with pytest.raises(TaskRevokedError):
                result.get(timeout=WAIT_S)
            assert stack.record(result.id).until == "done"  # it ended through its record, which is still known
        assert server.jobs[jobs_of(server, never.parent.id)[0]]["status"] == "cancelled"
        assert stack.journal("plain") == []


def test_nobody_leads(stack: Stack, server: FramelaneServer) -> None:
    with stack.worker():
        going = render(stack, "going", outcome="never").apply_async()
        stack.until(going.id, "job")
    result = Shell(stack.app).run("drain", "--timeout", "0", exits=1)
    assert "No watcher leads, so nothing moves on: start a worker." in result.output
    assert stack.record(going.id).until == "job"


# --- the page, step by step --------------------------------------------------------------------------------------

WITH_US = """
import json, os
import framelane_celery as framelane
from celery import Celery, shared_task

app = Celery("shop")
app.conf.update(json.loads(os.environ["TEST_CELERY"]))
app.conf.framelane = json.loads(os.environ["TEST_FRAMELANE"])

@shared_task
def double(number):
    return 2 * number

@shared_task
def publish(job):
    return job["id"]
"""

CALLS = f"""[
    *(framelane.render.s({composition("going", outcome="never")!r}) | publish.s()).delay().as_list(),
    framelane.render.delay({composition("again", outcome="fail")!r}).id,
    framelane.render.delay({composition("fails", outcome="fail", code="codec")!r}).id,
]"""

WITHOUT_US = """
import json, os
from celery import Celery, shared_task

app = Celery("shop")
app.conf.update(json.loads(os.environ["TEST_CELERY"]))

@shared_task
def double(number):
    return 2 * number
"""


class Site:
    """A user's project in a virtual environment that has the wheel installed."""

    def __init__(self, folder: Path, stack: Stack, built: Path) -> None:
        self.folder, self.stack = folder, stack
        self.python = wheel.make_venv(folder / "venv", Path(sys.executable))
        wheel.install(self.python, built)
        self.write(WITH_US)
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONWARNINGS")}
        known = stack.environment()
        self.environ = {**kept, "TEST_CELERY": known["TEST_CELERY"], "TEST_FRAMELANE": known["TEST_FRAMELANE"]}

    def write(self, project: str) -> None:
        (self.folder / "shop.py").write_text(project)

    def run(self, *words: str, exits: int = 0) -> str:
        ran = subprocess.run(
            [self.python, *words], cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=100
        )
        assert ran.returncode == exits, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def celery(self, *words: str, exits: int = 0) -> str:
        return self.run("-m", "celery", "-A", "shop", *words, exits=exits)

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        command = [self.python, "-m", "celery", "-A", "shop", *words]
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=self.folder, env=self.environ, **pipes) as process:
            try:
                yield process
            finally:
                process.kill()

    def ask(self, code: str) -> Any:
        return json.loads(self.run("-c", f"import json; from shop import *\nprint(json.dumps({code}))"))

    def worker(self, name: str) -> Running:
        return Running(self, name)


class Running:
    def __init__(self, site: Site, name: str) -> None:
        self.site, self.log_file = site, site.folder / f"{name}.log"
        self.node = f"{name}@{site.stack.queue}"

    def __enter__(self) -> Running:
        words = ["-m", "celery", "-A", "shop", "worker", "-l", "INFO", "-c", "1", "-n", self.node, "--without-mingle"]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [self.site.python, *words], cwd=self.site.folder, env=self.site.environ, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        wait_for(lambda: " ready." in self.log or self.process.poll() is not None, what="a worker")
        assert self.process.poll() is None, self.log
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(WAIT_S)

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel.the_wheel(tmp_path_factory.mktemp("dist"))


def test_the_page(stack: Stack, server: FramelaneServer, tmp_path: Path, built: Path) -> None:
    site_folder = tmp_path / "site"
    site_folder.mkdir()
    site = Site(site_folder, stack, built)
    before = left(stack)
    with site.worker("w1"):
        published, going, again, fails = site.ask(CALLS)
        stack.until(going, "job")
        stack.until(again, "instant")
        stack.until(fails, "dead")
        with site.started("framelane", "drain") as draining:
            assert draining.stderr is not None
            assert draining.stderr.readline() == "In flight: 1 job. Not submitted: 1 instant.\n"
            server.finish(jobs_of(server, going)[0])
            assert draining.wait(WAIT_S) == 0
        assert site.ask(f"app.AsyncResult({published!r}).get(timeout=60)").startswith("render_")
        assert "still works here" in site.celery("framelane", "drain", "--remove", "--discard", "--yes", exits=1)
    assert left(stack) > before
    assert "dead letters are here" in site.celery("framelane", "drain", "--remove", "--yes", exits=1)
    printed = site.celery("framelane", "drain", "--remove", "--export", "left.jsonl", "--yes")
    assert f"Queue {stack.queue}.retry: removed" in printed
    assert f"Queue {stack.namespace}.dead: removed, with 1 message." in printed
    assert len((site_folder / "left.jsonl").read_text().splitlines()) == 2
    for secret in ("fl_test_key", "amqp://", "redis://", "postgresql"):
        assert secret not in printed
    own = {f"_kombu.{kind}.{stack.queue}" for kind in ("binding", "binding_permanent")}  # of the project's own queue
    assert left(stack) - own == before
    assert "framelane" in site.run("-m", "pip", "uninstall", "-y", "framelane-celery").lower()
    site.run("-c", "import framelane_celery", exits=1)
    site.write(WITHOUT_US)
    with site.worker("w2") as worker:
        late = site.ask("app.send_task('framelane.render', ({},)).id")  # of a caller that was not stopped
        assert site.ask("double.delay(21).get(timeout=60)") == 42
        assert site.ask(f"app.AsyncResult({late!r}).state") == "FAILURE"
        assert "Received unregistered task of type 'framelane.render'" in worker.log
        assert "framelane" not in worker.log.partition("Received unregistered")[0].replace("framelane.render", "")
    assert left(stack) - own == before
