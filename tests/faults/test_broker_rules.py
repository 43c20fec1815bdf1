"""The rules of broker_facts.md, "What follows", that touch one render. The numbers are that file's.

Attacked elsewhere: 1 and 2 in test_kills_of_runs and test_storm (killed workers, the visibility timeout untouched);
4 in test_stopped; 5 in test_lost_messages.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
import redis

import framelane_celery
from framelane_celery import FramelaneTask, SettingsError
from framelane_celery.records import Record, resend, resend_delay_s
from framelane_celery.room import open_room
from framelane_celery.settings import resolve
from framelane_celery.watching.watcher import LEAD_S
from tests.faults.attack import make_server, make_stack
from tests.worker.project import composition
from tests.worker.stacks import REDIS, ROOT, Worker, wait_for

DAY_S = 86400
worker_tests = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    folder = Path(framelane_celery.__file__).parent
    return {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*.py")}


@pytest.mark.fault
def test_rule_1_every_task_of_ours_is_acknowledged_late_and_put_back_when_its_process_dies() -> None:
    from tests.worker.project import app

    ours = [task for task in app.tasks.values() if isinstance(task, FramelaneTask)]
    assert len(ours) >= 10
    assert all(task.acks_late and task.reject_on_worker_lost for task in ours)


@pytest.mark.fault
def test_rule_5_a_wake_up_is_sent_again_further_and_further_apart() -> None:
    record, now, sent = Record(id="a", task="t", call="{}", digest="d", due_at=60.0), 60.0, [0.0, 60.0]
    for _ in range(12):
        again = resend(record, now=now, resend_after_s=60)
        assert again is not None
        assert again.step == record.step
        record, now = again, again.due_at or 0.0
        sent.append(now)
    gaps = [later - earlier for earlier, later in pairwise(sent)]
    assert gaps == sorted(gaps)
    assert gaps[:4] == [60, 120, 240, 480]
    assert gaps[-1] == resend_delay_s(12, 60) == 3600


@pytest.mark.fault
def test_rule_6_nothing_of_ours_lists_a_queue(sources: dict[str, str]) -> None:
    reads_queues = re.compile(r"basic_get|kombu\.simple|basic_recover|basic_reject|\.requeue\(")
    assert [name for name, text in sources.items() if reads_queues.search(text)] == []


@pytest.mark.fault
def test_rule_7_no_client_of_kombus_is_used(sources: dict[str, str]) -> None:
    takes_theirs = re.compile(r"conn_or_acquire|channel\.client|default_channel")
    assert [name for name, text in sources.items() if takes_theirs.search(text)] == []


@pytest.mark.fault
@pytest.mark.parametrize("scheme", ["redis+cluster", "rediss+cluster"])
def test_rule_9_redis_cluster_is_refused_with_one_clear_error(scheme: str) -> None:
    conf = {"namespace": "x", "room_url": f"{scheme}://127.0.0.1:7000"}
    with pytest.raises(SettingsError, match=r"^room_url: Redis Cluster cannot keep the records; set framelane\["):
        resolve(conf, environ={}, app_name="x", broker_url=None, result_backend=None)
    with pytest.raises(SettingsError, match=r"^room_url: "):
        open_room(conf["room_url"], "x")


@pytest.mark.fault
def test_rule_10_the_redis_extra_is_celerys_own() -> None:
    extra = re.search(r"^redis = \[(.*)\]", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert extra is not None
    assert re.match(r'"celery\[redis\]', extra[1])
    assert not re.search(r'"redis\b', extra[1])


class TestWithWorkers:
    pytestmark = worker_tests

    def test_rule_7_global_keyprefix_goes_before_every_key_of_ours(self, tmp_path: Path) -> None:
        prefix = "shop-a:"
        options = {"broker_transport_options": {"global_keyprefix": prefix}}
        options["result_backend_transport_options"] = {"global_keyprefix": prefix}
        with make_server() as server, make_stack("redis", tmp_path, server, celery=options) as stack:
            with stack.worker("-c", "1", "-Q", f"{stack.queue},{stack.queue}-plain") as worker:
                job = (stack.sig("framelane.render", composition()) | stack.sig("note")).apply_async().get(timeout=60)
                wait_for(lambda: "watching, token" in worker.log)  # the lease sees itself
                with redis.Redis.from_url(f"{REDIS}/12", decode_responses=True) as client:
                    keys = list(client.scan_iter(f"*{stack.namespace}*"))
            assert job["status"] == "completed"
            assert {key.startswith(f"{prefix}{{framelane:{stack.namespace}}}:") for key in keys} == {True}
            assert any(key.endswith(":lead") for key in keys)

    @pytest.mark.parametrize("name", ["redis", "rabbitmq"])
    def test_rule_11_the_lead_is_handed_over_at_once_and_found_again_after_a_kill(
        self, tmp_path: Path, name: str
    ) -> None:
        with make_server(job_seconds=1.0) as server, make_stack(name, tmp_path, server) as stack, ExitStack() as opened:
            leader = opened.enter_context(stack.worker("-c", "1"))
            wait_for(lambda: "watching, token" in leader.log)
            with ThreadPoolExecutor(2) as pool:
                made = [stack.worker("-c", "1", name=f"s{number}") for number in range(2)]
                others = list(pool.map(opened.enter_context, made))
            assert not [other for other in others if "watching, token" in other.log]

            asked_at = _clock()
            leader.stop()
            second = wait_for(lambda: next((each for each in others if "watching, token" in each.log), None))
            # What is not handed over ends LEAD_S after its last renewal.
            assert (_instant_of(second, "watching, token") - asked_at) % DAY_S < LEAD_S - 2

            third = next(each for each in others if each is not second)
            killed_at = _clock()
            second.kill()
            wait_for(lambda: "watching, token" in third.log, LEAD_S + 50)
            assert (_instant_of(third, "watching, token") - killed_at) % DAY_S < LEAD_S + 5
            assert stack.sig("framelane.render", composition()).apply_async().get(timeout=60)["status"] == "completed"

    def test_rule_11_reads_do_not_grow_with_workers(self, tmp_path: Path) -> None:
        def reads(workers: int) -> int:
            folder = tmp_path / str(workers)
            folder.mkdir()
            with (
                make_server(job_seconds=4.0) as server,
                make_stack("redis", folder, server) as stack,
                ExitStack() as opened,
            ):
                for number in range(workers):
                    opened.enter_context(stack.worker("-c", "1", name=f"w{number}"))
                results = [stack.sig("framelane.render", composition()).apply_async() for _ in range(8)]
                wait_for(lambda: all(result.ready() for result in results), 100)
                return len(server.ledger.reads())

        with ThreadPoolExecutor(2) as pool:
            one, three = pool.map(reads, (1, 3))
        assert three < one * 2, (one, three)  # three times as many, if each of them looked


def _instant_of(worker: Worker, text: str) -> float:
    """When a worker logged something, in seconds of its day."""
    lines = [line for line in worker.log.splitlines() if text in line]
    found = [re.search(r"(\d\d):(\d\d):(\d\d),(\d{3})", line) for line in lines]
    hours, minutes, seconds, millis = (int(part) for part in next(match for match in found if match).groups())
    return hours * 3600 + minutes * 60 + seconds + millis / 1000


def _clock() -> float:
    """Now, as `_instant_of` counts."""
    now = datetime.now().astimezone()
    return now.hour * 3600 + now.minute * 60 + now.second + now.microsecond / 1e6
