"""A Django project in this process: its database is in memory, the app's broker is down, the room is a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
import pytest
from celery import Celery, _state
from celery.backends import cache
from django.conf import settings

from framelane_celery.operations import room_for
from framelane_celery.room import Room
from tests.cli.rooms import fill, make_app

if not settings.configured:  # DJANGO_SETTINGS_MODULE is not set: the other tests' apps are no Django project's
    settings.configure(
        SECRET_KEY="for tests",
        ALLOWED_HOSTS=["testserver"],
        USE_TZ=True,
        ROOT_URLCONF="tests.django.site_urls",
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
            "django.contrib.staticfiles",
            "framelane_celery.django",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        STATIC_URL="/static/",
    )
    django.setup()

SECRET = "whsec_tests"


@pytest.fixture(scope="session")
def database() -> Iterator[None]:
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", verbosity=0)
    yield
    connections.close_all()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    """The project's Celery app: the current one of this thread."""
    before = _state._tls.current_app
    with make_app(tmp_path, webhook_secrets=[SECRET]) as app:
        app.set_current()
        cache._DUMMY_CLIENT_CACHE.clear()  # what Celery keeps in memory is one store, whatever the app
        conf = dict(app.conf.framelane)
        yield app
        app.main, app.conf.framelane = "shop", conf
        room_for(app).close()
    _state._set_current_app(before)


@pytest.fixture
def room(app: Celery) -> Room:
    """The app's room, with one record in each state."""
    room = room_for(app)
    fill(room)
    return room


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set a Django setting for the test."""
    return lambda name, value: monkeypatch.setattr(settings, name, value, raising=False)
