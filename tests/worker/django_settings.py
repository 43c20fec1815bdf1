"""A Django project that keeps Celery's results: only what django-celery-results needs."""

from __future__ import annotations

import os

from sqlalchemy import make_url

_url = make_url(os.environ["TEST_DJANGO_DATABASE"])

SECRET_KEY = "only for tests"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django_celery_results"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _url.database,
        "USER": _url.username,
        "PASSWORD": _url.password or "",
        "HOST": _url.host,
        "PORT": _url.port or "",
        "OPTIONS": {"options": _url.query["options"]},
    }
}
