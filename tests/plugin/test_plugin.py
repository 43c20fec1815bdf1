"""The pytest plugin, as a project of a user's own has it; `examples/testing` is such a project."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
from celery import Celery

import framelane_celery as framelane
from framelane_celery.errors import InvalidArguments
from framelane_celery.models import SuperResolutionRequest, TranscribeRequest
from framelane_celery.room import open_room, room_of
from framelane_celery.settings import settings_of
from framelane_celery.testing import FramelaneServer, SubmittedJob, assert_dead_letter, assert_waiting
from framelane_celery.testing.clock import Clock
from framelane_celery.testing.room_clock import moved
from tests.docs.pages import texts

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "testing"
DOCS = (ROOT / "docs" / "testing.md").read_text()
COMPOSITION = {"elements": [{"type": "text", "text": "hello", "duration": 2}]}


@pytest.fixture
def app(framelane_settings: dict[str, Any]) -> Any:
    app = Celery("plugged", set_as_current=False)
    app.conf.update(task_always_eager=True, framelane=framelane_settings)
    yield app
    app.close()


def task(app: Celery, name: str) -> Any:
    return app.tasks[f"framelane.{name}"]


# --- the example and the docs ------------------------------------------------------------------------------------


def run_example(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    copy = shutil.copytree(EXAMPLE, folder / uuid4().hex, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "--strict-markers", *options, str(copy)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=110)


@pytest.mark.worker
def test_the_example_suite_passes(tmp_path: Path) -> None:
    ran = run_example(tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "10 passed" in ran.stdout


def test_suites_run_side_by_side(tmp_path: Path) -> None:
    """As pytest-xdist runs them: in processes of their own, at the same time."""
    ran: list[int] = []
    runs = [
        threading.Thread(target=lambda: ran.append(run_example(tmp_path, "-k", "in_place").returncode))
        for _ in range(3)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert ran == [0, 0, 0]


def test_every_snippet_of_the_docs_is_a_part_of_the_example() -> None:
    snippets = texts("docs/testing.md", "python")
    sources = "\n".join(path.read_text() for path in EXAMPLE.glob("*.py"))
    assert len(snippets) >= 6
    assert [snippet for snippet in snippets if snippet not in sources] == []


def test_its_readme_names_every_file() -> None:
    readme = (EXAMPLE / "README.md").read_text()
    assert all(f"`{path.name}`" in readme for path in EXAMPLE.glob("*.py"))


def test_what_the_docs_name_is_there() -> None:
    table = DOCS.split("## How jobs end")[1].split("## Side by side")[0]
    named = set(re.findall(r"`(?:framelane_server\.)?(\w+)\(", table))
    assert {"fail_next", "job_of", "finish", "assert_paid_once"} <= named
    alone = {"assert_waiting", "assert_dead_letter"}
    assert [name for name in named - alone - {"add"} if not hasattr(FramelaneServer, name)] == []


# --- what was submitted ------------------------------------------------------------------------------------------


def test_a_submitted_job_is_shown_as_it_was_asked_for(app: Celery, framelane_server: FramelaneServer) -> None:
    task(app, "render").apply((dict(COMPOSITION, metadata={"shop": "a"}),), task_id="first")
    task(app, "transcribe").apply(({"source_url": "https://media.example.com/a.mp4"},))
    task(app, "super_resolution").apply(({"source_url": "https://media.example.com/a.mp4", "extra": {"factor": 2}},))
    render, transcribe, upscaled = framelane_server.submitted
    assert render.body == {**COMPOSITION, "metadata": {"shop": "a"}}
    assert (render.operation, render.task, render.task_id, render.status) == (
        "render",
        "framelane.render",
        "first",
        "completed",
    )
    assert render.request == framelane.RenderRequest.model_validate({**COMPOSITION, "metadata": {"shop": "a"}})
    assert isinstance(transcribe.request, TranscribeRequest)
    assert isinstance(upscaled.request, SuperResolutionRequest)
    assert upscaled.request.extra == {"factor": 2}


def test_assertions_give_what_they_found(app: Celery, framelane_server: FramelaneServer) -> None:
    framelane_server.assert_nothing_submitted()
    result = task(app, "render").apply((COMPOSITION,))
    found = framelane_server.assert_submitted(task(app, "render"), times=1)
    assert found == framelane_server.assert_submitted() == framelane_server.submitted
    assert [framelane_server.assert_paid_once(result), framelane_server.job_of(result.id)] == found * 2
    framelane_server.assert_submitted("framelane.transcribe", times=0)


def fails(message: str) -> Any:
    return pytest.raises(AssertionError, match=message)


def test_an_error_says_what_was_there_instead(app: Celery, framelane_server: FramelaneServer) -> None:
    with fails(r"expected at least 1 job, not 0. What was submitted:\n  nothing$"):
        framelane_server.assert_submitted()
    result = task(app, "render").apply((COMPOSITION,))
    there = rf"What was submitted:\n  render render_\w+, completed: for framelane.render {result.id}$"
    with fails(rf"expected 1 job for framelane.transcribe, not 0. {there}"):
        framelane_server.assert_submitted(task(app, "transcribe"), times=1)
    with fails(rf"expected 2 jobs for framelane.render, not 1. {there}"):
        framelane_server.assert_submitted(task(app, "render"), times=2)
    with fails(rf"expected no job. {there}"):
        framelane_server.assert_nothing_submitted()
    with fails(rf"expected 1 job to be paid for task other, not 0. {there}"):
        framelane_server.assert_paid_once("other")
    with fails(rf"no job for task other within 0.01 s. {there}"):
        framelane_server.job_of("other", timeout_s=0.01)
    task(app, "render").apply((dict(COMPOSITION, width=64),), task_id=result.id.replace("-", "x"))
    body = {**COMPOSITION, "metadata": {"celery_task_id": result.id}}
    headers = {"Authorization": f"Bearer {framelane_server.api_key}", "Idempotency-Key": "again"}
    requests.post(f"{framelane_server.base_url}/v1/renders", json=body, headers=headers, timeout=10)
    with fails(rf"expected 1 job to be paid for task {result.id}, not 2"):
        framelane_server.assert_paid_once(result)


def test_an_error_says_what_was_refused(app: Celery, framelane_server: FramelaneServer) -> None:
    video = {"elements": [{"type": "video", "source_url": "http://media.example.com/a.mp4"}]}
    with pytest.raises(framelane.errors.ApiError):
        task(app, "render").apply((video,)).get()
    refused = r"What was refused:\n  /v1/renders: 422 \w+: elements\[0\].source_url: "
    with fails(refused):
        framelane_server.assert_submitted()
    with fails(refused):
        framelane_server.assert_nothing_submitted()


def test_what_is_not_waiting_is_said(app: Celery) -> None:
    result = task(app, "render").apply((COMPOSITION,))
    with fails(rf"expected task {result.id} to wait until job; its state is SUCCESS"):
        assert_waiting(result, timeout_s=0)


def test_what_is_no_dead_letter_is_said(app: Celery) -> None:
    with fails(r"expected 1 dead letter with code internal of framelane.render, not 0. In the room:\n  nothing"):
        assert_dead_letter(app, "internal", "framelane.render", timeout_s=0)
    with fails(r"expected 1 dead letter, not 0"):
        assert_dead_letter(app, timeout_s=0)
    room_of(app, settings_of(app)).close()


# --- how jobs end ------------------------------------------------------------------------------------------------


def test_only_so_many_of_the_next_jobs_fail(app: Celery, framelane_server: FramelaneServer) -> None:
    framelane_server.fail_next("source_unreachable", "The source is away.", times=2)
    states = [task(app, "render").apply((COMPOSITION,)).state for _ in range(3)]
    assert states == ["FAILURE", "FAILURE", "SUCCESS"]


def test_a_refused_composition_takes_no_failure_away(app: Celery, framelane_server: FramelaneServer) -> None:
    framelane_server.fail_next("internal")
    with pytest.raises(InvalidArguments):
        task(app, "render")({"elements": [{"type": "text", "text": "endless"}]})
    assert task(app, "render").apply((COMPOSITION,)).state == "FAILURE"


@pytest.mark.framelane_server(job_seconds=3600)
def test_a_job_is_ended_by_its_id_or_as_it_was_found(framelane_server: FramelaneServer) -> None:
    def submit(number: int) -> SubmittedJob:
        headers = {"Authorization": f"Bearer {framelane_server.api_key}", "Idempotency-Key": str(number)}
        requests.post(f"{framelane_server.base_url}/v1/renders", json=COMPOSITION, headers=headers, timeout=10)
        return framelane_server.submitted[-1]

    framelane_server.finish(submit(1))
    framelane_server.fail(submit(2).id)
    framelane_server.cancel(submit(3))
    assert [job.status for job in framelane_server.submitted] == ["completed", "failed", "cancelled"]
    submit(4)
    framelane_server.clock.advance(3599)
    assert framelane_server.submitted[-1].status == "processing"
    framelane_server.clock.advance(1)
    assert framelane_server.submitted[-1].status == "completed"


def test_no_limit_that_was_not_asked_for(app: Celery, framelane_server: FramelaneServer) -> None:
    """Framelane's own are 120 renders a minute, and this clock stands still."""
    for _ in range(130):
        task(app, "render").apply((COMPOSITION,)).get()
    assert framelane_server.ledger.counts()["jobs"] == 130


# --- the clock of the room ---------------------------------------------------------------------------------------


def test_the_room_goes_by_the_servers_clock_while_the_test_lasts(tmp_path: Path) -> None:
    clock, file = Clock(virtual=True), tmp_path / "room.sqlite"

    def age_of(file: Path) -> float:
        """How far two rooms' clocks are apart."""
        rooms = [open_room(f"sqlite:///{path}", "a") for path in (file, tmp_path / "other.sqlite")]
        try:
            first, second = (room.read("nothing")[1] for room in rooms)
            return first - second
        finally:
            for room in rooms:
                room.close()

    with moved(file, lambda: clock.ahead_s):
        assert abs(age_of(file)) < 5
        clock.advance(86400)
        assert 86395 < age_of(file) < 86405
    assert abs(age_of(file)) < 5


# --- the plugin itself -------------------------------------------------------------------------------------------

PLUGGED = ("-p", "framelane_celery_pytest", "-p", "no:cacheprovider", "--strict-markers", "-W", "error")


def test_a_marker_says_how_the_server_is_made(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.framelane_server(job_seconds=5, webhook_secret="whsec_mine")
        class TestMarked:
            @pytest.mark.framelane_server(job_seconds=7)
            def test_the_nearest_one_wins(self, framelane_server, framelane_settings):
                assert framelane_server.job_seconds == 7
                assert framelane_settings["webhook_secrets"] == ["whsec_mine"]

        def test_without(framelane_server):
            assert framelane_server.job_seconds == 0
            assert framelane_server.clock.is_virtual

        @pytest.mark.framelane_server(job_second=7)
        def test_misspelt(framelane_server):
            pass
        """
    )
    ran = pytester.runpytest_subprocess(*PLUGGED)
    ran.assert_outcomes(passed=2, errors=1)
    ran.stdout.fnmatch_lines(["*TypeError*job_second*"])


def test_nothing_is_left_from_test_to_test(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import threading
        import pytest

        seen = []

        @pytest.mark.parametrize("number", [1, 2])
        def test_own(framelane_celery_config, framelane_server, number):
            framelane = framelane_celery_config["framelane"]
            mine = {framelane["base_url"], framelane["room_url"], framelane_celery_config["task_default_queue"]}
            assert not mine & set(seen), seen
            seen.extend(mine)
            assert framelane_server.submitted == []

        def test_no_server_runs_on():
            assert "framelane-server" not in [thread.name for thread in threading.enumerate()]
        """
    )
    pytester.runpytest_subprocess(*PLUGGED).assert_outcomes(passed=3)


def test_in_place_needs_no_sqlalchemy(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import sys

        sys.modules["sqlalchemy"] = None

        def test_it(framelane_server, framelane_settings):
            from celery import Celery
            import framelane_celery

            app = Celery("plain", set_as_current=False)
            app.conf.framelane = framelane_settings
            composition = {"elements": [{"type": "text", "text": "x", "duration": 1}]}
            assert app.tasks["framelane.render"].apply((composition,)).get()["status"] == "completed"
        """
    )
    pytester.runpytest_subprocess(*PLUGGED).assert_outcomes(passed=1)


def test_a_run_that_uses_no_fixture_imports_nothing_of_ours(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import sys

        def test_it():
            assert [name for name in sys.modules if name.startswith("framelane_celery")] == ["framelane_celery_pytest"]
            assert not {"celery", "werkzeug", "sqlalchemy", "requests", "django"} & set(sys.modules)
        """
    )
    pytester.runpytest_subprocess(*PLUGGED).assert_outcomes(passed=1)


@pytest.mark.worker
def test_a_worker_in_a_thread_takes_its_watcher_along(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `start_worker` in a test case of Django's."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import threading
        import celery.contrib.testing.tasks
        import framelane_celery
        from celery import Celery
        from celery.contrib.testing.worker import start_worker

        def watchers():
            return [thread for thread in threading.enumerate() if thread.name == "framelane-clock"]

        def test_it(framelane_celery_config, framelane_server):
            app = Celery("embedded")
            app.conf.update(framelane_celery_config)
            composition = {"elements": [{"type": "text", "text": "x", "duration": 1}]}
            for _ in range(2):
                with start_worker(app):
                    assert framelane_celery.render.delay(composition).get(timeout=20)["status"] == "completed"
                    assert len(watchers()) == 1
                for watcher in watchers():
                    watcher.join(10)
                assert not watchers()
        """
    )
    pytester.runpytest_subprocess(*PLUGGED).assert_outcomes(passed=1)


def test_a_django_projects_app_is_led_to_the_server_for_one_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/testing.md says: in the app's configuration, which Celery has read of Django's settings once.

    Under the names of these: others Celery 5.5 does not see.
    """
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import pytest
        from celery import Celery
        from django.conf import settings

        settings.configure(
            SECRET_KEY="tests",
            CELERY_TASK_ALWAYS_EAGER=False,
            CELERY_BROKER_URL="redis://localhost:6379/0",
            CELERY_FRAMELANE={"api_key": "fl_live_key", "namespace": "shop"},
        )
        app = Celery("shop")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        COMPOSITION = {"elements": [{"type": "text", "text": "x", "duration": 1}]}

        def own_settings():
            assert app.conf.framelane == {"api_key": "fl_live_key", "namespace": "shop"}
            assert not app.conf.task_always_eager

        @pytest.fixture
        def in_place(framelane_settings, monkeypatch):
            monkeypatch.setitem(app.conf, "CELERY_FRAMELANE", framelane_settings)
            monkeypatch.setitem(app.conf, "CELERY_TASK_ALWAYS_EAGER", True)

        def test_before():
            own_settings()

        @pytest.mark.parametrize("number", [1, 2])
        def test_in_place(in_place, framelane_server, number):
            import framelane_celery

            assert framelane_celery.render.delay(COMPOSITION).get()["status"] == "completed"
            framelane_server.assert_submitted(framelane_celery.render, times=1)

        def test_after():
            own_settings()

        def test_changing_djangos_settings_comes_too_late(monkeypatch, framelane_settings):
            monkeypatch.setattr(settings, "CELERY_FRAMELANE", framelane_settings)
            own_settings()
        """
    )
    pytester.runpytest_subprocess(*PLUGGED).assert_outcomes(passed=5)


def test_an_eager_call_to_the_live_host_is_refused(app: Celery, framelane_settings: dict[str, Any]) -> None:
    app.conf.framelane = {**framelane_settings, "base_url": "https://api.framelane.io"}
    with pytest.raises(framelane.errors.SettingsError, match="would pay"):
        task(app, "render").apply((COMPOSITION,)).get()
