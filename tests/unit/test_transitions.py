"""What is told of a transition: one line of the log with its ids, and counts whose labels are bounded."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import framelane_celery
from framelane_celery import records, signals
from framelane_celery.monitoring import log, told, transitions
from framelane_celery.monitoring.transitions import action_of, code_label, job_ended_at
from framelane_celery.records import Record
from framelane_celery.routing import DeadLetter, Decision, Fail, Hold, Retry

SIGNED = "https://cdn.example.com/out.mp4?signature=sesame"
JOB = {"id": "render_1", "status": "processing", "output": {"url": SIGNED}}
NEW = Record(id="t1", task="framelane.render", call='{"args": ["sesame"]}', digest="d", created_at=1.0)


def begun(record: Record = NEW) -> Record:
    return records.begin(record, step=record.step, run_id="r", node="w", now=2.0, lease_s=60)  # type: ignore[return-value]


def accepted() -> Record:
    prepared = records.prepare(begun(), run_id="r", request="sesame", kind="render", now=2.0)
    assert prepared is not None
    return records.accept(prepared, run_id="r", job=JOB, kind="render", now=3.0, deadline_s=60)  # type: ignore[return-value]


def failed(decision: Decision, old: Record | None = None) -> tuple[Record, Record]:
    old = old or accepted()
    failure = {"code": "internal", "message": f"it broke at {SIGNED}"}
    new = records.fail(old, outcome="failed", failure=failure, decision=decision, now=9.0, resend_after_s=60, job=JOB)
    assert new is not None
    return old, new


LETTER = DeadLetter("n.dead", False, {})
WAITING_LETTER = DeadLetter("n.dead", True, {})


@pytest.mark.parametrize(
    ("decision", "action", "text"),
    [
        (Retry(5.0, "q.retry"), "retry", "job -> instant: internal, job render_1, attempt 2"),
        (Hold(60.0), "hold", "job -> release: internal, job render_1, attempt 2"),
        (LETTER, "dead_letter", "job -> start: internal, job render_1"),
        (WAITING_LETTER, "dead_letter", "job -> release: internal, job render_1"),
        (Fail(), "fail", "job -> start: internal, job render_1"),
    ],
)
def test_a_failure_is_told_by_what_the_routes_made_of_it(
    decision: Decision, action: str, text: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[Any, ...]] = []
    monkeypatch.setattr(transitions, "count", lambda *labels, **kwargs: counted.append(labels))
    old, new = failed(decision)
    assert action_of(old, new) == action
    with caplog.at_level(logging.INFO):
        told("shop", old, new, 9.0)
    (line,) = caplog.records
    assert line.getMessage() == f"framelane.render[t1]: {text}"
    assert ("routes", "internal", action) in counted
    assert ("job_outcomes", "render", "failed", "internal") in counted
    assert (line.levelname == "WARNING") == (decision == WAITING_LETTER)  # the other letter is none before its run


def test_each_transition_is_one_line_with_its_ids(caplog: pytest.LogCaptureFixture) -> None:
    job = accepted()
    done = records.complete(job, job={**JOB, "status": "completed"}, now=9.0, resend_after_s=60)
    assert done is not None
    second = begun(done)
    over = records.finish(second, run_id="r", now=10.0)
    assert over is not None
    steps: list[tuple[Record | None, Record]] = [
        (None, NEW), (NEW, begun()), (begun(), job), (job, done), (done, second), (second, over),
    ]  # fmt: skip
    with caplog.at_level(logging.INFO):
        for old, new in steps:
            told("shop", old, new, 10.0)
    assert [(line.was, line.until) for line in caplog.records] == [  # type: ignore[attr-defined]
        (None, "start"), ("start", "running"), ("running", "job"), ("job", "start"), ("start", "running"),
        ("running", "done"),
    ]  # fmt: skip
    assert [line.job_id for line in caplog.records] == [None, None, *["render_1"] * 4]  # type: ignore[attr-defined]
    assert {line.task_id for line in caplog.records} == {"t1"}  # type: ignore[attr-defined]
    assert "sesame" not in "".join(str(vars(line)) for line in caplog.records)


def test_what_says_nothing_new_is_no_line(caplog: pytest.LogCaptureFixture) -> None:
    job, run = accepted(), begun()
    with caplog.at_level(logging.DEBUG):
        told("shop", job, replace(job, reported_at=5.0, job={**JOB, "progress_percent": 40}), 5.0)
        told("shop", run, replace(run, due_at=99.0), 5.0)
        told("shop", NEW, replace(NEW, resends=1), 5.0)
    assert caplog.records == []


def test_no_more_is_done_where_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log.logger, "level", logging.ERROR)
    monkeypatch.setattr(log, "_text", None)
    log.logger.manager._clear_cache()  # type: ignore[attr-defined]
    told("shop", NEW, begun(), 2.0)
    monkeypatch.undo()
    log.logger.manager._clear_cache()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("code", "label"),
    [("internal", "internal"), ("worker_lost", "worker_lost"), (None, "none"), ("", "none"), ("task_0f3a", "other")],
)
def test_a_code_is_a_label_only_if_it_is_known(code: str | None, label: str) -> None:
    assert code_label(code) == label


@pytest.mark.parametrize(
    ("completed_at", "instant"),
    [("1970-01-01T00:01:00Z", 60.0), ("1970-01-01T00:01:00+00:00", 60.0), (None, None), ("soon", None), (7, None)],
)
def test_when_a_job_ended(completed_at: object, instant: float | None) -> None:
    assert job_ended_at(replace(NEW, job={"completed_at": completed_at})) == instant


def test_every_line_about_a_task_has_its_ids() -> None:
    """ "%s[%s]" is how they begin, as Celery's own do: `say` begins them so, and says which task in ``extra``."""
    package = Path(framelane_celery.__file__).parent
    by_hand = [path.name for path in package.rglob("*.py") if '"%s[%s]' in path.read_text()]
    assert sorted(by_hand) == ["log.py"]


def test_a_line_is_that_of_who_says_it(caplog: pytest.LogCaptureFixture) -> None:
    log.say(log.logger.warning, replace(NEW, job_id="render_1"), "left alone: %s", "why")
    (line,) = caplog.records
    assert line.getMessage() == "framelane.render[t1]: left alone: why"
    assert (line.task_id, line.task_name, line.job_id) == ("t1", "framelane.render", "render_1")  # type: ignore[attr-defined]
    assert line.funcName == "test_a_line_is_that_of_who_says_it"


# --- signals -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sent() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What receivers of all signals got: the signal's name, and what it gave."""
    found: list[tuple[str, dict[str, Any]]] = []
    each = (signals.job_submitted, signals.job_progressed, signals.job_finished, signals.job_dead_lettered)

    def receive(signal: Any, sender: str, **given: Any) -> None:
        found.append((signal.name, {"sender": sender, **given}))

    for signal in each:
        signal.connect(receive)
    yield found
    for signal in each:
        signal.disconnect(receive)


OF_THE_JOB = {"sender": "framelane.render", "task_id": "t1", "job_id": "render_1", "kind": "render", "attempt": 1}
WHOSE = {**OF_THE_JOB, "account": "default"}


def test_a_job_is_signalled_from_its_acceptance_to_its_end(sent: list[tuple[str, dict[str, Any]]]) -> None:
    prepared = records.prepare(begun(), run_id="r", request="sesame", kind="render", now=2.0)
    waiting = accepted()
    news = {**JOB, "progress_percent": 40, "progress_stage": "rendering"}
    shown = records.looked(waiting, job=news, reported_at=4.0)
    again = records.looked(waiting, job=None, reported_at=5.0)
    assert None not in (prepared, shown, again)
    over = records.complete(shown, job={**JOB, "status": "completed"}, now=9.0, resend_after_s=60)  # type: ignore[arg-type]
    assert over
    for old, new in ((prepared, waiting), (waiting, shown), (waiting, again), (shown, over), (over, begun(over))):
        told("n", old, new, 9.0)
    assert sent == [
        ("job_submitted", WHOSE),
        ("job_progressed", {**WHOSE, "status": "processing", "percent": 40, "stage": "rendering"}),
        ("job_finished", {**WHOSE, "outcome": "completed", "code": None}),
    ]
    assert "sesame" not in repr(sent)


@pytest.mark.parametrize(("letter", "keeps_waiting"), [(LETTER, False), (WAITING_LETTER, True)])
def test_a_dead_letter_is_signalled(
    sent: list[tuple[str, dict[str, Any]]], letter: Decision, keeps_waiting: bool
) -> None:
    told("n", *failed(letter), 9.0)
    assert sent == [
        ("job_finished", {**WHOSE, "outcome": "failed", "code": "internal"}),
        ("job_dead_lettered", {**WHOSE, "code": "internal", "keeps_waiting": keeps_waiting}),
    ]


def test_a_receiver_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def wrong(**given: Any) -> None:
        raise ValueError("of a receiver")

    signals.job_finished.connect(wrong)
    try:
        told("n", *failed(Fail()), 9.0)
    finally:
        signals.job_finished.disconnect(wrong)
    assert "of a receiver" in caplog.text
