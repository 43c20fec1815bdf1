"""What ``INSTALLED_APPS`` names."""

from __future__ import annotations

from django.apps import AppConfig


class FramelaneConfig(AppConfig):
    """``framelane_celery.django``; its permissions and tables go by the label ``framelane``."""

    name = "framelane_celery.django"
    label = "framelane"
    verbose_name = "Framelane"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from framelane_celery.django import checks  # noqa: F401 - to be registered
