"""Two ways to run the shop's tasks in a test: in place, or by a worker in a thread."""

import celery.contrib.testing.tasks  # noqa: F401 - `celery_worker` asks it whether it is up
import pytest
import shop

pytest_plugins = ["celery.contrib.pytest"]


@pytest.fixture(autouse=True)
def _nothing_told():
    shop.told.clear()


@pytest.fixture
def in_place(framelane_settings, monkeypatch):
    """A task runs where it is called, to its end. Quick; nothing waits, nothing is tried again."""
    monkeypatch.setitem(shop.app.conf, "framelane", framelane_settings)
    monkeypatch.setitem(shop.app.conf, "task_always_eager", True)


@pytest.fixture
def celery_config(framelane_celery_config):
    """For Celery's own fixtures `celery_app` and `celery_worker`."""
    return framelane_celery_config
