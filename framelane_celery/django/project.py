"""The Celery app of the Django project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery import current_app
from django.conf import settings
from django.utils.module_loading import import_string

from framelane_celery.errors import SettingsError

if TYPE_CHECKING:
    from celery import Celery

_IMPORT_IT = "import it in the project's __init__.py, or name it: FRAMELANE_CELERY_APP = 'proj.celery.app'"


def celery_app() -> Celery:
    """The app that ``FRAMELANE_CELERY_APP`` names, else Celery's current one.

    Celery's current app is the thread's: a server's threads see an app that was made without DJANGO_SETTINGS_MODULE
    only if it is named.
    Raises: SettingsError, if there is none but the nameless one that Celery makes where it finds none.
    """
    path = getattr(settings, "FRAMELANE_CELERY_APP", None)
    if path:
        try:
            return import_string(path)
        except ImportError as error:
            raise SettingsError(f"FRAMELANE_CELERY_APP: {path!r} cannot be imported: {error}") from error
    app = current_app._get_current_object()
    if app.main == "default" and app.conf.get("framelane") is None:  # celery/_state.py, _get_current_app
        raise SettingsError(f"no Celery app was found: {_IMPORT_IT}")
    return app
