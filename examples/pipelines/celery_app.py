"""The Celery app of all pipelines here: `celery -A celery_app worker`."""

import os

from celery import Celery

PIPELINES = ("captioned_clip", "product_videos", "deliver", "nightly_batch", "many", "talking_head")

app = Celery("pipelines", include=[f"{name}.tasks" for name in PIPELINES])
app.config_from_object(os.environ.get("PIPELINES_SETTINGS", "settings"))
