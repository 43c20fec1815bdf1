"""FramelaneTask without a worker: calls in place, calls on commit, what importing and binding do, `after_return`.

The run in a worker is attacked in tests/worker and tests/faults.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, chain, group, shared_task

import framelane_celery as framelane
from framelane_celery import (
    FramelaneTask,
    InvalidArguments,
    JobCancelled,
    JobFailed,
    JobTimedOut,
    RenderRequest,
    errors,
)
from framelane_celery.errors import FramelaneError, SettingsError, TransportError, error_for
from framelane_celery.records import Record, begin, finish
from framelane_celery.room import room_of
from framelane_celery.routing import DeadLetter, Fail, Hold, Retry
from framelane_celery.settings import settings_of
from framelane_celery.tasks.jobs import error_of, failure_of_job, failure_of_refusal
from framelane_celery.tasks.routes import decide, lost
from framelane_celery.tasks.run import WorkerRun
from framelane_celery.testing import Cancelled, Completed, Failed, FramelaneServer, Never, Submission, Switches
from framelane_celery.wakeups import Call

ROOT = Path(__file__).parents[2]
COMPOSITION: dict[str, Any] = {"elements": [{"type": "text", "text": "hello", "duration": 2}]}


def ending(how: str) -> dict[str, Any]:
    return {**COMPOSITION, "metadata": {"outcome": how}}


def outcome(submission: Submission) -> Any:
    wanted = submission.metadata.get("outcome")
    return {"fail": Failed("source_gone"), "cancel": Cancelled(), "never": Never()}.get(wanted or "", Completed())


@pytest.fixture
def server() -> Iterator[FramelaneServer]:
    with FramelaneServer(job_seconds=0.1, outcome=outcome) as running:
        yield running


def make_app(server: FramelaneServer | None, **settings: Any) -> Celery:
    app = Celery(f"unit-{uuid4().hex[:6]}", set_as_current=False, broker="memory://", backend="cache+memory://")
    app.conf.framelane = {
        "api_key": "fl_test_key",
        **({"base_url": server.base_url} if server else {}),
        **settings,
    }
    return app


@pytest.fixture
def app(server: FramelaneServer) -> Iterator[Celery]:
    app = make_app(server)
    yield app
    app.close()


# --- in place ----------------------------------------------------------------------------------------------------


def test_a_direct_call_submits_and_looks_to_the_end(app: Celery, server: FramelaneServer) -> None:
    """celery_facts row 11: on a direct call request.id is None; no record, no room."""
    job = app.tasks["framelane.render"](COMPOSITION)
    assert job["status"] == "completed"
    assert job["metadata"]["celery_task"] == "framelane.render"
    assert server.ledger.counts()["jobs"] == 1


def test_apply_has_the_job_as_its_result(app: Celery, server: FramelaneServer) -> None:
    """celery_facts row 11: state IGNORED and None without the remedy."""
    result = app.tasks["framelane.render"].apply((COMPOSITION,))
    assert (result.state, result.get()["status"]) == ("SUCCESS", "completed")
    assert server.ledger.jobs_per_task() == {result.id: [result.get()["id"]]}


def test_eager_mode_runs_a_whole_canvas(app: Celery, server: FramelaneServer) -> None:
    """celery_facts row 11: Celery 5.5 passes None down a chain without the remedy."""
    app.conf.task_always_eager = True
    render, transcribe = app.tasks["framelane.render"], app.tasks["framelane.transcribe"]
    chained = chain(render.s(COMPOSITION), transcribe.s(language="en")).apply_async()
    assert chained.get()["task_type"] == "transcribe"
    assert len(group(render.s(COMPOSITION) for _ in range(2)).apply_async().get()) == 2
    assert server.ledger.counts()["jobs"] == 4


def test_a_task_of_the_users_own_in_place(app: Celery) -> None:
    @app.task(base=FramelaneTask, bind=True, name="unit.own", shared=False)
    def own(self: Any, text: str, *, loud: bool = False) -> RenderRequest:
        return RenderRequest.model_validate(COMPOSITION)

    own.completed = lambda job, text, loud=False: (job.status, text, loud)
    assert own("x", loud=True) == ("completed", "x", True)
    assert own.apply(("x",)).get() == ("completed", "x", False)


@pytest.mark.parametrize(("how", "error"), [("fail", JobFailed), ("cancel", JobCancelled)])
def test_a_job_that_fails_in_place_raises_its_error(app: Celery, how: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        app.tasks["framelane.render"](ending(how))
    result = app.tasks["framelane.render"].apply((ending(how),))
    assert result.state == "FAILURE"
    assert isinstance(result.result, error)


def test_the_deadline_holds_in_place_also_without_wait() -> None:
    with FramelaneServer(outcome=outcome, switches=Switches(has_wait=False)) as server:
        app = make_app(server, deadline_s=0.6)
        started = time.monotonic()
        with pytest.raises(JobTimedOut):
            app.tasks["framelane.render"](ending("never"))
        assert time.monotonic() - started < 30  # the server would let it wait for ever
        assert len(server.ledger.reads()) <= 4
        app.close()


@pytest.mark.parametrize("call", ["direct", "apply", "eager"])
def test_calls_in_place_refuse_the_live_host(call: str) -> None:
    app = make_app(None)
    render = app.tasks["framelane.render"]
    app.conf.task_always_eager = call == "eager"
    calls = {
        "direct": lambda: render(COMPOSITION),
        "apply": lambda: render.apply((COMPOSITION,)).get(),
        "eager": lambda: render.delay(COMPOSITION).get(),
    }
    with pytest.raises(SettingsError, match="allow_live_eager"):
        calls[call]()
    app.close()


def test_bad_arguments_in_place_cost_nothing(app: Celery, server: FramelaneServer) -> None:
    with pytest.raises(InvalidArguments, match="elements"):
        app.tasks["framelane.render"]({"elements": 7})
    assert len(server.ledger) == 0


# --- on commit ---------------------------------------------------------------------------------------------------


def test_on_commit_without_django_says_what_it_needs(app: Celery) -> None:
    with pytest.raises(FramelaneError, match="DJANGO_SETTINGS_MODULE"):
        app.tasks["framelane.render"].delay_on_commit(COMPOSITION)


def python(code: str, **env: str) -> Any:
    """Run code in a fresh interpreter; the last line that it prints is JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_on_commit_in_django_returns_the_id_now_and_publishes_after_the_commit(tmp_path: Path) -> None:
    """celery_facts, "DjangoTask": a base derived from Task loses delay_on_commit."""
    code = f"""
import json, sys, types
settings = types.ModuleType("on_commit_settings")
settings.DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}}
settings.INSTALLED_APPS, settings.SECRET_KEY, settings.USE_TZ = [], "x", True
sys.modules["on_commit_settings"] = settings
from celery import Celery
import framelane_celery as framelane
app = Celery("shop", broker="memory://", backend="cache+memory://")
app.conf.framelane = {{"room_url": "sqlite:///{tmp_path}/room.sqlite", "api_key": "fl_test_key"}}
import django; django.setup()
from django.db import transaction
from framelane_celery.room import room_of
from framelane_celery.settings import settings_of
room = room_of(app, settings_of(app))
seen = []
with transaction.atomic():
    first = framelane.render.delay_on_commit({COMPOSITION!r})
    second = framelane.render.apply_async_on_commit(({COMPOSITION!r},), task_id="product-42", queue="renders")
    seen.append([room.read(r.id)[0] is None for r in (first, second)])
seen.append([room.read(r.id)[0].until for r in (first, second)])
try:
    with transaction.atomic():
        gone = framelane.render.delay_on_commit({COMPOSITION!r})
        raise KeyError
except KeyError:
    pass
seen.append(room.read(gone.id)[0] is None)
@app.task(base=framelane.FramelaneTask, name="shop.own")
def own(product_id):
    pass
for task, bad in ((framelane.render, (7,)), (own, (1, 2))):
    try:
        with transaction.atomic():
            task.delay_on_commit(*bad)
            seen.append("not refused")
    except (framelane.InvalidArguments, TypeError) as error:
        seen.append(type(error).__name__)
print(json.dumps([seen, second.id]))
"""
    seen, second = python(code, DJANGO_SETTINGS_MODULE="on_commit_settings")
    assert seen == [[True, True], ["start", "start"], True, "InvalidArguments", "TypeError"]
    assert second == "product-42"


# --- importing and binding ---------------------------------------------------------------------------------------


def test_importing_does_nothing() -> None:
    """House style §6.1: no Django, no HTTP, no thread, no environment, no app of ours."""
    code = """
import json, os, sys, threading
import celery.app.task, celery.canvas, celery.result, celery.worker.request, kombu.utils.json  # kombu looks for Django
before = set(sys.modules), threading.active_count()
touched = []
def audit(event, args):
    if event in ("socket.connect", "socket.__new__", "subprocess.Popen") or (
        event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    ):
        touched.append([event, str(args[0])])
sys.addaudithook(audit)
class Environ(type(os.environ)):
    def __getitem__(self, key):
        if key.startswith(("FRAMELANE", "DJANGO")):
            touched.append(key)
        return super().__getitem__(key)
os.environ.__class__ = Environ
import framelane_celery
new = set(sys.modules) - before[0]
heavy = [name for name in ("django", "sqlalchemy", "redis", "requests", "werkzeug", "rich") if name in new]
touched = [t for t in touched if not (isinstance(t, list) and t[1].endswith(("pyc",)) or ".pyc" in str(t))]
print(json.dumps([heavy, touched, threading.active_count() - before[1], celery._state.default_app is None]))
"""
    heavy, touched, threads, no_app = python(code)
    assert heavy == []
    assert touched == []
    assert threads == 0
    assert no_app


def test_binding_a_task_installs_the_watcher_in_workers() -> None:
    """celery_facts, "Bootsteps": on_bound only adds the step, and twice is once."""
    app = make_app(None)
    assert app.tasks["framelane.render"].app is app
    names = [step if isinstance(step, str) else step.__module__ for step in app.steps["worker"]]
    assert [name for name in names if name.startswith("framelane_celery.watching")] == names
    assert len(names) == 1
    app.close()


@pytest.mark.parametrize("conf", ["namespace", "lower", "update"])
def test_where_settings_may_stand(conf: str) -> None:
    """celery_facts, "Config": unset is no AttributeError; `conf` stays a plain dict."""
    app = Celery("somewhere", set_as_current=False, broker="redis://localhost/0")
    assert settings_of(app).namespace == "somewhere"
    values = {"namespace": "mine"}
    if conf == "namespace":
        app.config_from_object(
            {"CELERY_FRAMELANE": values, "CELERY_BROKER_URL": "redis://localhost/0"}, namespace="CELERY"
        )
    elif conf == "lower":
        app.config_from_object({"framelane": values, "broker_url": "redis://localhost/0"})
    else:
        app.conf.update(framelane=values)
    assert settings_of(app).namespace == "mine"
    assert type(app.conf.framelane) is dict
    app.close()


# --- the end of a run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["own", "calls super", "mixin"])
@pytest.mark.parametrize("raises", [False, True])
def test_the_users_own_after_return_runs_and_the_record_still_ends(tmp_path: Path, shape: str, raises: bool) -> None:
    """Only after_return ends a record (celery_facts row 6b): an override may not lose that."""
    seen: list[str] = []

    def note(status: str) -> None:
        seen.append(status)
        if raises:
            raise LookupError("a bug of the user's")

    class Own(FramelaneTask):
        abstract = True

        def after_return(self, *args: Any) -> None:
            if shape == "calls super":
                super().after_return(*args)
            note(args[0])

    class Mixin:
        def after_return(self, *args: Any) -> None:
            note(args[0])

    class Mixed(Mixin, FramelaneTask):
        abstract = True

    app = make_app(None, room_url=f"sqlite:///{tmp_path}/room.sqlite")

    @app.task(base=Mixed if shape == "mixin" else Own, name="unit.ends", shared=False)
    def task() -> RenderRequest:
        return RenderRequest.model_validate(COMPOSITION)

    room = room_of(app, settings_of(app))
    room.create(Record(id="one", task=task.name, call="", digest=""))
    old, now = room.read("one")
    assert old is not None
    task.push_request(id="one")
    run = WorkerRun(app.tasks[task.name], task.request)
    begun = begin(old, step=0, run_id=run.run_id, node="w", now=now, lease_s=60)
    assert begun is not None
    assert room.save(old, begun) == "saved"
    run.record = begun
    task.request.framelane_run = run
    if raises:
        with pytest.raises(LookupError):
            task.after_return("SUCCESS", None, "one", (), {}, None)
    else:
        task.after_return("SUCCESS", None, "one", (), {}, None)
    ended, _ = room.read("one")
    assert ended is not None
    assert ended.until == "done"
    assert seen == ["SUCCESS"]
    assert finish(ended, run_id=run.run_id, now=now) is None
    task.pop_request()
    app.close()


# --- what becomes of a failure -----------------------------------------------------------------------------------

SIGNED = "https://x.io/a.mp4?signature=sesame"
HISTORY = (
    {"attempt": 1, "job_id": "render_1", "outcome": "failed", "at": 5.0, "code": "internal"},
    {"attempt": 2, "job_id": "render_2", "outcome": "failed", "at": 9.0, "code": "invalid_source"},
)


@pytest.mark.parametrize(
    ("outcome", "job", "failure"),
    [
        ("failed", {"error": {"code": "internal", "message": "It broke."}}, ("internal", "It broke.")),
        ("failed", {"error": {"code": "x", "message": f"404 at {SIGNED}"}}, ("x", "404 at https://x.io/a.mp4?…")),
        ("failed", {"error": {"code": None, "message": None}}, ("unknown", "no reason given")),
        ("failed", {"error": None}, ("unknown", "no reason given")),
        ("failed", None, ("unknown", "no reason given")),
        ("cancelled", {"error": {"code": "x"}}, ("cancelled", "the job was cancelled")),
        ("timed_out", None, ("timed_out", "the job did not end before its deadline")),
        ("not_found", None, ("not_found", "the job is gone")),
        ("worker_lost", None, ("worker_lost", "every run of the task died: see the workers' logs")),
    ],
)
def test_the_failure_of_a_job(outcome: Any, job: dict[str, Any] | None, failure: tuple[str, str]) -> None:
    assert failure_of_job(outcome, job) == {"code": failure[0], "message": failure[1]}


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (error_for(422, "invalid_source", f"No: {SIGNED}"), {"code": "invalid_source", "status": 422}),
        (error_for(402, None, "Spent."), {"code": "quota_exceeded", "status": 402}),
        (error_for(418, None, "Tea."), {"code": "http_418", "status": 418}),
        (JobFailed("Too much.", None, "spend_guard"), {"code": "spend_guard"}),
        (JobFailed("Who knows.", None, "outcome_unknown"), {"code": "outcome_unknown"}),
        (InvalidArguments("width: no", "width"), {"code": "invalid_request", "field": "width"}),
        (TransportError(f"no answer: {SIGNED}"), {"code": "outcome_unknown", "field": None}),
    ],
)
def test_the_failure_of_a_submission(error: FramelaneError, failure: dict[str, Any]) -> None:
    found = failure_of_refusal(error)
    assert {name: value for name, value in found.items() if name != "message"} == failure
    assert "sesame" not in found["message"]


def ended(outcome: Any, failure: dict[str, Any] | None, job_id: str | None = "render_2", **fields: Any) -> Record:
    values = {"outcome": outcome, "failure": failure, "job_id": job_id, "history": HISTORY, **fields}
    return Record(id="t", task="x", call="", digest="", **values)


@pytest.mark.parametrize(
    ("record", "error"),
    [
        (
            ended("failed", {"code": "internal", "message": "It broke."}),
            JobFailed("job render_2 failed: It broke.", "render_2", "internal", HISTORY),
        ),
        (
            ended("failed", {"code": "invalid_source", "message": "No.", "status": 422}, None),
            errors.InvalidSource("No.", 422, "invalid_source", None, HISTORY),
        ),
        (
            ended("failed", {"code": "http_418", "message": "Tea.", "status": 418}, None),
            errors.ApiError("Tea.", 418, "http_418", None, HISTORY),
        ),
        (
            ended("failed", {"code": "quota_exceeded", "message": "Spent."}, None),  # held for as long as it may be
            JobFailed("Spent.", None, "quota_exceeded", HISTORY),
        ),
        (
            ended("failed", {"code": "invalid_request", "message": "width: no", "field": "width"}, None),
            InvalidArguments("width: no", "width"),
        ),
        (
            ended("outcome_unknown", {"code": "outcome_unknown", "message": "Who knows.", "field": None}, None),
            JobFailed("Who knows.", None, "outcome_unknown", HISTORY),
        ),
        (
            ended("cancelled", failure_of_job("cancelled", None)),
            JobCancelled("job render_2 was cancelled", "render_2", HISTORY),
        ),
        (
            ended("timed_out", failure_of_job("timed_out", None)),
            JobTimedOut("job render_2 did not end before its deadline", "render_2", HISTORY),
        ),
        (
            ended("worker_lost", failure_of_job("worker_lost", None)),
            JobFailed("every run of the task died: see the workers' logs", "render_2", "worker_lost", HISTORY),
        ),
        (
            ended("failed", None, job={"error": {"code": "x", "message": "Of an older release."}}),
            JobFailed("job render_2 failed: Of an older release.", "render_2", "x", HISTORY),
        ),
    ],
)
def test_the_error_in_which_a_record_ends(record: Record, error: FramelaneError) -> None:
    found = error_of(record)
    assert (type(found), found.args) == (type(error), error.args)


ROOM = {"room_url": "sqlite:///not-opened.sqlite"}


@pytest.fixture
def routed() -> Iterator[Celery]:
    app = make_app(None, **ROOM, namespace="shop", routes=[{"code": "b", "action": "hold"}, {"action": "fail"}])

    @app.task(base=FramelaneTask, name="unit.routed", shared=False)
    def task() -> RenderRequest:
        return RenderRequest.model_validate(COMPOSITION)

    yield app
    app.close()


def record_for(app: Celery, name: str = "unit.routed", options: dict[str, Any] | None = None, **fields: Any) -> Record:
    call = Call(name, [], {}, options or {})
    return Record(id="t", task=name, call=call.to_text(), digest="d", **fields)


def test_a_tasks_own_rules_come_before_the_settings(routed: Celery) -> None:
    routed.tasks["unit.routed"].routes = [{"code": "a", "action": "dead_letter", "queue": "q"}]
    decisions = {code: decide(routed, settings_of(routed), record_for(routed), code) for code in ("a", "b", "c")}
    assert decisions["a"] == DeadLetter("q", False, {"code": "a", "action": "dead_letter", "queue": "q"})
    assert isinstance(decisions["b"], Hold)
    assert decisions["c"] == Fail()
    unknown = record_for(routed, "of.another.release")
    assert decide(routed, settings_of(routed), unknown, "a") == Fail()


def test_a_bad_rule_of_a_task_names_it(routed: Celery) -> None:
    routed.tasks["unit.routed"].routes = [{"code": "a", "action": "drop"}]
    with pytest.raises(SettingsError, match=r"^unit\.routed: routes\[0\]\.action: "):
        decide(routed, settings_of(routed), record_for(routed), "a")


@pytest.mark.parametrize(
    ("code", "options", "settings", "filled"),
    [
        ("internal", {}, {}, ("celery.retry",)),
        ("internal", {"queue": "renders"}, {}, ("renders.retry",)),
        ("internal", {"queue": "renders"}, {"retry_queue": "retries"}, ("retries",)),
        ("x", {}, {}, ("shop.dead",)),
        ("x", {}, {"dead_letter_queue": "letters"}, ("letters",)),
        ("operator", {}, {}, (35 * 86400,)),
        ("operator", {}, {"hold_max_s": 60}, (60,)),
        ("operator", {}, {"routes": [{"action": "hold", "hold_max_s": 5}]}, (5,)),
    ],
)
def test_a_decision_has_the_names_and_spans_of_the_settings(
    code: str, options: dict[str, Any], settings: dict[str, Any], filled: tuple[Any]
) -> None:
    app = make_app(None, **ROOM, namespace="shop", **settings)
    decision = decide(app, settings_of(app), record_for(app, "framelane.render", options), code)
    value = decision.max_s if isinstance(decision, Hold) else decision.queue
    assert (value,) == filled
    app.close()


def test_a_replay_has_a_budget_of_its_own_and_the_guard_a_cap() -> None:
    app = make_app(None, **ROOM, namespace="shop", spend_guard={"max_attempts": 2})
    settings = settings_of(app)
    first = record_for(app, "framelane.render")
    kinds = [
        type(decide(app, settings, record, "internal"))
        for record in (first, replace(first, attempt=2), replace(first, attempt=2, budget_from=2))
    ]
    assert kinds == [Retry, DeadLetter, Retry]
    app.close()


def test_a_lost_run_is_woken_again_before_the_routes_are_asked(routed: Celery) -> None:
    settings = settings_of(routed)
    dead = record_for(routed, until="running", due_at=10.0, run_id="r", run_node="n", begun=True)
    assert lost(routed, settings, dead, 9.0) is None
    assert lost(routed, settings, dead, 9.0, node="elsewhere") is None
    for again in (lost(routed, settings, dead, 11.0), lost(routed, settings, dead, 9.0, node="n")):
        assert again is not None
        assert (again.until, again.lost_runs, again.outcome) == ("start", 1, None)
    decided = lost(routed, settings, replace(dead, lost_runs=settings.max_lost_runs), 11.0)
    assert decided is not None
    assert (decided.outcome, decided.letter) == ("worker_lost", None)  # by the rule for all: fail


def test_what_a_user_must_not_lose_is_on_the_base() -> None:
    """celery_facts rows 4 and 5: both flags, or a paid job goes with its worker."""
    for name in ("render", "transcribe", "remove_background", "gaze_redirect", "super_resolution"):
        task = getattr(framelane, name)
        assert (task.acks_late, task.reject_on_worker_lost, task.track_started) == (True, True, False)
        assert framelane.JobError in task.throws


def test_shared_tasks_of_a_user_take_the_base() -> None:
    @shared_task(base=FramelaneTask, name="unit.shared")
    def shared() -> RenderRequest:
        return RenderRequest.model_validate(COMPOSITION)

    app = Celery("unit", broker="memory://", set_as_current=False)
    app.finalize(auto=True)
    assert isinstance(app.tasks["unit.shared"], FramelaneTask)
    assert app.tasks["unit.shared"].job_kind == "render"
