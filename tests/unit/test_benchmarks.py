"""What the measurements compute: no server, no worker, and no clock but a virtual one."""

from __future__ import annotations

import base64
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench, memory, pickup, reads
from benchmarks.virtual import Api, Simulation, polls
from framelane_celery.testing import Entry, FramelaneServer
from framelane_celery.testing.jobs import Submission
from framelane_celery.watching.plan import Plan


@pytest.mark.parametrize(("percent", "value"), [(1, 1.0), (50, 50.0), (99, 99.0), (100, 100.0)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, value: float) -> None:
    values = [float(number) for number in range(1, 101)]
    random.Random(1).shuffle(values)
    assert bench.percentile(values, percent) == value
    assert bench.percentile([7.0], percent) == 7.0


def test_a_goal_is_a_bound_from_above_or_from_below() -> None:
    assert bench.Goal("RSS", 299.0, 300.0).is_reached
    assert not bench.Goal("RSS", 301.0, 300.0).is_reached
    assert bench.Goal("rate", 0.51, 0.5, is_most=False).is_reached
    assert str(bench.Goal("rate", 0.49, 0.5, is_most=False)) == "rate: 0.49 >= 0.5: NOT REACHED"


def test_a_report_is_a_table_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "OUTPUT", tmp_path / "bench-output")
    bench.report("it", "Title", ["a", "b"], [[1, "x"]], goals=[bench.Goal("a", 1, 2)], facts={"room": "Redis"})
    told = json.loads((tmp_path / "bench-output" / "it.json").read_text())
    assert told["rows"] == [{"a": 1, "b": "x"}]
    assert told["goals"] == [{"what": "a", "got": 1, "bound": 2, "is_most": True, "is_reached": True}]
    assert told["facts"] == {"room": "Redis"}
    assert capsys.readouterr().out == "\nTitle\n  a  b\n  1  x\n  room: Redis\n  goal: a: 1 <= 2: reached\n"


# ---------------------------------------------------------------- pickup


def read(at: float, path: str, job_id: str | None = None, **query: str) -> Entry:
    return Entry(
        number=1, at=at, method="GET", path=path, query=query, idempotency_key=None, body=b"", status=200, job_id=job_id
    )


def test_the_delay_is_split_where_the_end_was_read() -> None:
    answers = [{"id": "render_1", "ended": "1970-01-01T00:01:40.5Z", "started": 102.0}]
    path = "/v1/renders/render_1"
    entries = [read(100.0, path, "render_1"), read(101.0, path, "render_1"), read(101.5, path, "render_1")]
    assert pickup.delays(answers) == [1.5]
    assert pickup.reading_delays(answers, entries) == [0.5]
    assert pickup.figures(answers, entries)["reads_per_job"] == 3


# ---------------------------------------------------------------- memory


def cursor(number: int) -> str:
    return base64.urlsafe_b64encode(str(number).encode()).decode()


def test_what_was_looked_at_is_read_from_the_ledger() -> None:
    coverage = memory.Coverage(250, {"render_7": 7})
    coverage.add([read(1.0, "/v1/renders", status="queued", limit="100")])
    assert (coverage.left, coverage.first_at) == (250, None)
    coverage.add([read(2.0, "/v1/renders", status="processing", limit="100"), read(3.0, "/v1/renders/render_7")])
    assert (coverage.left, coverage.first_at, coverage.all_at) == (149, 2.0, None)
    coverage.add([read(4.0, "/v1/renders", limit="100", cursor=cursor(151))])
    coverage.add([read(5.0, "/v1/renders", limit="100", cursor=cursor(51)), read(6.0, "/v1/renders/render_7")])
    assert (coverage.left, coverage.first_at, coverage.all_at) == (0, 2.0, 5.0)


@pytest.mark.parametrize(
    ("below", "numbers"), [(math.inf, [3, 2, 1]), (3, [2, 1]), (99, [3, 2, 1]), (1, []), (-5, []), (10**400, [3, 2, 1])]
)
def test_a_list_of_the_local_server_begins_where_the_cursor_says(below: float, numbers: list[int]) -> None:
    workspace = FramelaneServer()._workspace
    for _ in range(3):
        workspace.submit(Submission("render", None, {}, None, 0), "/v1/renders", b"")
    assert [job.number for job in workspace.newest(below)] == numbers


def test_records_wait_for_the_jobs_of_the_server_and_are_due() -> None:
    records = memory.make_records(["render_a", "render_b"])
    assert [record.job_id for record in records] == ["render_a", "render_b"]
    assert {record.lane for record in records} == {"look"}
    assert all(record.due_at is not None and record.due_at < record.deadline_at for record in records)  # type: ignore[operator]


# ---------------------------------------------------------------- reads


def test_the_simulated_list_is_filtered_and_goes_page_by_page_newest_first() -> None:
    api = Api()
    for _ in range(250):
        api.submit(0.0, 100.0)
    young, ended = api.submit(40.0, 100.0), 3
    api.lives[ended] = api.lives[ended]._replace(duration_s=45.0)
    listed: list[str] = []
    position: str | None = None
    while True:
        jobs, position = api.page("processing", position, 50.0)
        listed += [job.id for job in jobs]
        if position is None:
            break
    assert listed == [f"render_{number}" for number in range(250, 0, -1) if number != ended]
    assert [job.id for job in api.page("queued", None, 50.0)[0]] == [f"render_{young}"]
    assert api.job(ended, 50.0).is_terminal


@pytest.mark.parametrize(("duration_s", "count"), [(0.5, 1), (2.0, 1), (2.1, 2), (60.0, 30)])
def test_who_asks_every_two_seconds_reads_so_often(duration_s: float, count: int) -> None:
    assert polls(duration_s, 2.0) == count


def simulated(in_flight: int, long_polls: int) -> Any:
    chance = random.Random(1)
    plan = Plan(reads.READS_PER_MINUTE, long_polls)
    simulation = Simulation(plan, in_flight, lambda: chance.uniform(40, 60), chance=random.Random(2))
    return simulation.run(60.0, 60.0), plan


def test_the_planner_sees_every_end_and_many_jobs_share_a_page() -> None:
    told, plan = simulated(300, 40)
    assert len(plan) == 300
    assert told.ends == pytest.approx(300 * 60 / 50, rel=0.3)
    assert told.reads >= told.ends
    assert told.pages > 0
    assert told.beyond < told.recipe_beyond / 10


def test_few_jobs_are_held_until_their_end() -> None:
    told, _ = simulated(5, 40)
    assert told.pages == 0
    assert max(told.delays_s) < 0.5
