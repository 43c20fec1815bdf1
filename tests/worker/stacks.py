"""Real workers on real brokers: a stack is a transport, a result backend and a room; a worker is a process group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import redis
from celery import Celery
from sqlalchemy import create_engine, text

from framelane_celery.room import open_room, room_of
from framelane_celery.settings import settings_of
from framelane_celery.testing import Cancelled, Completed, Failed, FramelaneServer, Never, Outcome, Submission
from scripts.check_servers import SERVERS
from tests.worker.lines import lines_in

ROOT = Path(__file__).parents[2]
URLS = {server.name: server.url for server in SERVERS}
REDIS, AMQP, POSTGRES = URLS["Redis"].rsplit("/", 1)[0], URLS["RabbitMQ"], URLS["PostgreSQL"]

Answer = TypeVar("Answer")

WAIT_S = 60.0
"""How long a test waits for what it expects: long enough for a machine that is slow and has other work too."""


def wait_for(
    condition: Callable[[], Answer], timeout_s: float = WAIT_S, what: str = "", every_s: float = 0.02
) -> Answer:
    """Wait until a condition gives something true; fail with what was waited for."""
    end = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {what or condition}; last: {answer!r}")
        time.sleep(every_s)


# --- the server --------------------------------------------------------------------------------------------------

JOB_S = 0.3


def make_server(**options: Any) -> FramelaneServer:
    """A server without limits, whose jobs end as their metadata says: see `project.composition`."""
    options = {"renders_per_minute": None, "tasks_per_minute": None, **options}
    jobs: Counter[str] = Counter()

    def outcome(submission: Submission) -> Outcome:
        counted_as = submission.metadata.get("counted_as") or submission.metadata.get("celery_task_id", "")
        jobs[counted_as] += 1
        return _outcome(submission, jobs[counted_as])

    return FramelaneServer(outcome=outcome, duration=_duration, **options)


def _outcome(submission: Submission, number: int) -> Outcome:
    """How its task's job of that number ends (``counted_as``: of several tasks together). ``fails``: so many fail."""
    wanted = submission.metadata.get("outcome")
    if number <= int(submission.metadata.get("fails", 0)):
        wanted = "fail"
    if wanted == "fail":
        return Failed(submission.metadata.get("code", "internal"))
    return {"cancel": Cancelled(), "never": Never()}.get(wanted or "", Completed())


def _duration(submission: Submission) -> float:
    return float(submission.metadata.get("seconds", JOB_S))


def jobs_of(server: FramelaneServer, task_id: str) -> list[str]:
    """The jobs that were paid for one task."""
    return server.ledger.jobs_per_task().get(task_id, [])


# --- what runs against it ----------------------------------------------------------------------------------------


@dataclass
class Stack:
    """Where messages, results and records live, under names of this stack's own."""

    name: str
    folder: Path
    base_url: str
    celery: dict[str, Any] = field(default_factory=dict)
    framelane: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unique = uuid4().hex[:10]
        self.namespace = f"test-{unique}"
        self.queue = f"fl-test-{unique}"
        self.more_queues: list[str] = []  # of a test's own, to be deleted with the others
        places = {
            "redis": (f"{REDIS}/10", f"{REDIS}/11", f"{REDIS}/12", {}),
            "rabbitmq": (AMQP, f"{REDIS}/11", POSTGRES, {}),
            "rabbitmq+redis": (AMQP, f"{REDIS}/11", f"{REDIS}/12", {}),
            "redis+sql": (f"{REDIS}/10", f"{REDIS}/11", POSTGRES, {}),
            "filesystem": (
                "filesystem://",
                f"file://{self._made('results')}",
                f"sqlite:///{self.folder}/room.sqlite",
                {
                    "data_folder_in": self._made("queue"),
                    "data_folder_out": self._made("queue"),
                    "control_folder": self._made("control"),
                    "polling_interval": 0.02,
                },
            ),
        }
        broker, backend, room, transport = places[self.name]
        if broker == "filesystem://":
            self.celery = {
                "broker_transport": "framelane_celery.demo.files:Transport",  # kombu's own loses a message now and then
                "worker_prefetch_multiplier": 16,  # on 5.5 it tells acks every two seconds only
                **self.celery,
            }
        self.celery = {
            "broker_url": broker,
            "result_backend": backend,
            "broker_transport_options": transport,
            "task_default_queue": self.queue,
            "broker_connection_retry_on_startup": True,
            "worker_prefetch_multiplier": 1,
            "result_chord_retry_interval": 0.3,  # only the file backend asks: it cannot count
            "task_routes": {},
            **self.celery,
        }
        self.framelane = {
            "api_key": "fl_test_key",
            "base_url": self.base_url,
            "namespace": self.namespace,
            "room_url": room,
            "lease_s": 15,
            "resend_after_s": 15,
            "routes": [{"code": "internal", "action": "fail"}],  # how the tests' jobs fail, unless they say otherwise
            **self.framelane,
        }
        self.journal_file = self.folder / "journal"
        self.app = Celery("tests", set_as_current=False)
        self.app.conf.update(self.celery)
        if self.celery["result_backend"] == "django-db":  # needs Django, which this process has not
            self.app.conf.result_backend = "disabled://"
        self.app.conf.framelane = self.framelane
        self.room = open_room(self.framelane["room_url"], self.namespace)

    def _made(self, name: str) -> str:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return str(path)

    def environment(self) -> dict[str, str]:
        """What makes `tests.worker.project` a project of this stack, in another process."""
        return {
            "TEST_CELERY": json.dumps(self.celery),
            "TEST_FRAMELANE": json.dumps(self.framelane),
            "TEST_JOURNAL": str(self.journal_file),
            "PYTHONPATH": str(ROOT),
        }

    def sig(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A signature of a task of `tests.worker.project` ("promo") or of the package ("framelane.render")."""
        full = name if "." in name else f"tests.worker.project.{name}"
        return self.app.tasks[full].s(*args, **kwargs)

    def journal(self, event: str | None = None) -> list[dict[str, Any]]:
        """What the tasks have noted."""
        return [note for note in lines_in(self.journal_file) if event is None or note["event"] == event]

    def until(self, task_id: str, *states: str, timeout_s: float = WAIT_S) -> Any:
        """The record, once it waits for one of these."""

        def there() -> Any:
            record = self.record(task_id)
            return record if record is not None and record.until in states else None

        return wait_for(there, timeout_s, f"{task_id} until {states}")

    @contextmanager
    def events(self) -> Iterator[list[dict[str, Any]]]:
        """The task events that the workers send meanwhile (they need ``-E``), in a list that grows.

        Not those of other tests' workers, which may run on the same broker.
        """
        seen: list[dict[str, Any]] = []

        def hear(event: dict[str, Any]) -> None:
            node = str(event.get("hostname"))
            if "@fl-test-" not in node or self.queue in node:
                seen.append(event)

        stop, ready = threading.Event(), threading.Event()

        def listen() -> None:
            with self.app.connection_for_read() as connection:
                receiver = self.app.events.Receiver(connection, handlers={"*": hear})
                with receiver.consumer_context() as (own, _, _):
                    ready.set()
                    while not stop.is_set():
                        with suppress(TimeoutError):
                            own.drain_events(timeout=0.1)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        assert ready.wait(WAIT_S)
        try:
            yield seen
        finally:
            stop.set()
            thread.join(WAIT_S)

    def order(self, point: str, what: str) -> None:
        """Have the next run that reaches a point die there: "kill child", "kill worker" or "hang"."""
        (self.folder / f"at-{point}").write_text(what)

    def record(self, task_id: str) -> Any:
        return self.room.read(task_id)[0]

    def is_idle(self) -> bool:
        """Whether every record is done or dead."""
        return all(record.is_over for record in self.room.scan())

    def close(self) -> None:
        """Leave the services as they were."""
        for queue in (self.queue, f"{self.queue}.retry", f"{self.namespace}.dead", *self.more_queues):
            with suppress(Exception), self.app.connection_for_write() as connection:
                connection.default_channel.queue_delete(queue)
                if self.name.startswith("rabbitmq"):
                    connection.default_channel.exchange_delete(queue)
        for db in (10, 12):
            with redis.Redis.from_url(f"{REDIS}/{db}") as client:
                for pattern in (f"*{self.namespace}*", f"*{self.queue}*"):
                    for key in client.scan_iter(pattern, count=1000):
                        client.delete(key)
        if "postgresql" in self.framelane["room_url"]:
            engine = create_engine(POSTGRES.replace("postgresql://", "postgresql+psycopg://"))
            with suppress(Exception), engine.begin() as connection:
                for table in ("framelane_records", "framelane_room"):
                    connection.execute(text(f"DELETE FROM {table} WHERE namespace = :n"), {"n": self.namespace})
            engine.dispose()
        self.room.close()
        with suppress(Exception):
            room_of(self.app, settings_of(self.app)).close()
        self._close_celery()
        self.app.close()

    def _close_celery(self) -> None:
        """What Celery keeps open of its services; a socket that is left fails whichever test runs next."""
        backend = self.app.backend
        backend.on_result_fulfilled = lambda result: None  # a result that is dropped later would connect again
        with suppress(Exception):
            backend.result_consumer.stop()
        with suppress(Exception):
            backend.client.connection_pool.disconnect()

    def waiting_in(self, queue: str) -> int | None:
        """How many messages wait in a queue of the broker, and None if there is no such queue. Changes nothing."""
        with self.app.connection_for_write() as connection:
            try:
                return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
            except connection.channel_errors:
                return None

    @contextmanager
    def worker(
        self, *options: str, name: str = "w1", python: str = sys.executable, queues: str | None = None, **env: str
    ) -> Iterator[Worker]:
        """A worker in a process group of its own, ready. ``queues``: for ``-Q``; "" leaves that away."""
        worker = Worker(self, name, options, python, env, self.queue if queues is None else queues)
        try:
            worker.start()
            yield worker
        finally:
            worker.end()


class Worker:
    """One ``celery worker`` and its children."""

    def __init__(
        self, stack: Stack, name: str, options: tuple[str, ...], python: str, env: dict[str, str], queues: str
    ) -> None:
        self.stack, self.name, self.python, self.queues = stack, name, python, queues
        self.options = options or ("-c", "2")
        self.log_file = stack.folder / f"{name}.log"
        self.env = env
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def node(self) -> str:
        """The node name: this stack's own, for brokers are shared by the stacks of others."""
        return f"{self.name}@{self.stack.queue}"

    def start(self) -> Worker:
        before = self.log.count(" ready.")
        env = {
            **os.environ,
            **self.stack.environment(),
            "PYTHONWARNINGS": "default",
            **self.env,
        }
        command = [
            self.python, "-m", "celery", "-A", "tests.worker.project", "worker", "-l", "INFO", "-n", self.node,
            *(("-Q", self.queues) if self.queues else ()), "--without-mingle", *self.options,
        ]  # fmt: skip
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        wait_for(lambda: self.log.count(" ready.") > before or self.died(), 2 * WAIT_S, f"{self.name} ready")
        return self

    def died(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the worker ended at once:\n{self.log[-3000:]}")
        return False

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def children(self) -> list[int]:
        """The pool's processes."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def kill(self) -> None:
        """SIGKILL the whole worker, children and all."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        assert self.process is not None
        self.process.wait(WAIT_S)

    def signal(self, number: int) -> None:
        """Send a signal to the main process."""
        os.kill(self.pid, number)

    def stop(self, timeout_s: float = WAIT_S) -> None:
        """A warm shutdown."""
        assert self.process is not None
        self.signal(signal.SIGTERM)
        self.process.wait(timeout_s)

    def end(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGCONT)
        try:
            self.stop(8)
        except subprocess.TimeoutExpired:
            self.kill()
