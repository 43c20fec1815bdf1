"""The Celery app: `celery -A celery_app worker`."""

import os

from celery import Celery

app = Celery("pipeline", include=["tasks"])
app.config_from_object(os.environ.get("PIPELINE_SETTINGS", "settings_redis"))
