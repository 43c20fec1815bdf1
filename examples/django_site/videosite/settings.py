"""Settings for one machine. `run.py` sets the environment; what a project of your own needs is in docs/django.md."""

import os
from pathlib import Path

from framelane_celery.django import room_url

FOLDER = Path(os.environ.get("SITE_FOLDER", "site-data")).absolute()

SECRET_KEY = os.environ.get("SITE_SECRET_KEY", "only for an example on this machine")
DEBUG = True  # so that `runserver` serves the static files too
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "videosite.urls"
STATIC_URL = "/static/"
USE_TZ, TIME_ZONE = True, "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "framelane_celery.django",
    "videos",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
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
]
# One SQLite file for Django's rows and for the room. The web server and the worker write to it: they wait for each
# other (`timeout`), and a transaction that will write says so when it begins (`IMMEDIATE`), or it could not wait.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": FOLDER / "site.sqlite3",
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
    }
}

# --- Celery: files in one folder carry the messages and keep the results; SITE_BROKER_URL names a real broker --------

CELERY_BROKER_URL = os.environ.get("SITE_BROKER_URL", "filesystem://")
if CELERY_BROKER_URL == "filesystem://":
    CELERY_BROKER_TRANSPORT = "framelane_celery.demo.files:Transport"  # kombu's own loses a message now and then
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(FOLDER / "messages"),
        "data_folder_out": str(FOLDER / "messages"),
        "control_folder": str(FOLDER / "control"),
        "polling_interval": 0.05,
    }
CELERY_RESULT_BACKEND = os.environ.get("SITE_RESULT_BACKEND", f"file://{FOLDER}/results")
CELERY_WORKER_SEND_TASK_EVENTS = True  # for Flower

# --- framelane_celery ------------------------------------------------------------------------------------------------

CELERY_FRAMELANE = {
    "room_url": room_url(databases=DATABASES),
    "routes": [{"code": "internal", "action": "retry", "max_attempts": 3, "backoff_s": 2}],
}
FRAMELANE_STATUS_PERMISSION = "videos.visitors.may_follow"
