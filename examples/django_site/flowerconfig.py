"""Read by Flower, which looks for this file in the folder that it is started in."""

from framelane_celery.flower import format_task  # noqa: F401 - an option of Flower's
