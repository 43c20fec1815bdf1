"""Who may read a task's status: ``FRAMELANE_STATUS_PERMISSION``, else whoever is logged in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.utils.module_loading import import_string

from framelane_celery.errors import SettingsError

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = logging.getLogger(__name__)

SETTING = "FRAMELANE_STATUS_PERMISSION"

Permission = Callable[["HttpRequest", str], bool]


def configured() -> Permission | None:
    """The project's own permission; None: it has none. Raises: SettingsError."""
    path = getattr(settings, SETTING, None)
    if path is None:
        return None
    try:
        found = import_string(path)
    except (ImportError, AttributeError, TypeError) as error:
        raise SettingsError(f"{SETTING}: {path!r} cannot be imported ({error}): write a dotted path") from error
    if not callable(found):
        raise SettingsError(f"{SETTING}: {path!r} is no callable(request, task_id) -> bool")
    return found  # type: ignore[no-any-return]


def may_read(request: HttpRequest, task_id: str) -> bool:
    """Whether the status may be read. Only a plain True is a yes: a coroutine, which is true too, is none.

    A setting that cannot be used is a no, and is logged.
    """
    try:
        asked = configured() or _is_logged_in
        return asked(request, task_id) is True
    except SettingsError as error:
        logger.error("nobody may read a status: %s", error)
    except (PermissionDenied, Http404):  # another answer than ours would tell the two apart
        logger.debug("a status was refused")
    return False


def may_read_result(request: HttpRequest, task_id: str) -> bool:
    """Whether the result may be read too. That takes a permission of the project's own: ids can be guessed where
    a project chooses them, and the result has a signed URL."""
    try:
        return configured() is not None and may_read(request, task_id)
    except SettingsError:
        return False


def _is_logged_in(request: HttpRequest, task_id: str) -> bool:
    return bool(getattr(getattr(request, "user", None), "is_authenticated", False))
