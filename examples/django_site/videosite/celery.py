"""The Celery app, as Celery's own guide for Django writes it: nothing in it is about framelane_celery."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "videosite.settings")

app = Celery("videosite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
