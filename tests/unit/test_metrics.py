"""The collector over a room with a record in each state; the dashboard and the alert rules against what it tells."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families

from framelane_celery import metrics, orphans
from framelane_celery.client.calls import endpoint_of
from framelane_celery.counting import key_of
from framelane_celery.errors import RoomError
from framelane_celery.metrics import census as census_module
from framelane_celery.metrics.census import DISTINCT_MAX, Census, Names, count_records
from framelane_celery.metrics.names import COUNTERS, GAUGES, HISTOGRAMS, SOURCES, WHY
from framelane_celery.operations import room_for
from framelane_celery.room import Room
from framelane_celery.settings import settings_of
from framelane_celery.watching.plan import Source
from tests.cli.rooms import fill, make_app, make_letter, make_record

ROOT = Path(__file__).parents[2]

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def parsed(text: str) -> Samples:
    """Samples by name and labels, without the namespace's."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "room_namespace"))
            assert sample.labels["room_namespace"] == "shop"
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    with make_app(tmp_path) as app:
        yield app
        room_for(app).close()


@pytest.fixture
def room(app: Celery) -> Room:
    room = room_for(app)
    fill(room)
    return room


def fill_counts(room: Room) -> None:
    """One of each counter and histogram."""
    for name, metric in COUNTERS.items():
        room.add_counts({key_of(name, *("x" for _ in metric.labels)): 3.0})
    for name, metric in HISTOGRAMS.items():
        labels = tuple("x" for _ in metric.labels)
        spans = {key_of(f"{name}_bucket", *labels, bound): 1.0 for bound in ("0.5", "2.5", "+Inf")}
        room.add_counts({**spans, key_of(f"{name}_sum", *labels): 10000.0})


def waiting(samples: Samples) -> dict[tuple[str, str, str], float]:
    return {
        (found["until"], found["queue"], found["code"]): number
        for labels, number in samples["framelane_tasks_waiting"].items()
        for found in [dict(labels)]
    }


# --- what the room knows -----------------------------------------------------------------------------------------


def test_what_waits_is_told_by_until_queue_and_code(app: Celery, room: Room) -> None:
    for n, code in enumerate(("internal", "task_0f3a9")):
        failure = {"code": code, "message": "oops"}
        room.create(
            make_record(f"own-{n}", "instant", queue="films", retry_queue=["films.retry", None][n], failure=failure)
        )
    samples = parsed(metrics.text(app))
    assert waiting(samples) == {
        ("start", "celery", "none"): 2, ("slot", "celery", "none"): 2, ("job", "celery", "none"): 1,
        ("instant", "celery", "internal"): 1, ("instant", "celery", "none"): 1,
        ("instant", "films.retry", "internal"): 1, ("instant", "films", "other"): 1,
        ("release", "celery", "quota_exceeded"): 1, ("release", "celery", "source_not_found"): 1,
        ("running", "celery", "none"): 1, ("replacing", "celery", "none"): 1,
    }  # fmt: skip
    letters = {dict(labels)["code"]: n for labels, n in samples["framelane_dead_letters"].items()}
    assert letters == {"source_not_found": 2, "outcome_unknown": 1, "codec_unsupported": 1}
    assert samples["framelane_holds"] == {(("account", "default"), ("code", "quota_exceeded")): 1.0}
    assert samples["framelane_oldest_letter_seconds"][()] == pytest.approx(90, abs=30)
    assert samples["framelane_watcher_leads"] == {(): 0.0}
    assert samples["framelane_up"] == {(): 1.0}


def test_who_leads_and_what_is_overdue(app: Celery, room: Room) -> None:
    room.create(make_record("late", "job", due_at=time.time() - 500, job_id="render_9"))
    assert room.lead("w1", 60) is not None
    samples = parsed(metrics.text(app))
    assert samples["framelane_watcher_leads"] == {(): 1.0}
    assert samples["framelane_overdue"] == {(("lane", "clock"),): 0.0, (("lane", "look"),): 1.0}
    assert samples["framelane_oldest_due_seconds"][(("lane", "look"),)] == pytest.approx(500, abs=60)


def test_a_room_that_is_away_is_told_and_no_error(tmp_path: Path) -> None:
    with make_app(tmp_path) as app:
        app.conf.framelane = {**app.conf.framelane, "room_url": "redis://127.0.0.1:1/0"}
        assert parsed(metrics.text(app))["framelane_up"] == {(): 0.0}


# --- what processes have counted ---------------------------------------------------------------------------------


def test_what_was_counted_is_told(app: Celery, room: Room) -> None:
    fill_counts(room)
    samples = parsed(metrics.text(app))
    for name, metric in COUNTERS.items():
        labels = tuple(sorted((label, "x") for label in metric.labels))
        assert samples[f"framelane_{name}_total"][labels] == 3.0, name
    for name, metric in HISTOGRAMS.items():
        buckets = {dict(labels)["le"]: number for labels, number in samples[f"framelane_{name}_bucket"].items()}
        assert (buckets["0.1"], buckets["0.5"], buckets["1.0"], buckets["2.5"], buckets["+Inf"]) == (0, 1, 1, 2, 3)
        labels = tuple(sorted((label, "x") for label in metric.labels))
        assert samples[f"framelane_{name}_count"][labels] == 3.0
        assert samples[f"framelane_{name}_sum"][labels] == 10000.0


def test_what_another_version_counted_is_left_away(app: Celery, room: Room) -> None:
    room.add_counts(
        {key_of("unheard_of", "x"): 1.0, key_of("submissions", "render"): 1.0, key_of("looks", "read"): 2.0}
    )
    text = metrics.text(app)
    assert "unheard_of" not in text
    samples = parsed(text)
    assert "framelane_submissions_total" not in samples
    assert samples["framelane_looks_total"][(("way", "read"),)] == 2.0


def test_what_may_be_alarmed_about_begins_at_zero(app: Celery, room: Room) -> None:
    """Prometheus sees no increase in what is first told at 1."""
    samples = parsed(metrics.text(app))
    assert set(samples["framelane_job_ends_total"].values()) == {0.0}
    assert {dict(labels)["source"] for labels in samples["framelane_job_ends_total"]} == set(get_args(Source)) - {
        "first"
    }
    assert set(SOURCES) == set(get_args(Source)) - {"first"}
    assert set(WHY) == {"adopted", *orphans.WHY}
    assert samples["framelane_resends_total"] == {(): 0.0}


# --- labels ------------------------------------------------------------------------------------------------------


def test_no_label_is_an_id_or_a_secret(app: Celery, room: Room) -> None:
    fill_counts(room)
    room.create(make_letter("letter-of-mine", "X-Signature=s3cr3t"))
    text = metrics.text(app)
    for secret in ("s3cr3t", "render_", "letter-of-mine", "0b5ed2a6", "fl_test_key", "shoe.mp4"):
        assert secret not in text
    names = {label for table in (GAUGES, COUNTERS, HISTOGRAMS) for metric in table.values() for label in metric.labels}
    assert names == {
        "until", "queue", "code", "account", "lane", "kind", "outcome", "source", "action", "task", "way", "method",
        "endpoint", "status", "why",
    }  # fmt: skip


def test_names_that_users_choose_are_bounded() -> None:
    records = [
        replace(make_record(str(n), "start"), account=f"customer-{n}", queue=f"queue-{n}")
        for n in range(DISTINCT_MAX + 9)
    ]
    numbers = count_records(records, lambda record: record.queue or "", Names(), Names())
    assert len(numbers.waiting) == DISTINCT_MAX + 1
    assert numbers.waiting["start", "other", "none", "other"] == 9


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v1/renders", "/v1/renders"),
        ("/v1/renders/render_01", "/v1/renders/{id}"),
        ("/v1/tasks/task_01/download", "/v1/tasks/{id}/download"),
        ("/v1/tasks/remove-background", "/v1/tasks/remove-background"),
        ("/v1/tasks/task_01/else", "other"),
        ("/v2/anything", "other"),
    ],
)
def test_a_path_is_a_label_without_its_id(path: str, endpoint: str) -> None:
    assert endpoint_of(path) == endpoint


def test_no_name_is_celery_exporters_or_flowers() -> None:
    assert not any(name.startswith(("celery", "flower")) for name in (*GAUGES, *COUNTERS, *HISTOGRAMS))


# --- the census --------------------------------------------------------------------------------------------------


class SlowRoom:
    """A room whose census waits for the test."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.scans = 0

    def scan(self, *, lean: bool) -> Iterator[Any]:
        assert lean
        self.scans += 1
        assert self.may_go_on.wait(30)
        yield make_record("1", "start")


def test_a_scrape_waits_for_no_long_census(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census_module, "PATIENCE_S", 0.01)
    room = SlowRoom()
    census = Census(lambda: room, lambda record: "q")  # type: ignore[arg-type,return-value]
    assert census.latest() is None
    assert census.latest() is None
    assert room.scans == 1  # two scrapes, one census
    room.may_go_on.set()
    monkeypatch.setattr(census_module, "PATIENCE_S", 30)
    thread = census._thread
    if thread is not None:
        thread.join(30)
    numbers = census.latest()
    assert numbers is not None
    assert numbers.waiting == {("start", "q", "none", "default"): 1}


def test_a_census_rests_for_some_times_as_long_as_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    room = SlowRoom()
    room.may_go_on.set()
    now = [100.0]
    monkeypatch.setattr(census_module.time, "monotonic", lambda: now[0])
    census = Census(lambda: room, lambda record: (now.__setitem__(0, now[0] + 4.0), "q")[1])  # type: ignore[arg-type,return-value]
    assert census.latest() is not None  # took 4 s
    now[0] += 19.9
    census.latest()
    assert room.scans == 1
    now[0] += 0.2
    census.latest()
    assert room.scans == 2


def test_a_census_that_fails_leaves_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census_module, "FRESH_S", 0.0)
    room = SlowRoom()
    room.may_go_on.set()
    census = Census(lambda: room, lambda record: "q")  # type: ignore[arg-type,return-value]
    first = census.latest()
    room.scan = lambda *, lean: (_ for _ in ()).throw(RoomError("away"))  # type: ignore[method-assign]
    assert census.latest() is first is not None


# --- serving -----------------------------------------------------------------------------------------------------


def test_it_answers_over_http(app: Celery, room: Room) -> None:
    serving = metrics.serve(app, 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{serving.port}/metrics", timeout=30) as answer:
            assert waiting(parsed(answer.read().decode()))["job", "celery", "none"] == 1
    finally:
        serving.close()


def test_a_port_that_is_taken_is_one_warning(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        app.conf.framelane = {**app.conf.framelane, "metrics_port": taken.getsockname()[1]}
        metrics.expose(app, settings_of(app))
    (line,) = caplog.records
    assert line.levelname == "WARNING"
    assert f"port {app.conf.framelane['metrics_port']} of 127.0.0.1 cannot be used" in line.getMessage()


def test_a_process_that_is_forked_later_does_not_keep_the_port(app: Celery) -> None:
    """A pool process that outlives its worker would else keep the next worker from answering."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app.conf.framelane = {**app.conf.framelane, "metrics_port": port}
    serving = metrics.expose(app, settings_of(app))
    assert serving is not None
    try:
        pid = os.fork()
        if pid == 0:
            os._exit(serving.server.socket.fileno() != -1)
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        serving.close()


def test_without_a_port_nothing_is_imported(tmp_path: Path) -> None:
    code = "import sys, framelane_celery.watching.step; sys.exit('prometheus_client' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_the_library_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    code = """
import logging, pathlib, sys
logging.basicConfig()
sys.modules["prometheus_client"] = None
from framelane_celery import metrics
from framelane_celery.settings import settings_of
from tests.cli.rooms import make_app
app = make_app(pathlib.Path(sys.argv[1]), metrics_port=9108)
metrics.expose(app, settings_of(app))
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert "no metrics: metrics need prometheus_client: pip install 'framelane-celery[metrics]'" in done.stderr


# --- the dashboard and the alert rules ---------------------------------------------------------------------------

PROMTOOL = shutil.which("promtool")


@pytest.fixture
def promtool(tmp_path: Path) -> Any:
    if PROMTOOL is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is missing: .ci/run unpacks it")
        pytest.skip("promtool is missing; on Debian it comes with the package prometheus")

    def run(*words: str) -> str:
        done = subprocess.run([PROMTOOL, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def expressions() -> list[str]:
    """All of the dashboard's, with its variable filled in."""
    panels = json.loads(metrics.dashboard())["panels"]
    found = [target["expr"].replace("$room_namespace", "shop") for panel in panels for target in panel["targets"]]
    assert len(found) > 20
    return found


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bframelane_\w+", text))


def test_every_metric_of_the_dashboard_and_the_rules_is_told(app: Celery, room: Room) -> None:
    fill_counts(room)
    told = set(parsed(metrics.text(app)))
    assert names_in(" ".join(expressions())) <= told
    assert names_in(metrics.alert_rules()) <= told


def test_every_metric_is_on_the_dashboard() -> None:
    shown = names_in(" ".join(expressions()))
    for name in (*GAUGES, *(f"{name}_total" for name in COUNTERS), *(f"{name}_bucket" for name in HISTOGRAMS)):
        assert f"framelane_{name}" in shown


def test_prometheus_can_read_the_dashboard(promtool: Any, tmp_path: Path) -> None:
    rules = [{"record": f"dashboard:{n}", "expr": expr} for n, expr in enumerate(expressions())]
    (tmp_path / "dashboard.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", "dashboard.yml")


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(metrics.dashboard())["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


HEALTHY = {
    "framelane_up": "1+0x200",
    "framelane_watcher_leads": "1+0x200",
    'framelane_oldest_due_seconds{lane="look"}': "1+0x200",
    'framelane_job_ends_total{source="hint"}': "0+60x200",
    'framelane_job_ends_total{source="long_poll"}': "0+1x200",
    'framelane_dead_letters{code="internal",account="default"}': "3+0x200",
    "framelane_oldest_letter_seconds": "600+0x200",
    'framelane_orphans_total{why="adopted"}': "0+0x200",
    'framelane_orphans_total{why="no_record"}': "0+1x200",
    "framelane_resends_total": "0+0x200",
    "framelane_lost_runs_total": "0+0x200",
    'framelane_resume_seconds_bucket{kind="render",le="0.5"}': "0+58x200",
    'framelane_resume_seconds_bucket{kind="render",le="300.0"}': "0+60x200",
    'framelane_resume_seconds_bucket{kind="render",le="+Inf"}': "0+60x200",
    'framelane_http_requests_total{method="GET",endpoint="/v1/renders/{id}",status="200"}': "0+60x200",
    'framelane_http_requests_total{method="GET",endpoint="/v1/renders/{id}",status="503"}': "0+1x200",
}
"""A sample a minute, for three hours."""

FIRES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "FramelaneRoomAway": ({"framelane_up": "0+0x200"}, {}),
    "FramelaneNobodyWatches": ({"framelane_watcher_leads": "0+0x200"}, {}),
    "FramelaneOverdue": ({'framelane_oldest_due_seconds{lane="look"}': "0+60x200"}, {"lane": "look"}),
    "FramelaneWebhookDead": ({
        'framelane_job_ends_total{source="hint"}': "0+60x100 6000+0x100",
        'framelane_job_ends_total{source="long_poll"}': "0+60x200",
    }, {}),
    "FramelaneDeadLettersGrow": ({'framelane_dead_letters{code="internal",account="default"}': "0+1x200"}, {}),
    "FramelaneDeadLetterForgotten": ({"framelane_oldest_letter_seconds": "90000+60x200"}, {}),
    "FramelaneHold": (
        {'framelane_holds{code="quota_exceeded",account="default"}': "1+0x200"},
        {"account": "default", "code": "quota_exceeded"},
    ),
    "FramelaneOrphans": ({'framelane_orphans_total{why="adopted"}': "0+0x170 7+0x30"}, {}),
    "FramelaneWakeUpsLost": ({"framelane_resends_total": "0+2x200"}, {}),
    "FramelaneRunsDie": ({"framelane_lost_runs_total": "0+2x200"}, {}),
    "FramelaneSlowResume": ({'framelane_resume_seconds_bucket{kind="render",le="0.5"}': "0+1x200"}, {}),
    "FramelaneApiFails": ({
        'framelane_http_requests_total{method="GET",endpoint="/v1/renders/{id}",status="503"}': "0+60x200",
    }, {}),
}  # fmt: skip
"""By alert: what is other than in health, and the labels that it fires with."""

EVAL = "3h5m"


def series(values: dict[str, str]) -> list[dict[str, str]]:
    """Of two workers that answer, so that nothing is counted twice."""
    found = []
    for name, numbers in values.items():
        metric, _, labels = name.rstrip("}").partition("{")
        for instance in ("a:9108", "b:9108"):
            inside = ",".join(filter(None, [labels, 'room_namespace="shop"', f'instance="{instance}"']))
            found.append({"series": f"{metric}{{{inside}}}", "values": numbers})
    return found


def rule_names() -> list[str]:
    return re.findall(r"- alert: (\w+)", metrics.alert_rules())


def test_prometheus_can_read_the_rules(promtool: Any, tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(metrics.alert_rules())
    assert f"{len(FIRES)} rules found" in promtool("check", "rules", "alerts.yml")


def test_every_rule_has_a_case() -> None:
    assert sorted(FIRES) == sorted(rule_names())


@pytest.mark.parametrize("alert", [*FIRES, None])
def test_an_alert_fires_when_it_should_and_no_other_does(promtool: Any, tmp_path: Path, alert: str | None) -> None:
    changed, labels = FIRES[alert] if alert else ({}, {})
    severity = "critical" if alert in ("FramelaneRoomAway", "FramelaneNobodyWatches") else "warning"
    fired = [{"exp_labels": {"severity": severity, "room_namespace": "shop", **labels}}]
    tests = [
        {"alertname": name, "eval_time": EVAL, "exp_alerts": fired if name == alert else []} for name in rule_names()
    ]
    case = {"interval": "1m", "input_series": series({**HEALTHY, **changed}), "alert_rule_test": tests}
    # Annotations would have to be given word by word: they are left away, and were checked above.
    rules = re.sub(r"(?m)^        annotations:\n(          .*\n)+", "", metrics.alert_rules())
    (tmp_path / "rules.yml").write_text(rules)
    (tmp_path / "test.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": [case]}))
    promtool("test", "rules", "test.yml")
