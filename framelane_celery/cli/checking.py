"""What `dead replay --dry-run` can say before anything is paid: the API's free check of a render, where it has one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from framelane_celery import dead_letters
from framelane_celery.cli.letters import Head
from framelane_celery.cli.output import short
from framelane_celery.client import shared_client
from framelane_celery.errors import ApiError, FramelaneError, InvalidRequest, NotFound, RateLimited, TransportError
from framelane_celery.models import Preview, RenderRequest
from framelane_celery.operations import room_for
from framelane_celery.records import Record
from framelane_celery.settings import settings_of
from framelane_celery.wakeups import Call

if TYPE_CHECKING:
    from celery import Celery

Answer = tuple[dict[str, Any], str, bool]


_RENDER: Final = "framelane.render"


class _Uncheckable(Exception):
    """Nothing can be said of this letter, and why."""


class Checker:
    """Asks about one letter after the other, each with its account's key. Once an account's API does not answer, or has
    no such check, it is left alone."""

    def __init__(self, app: Celery, *, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> None:
        self._app, self._args, self._kwargs = app, args, kwargs
        self._why_not: dict[str, str] = {}  # by account

    def check(self, head: Head) -> Answer:
        """What is known of a letter; false: the API would refuse it.

        Raises: NoSuchLetter; InvalidArguments, of edited ones; RoomError, SettingsError.
        """
        letter = dead_letters.find(room_for(self._app), head.id)
        try:
            preview = self._ask(letter.account, self._request_of(letter))
        except _Uncheckable as error:
            return {"checked": False, "ok": None, "why": str(error)}, f"cannot be checked: {error}", True
        told = [_line(violation.code, violation.message, violation.path) for violation in preview.violations]
        known = {"checked": True, "ok": preview.ok, "violations": told}
        if preview.ok:
            return known, "the API would take it" + (f"; warnings: {'; '.join(told)}" if told else ""), True
        return known, f"the API would refuse it: {'; '.join(told) or 'it does not say why'}", False

    def _ask(self, account: str, request: RenderRequest) -> Preview:
        if account in self._why_not:
            raise _Uncheckable(self._why_not[account])
        try:
            return shared_client(settings_of(self._app).of(account)).preview(request)
        except NotFound:
            why_not = "this API has no such check"
        except InvalidRequest as error:
            return Preview.model_validate({"ok": False, "violations": [{"code": error.code, "message": str(error)}]})
        except (TransportError, RateLimited) as error:
            why_not = f"the API did not answer: {short(error)}"
        except ApiError as error:
            why_not = f"the API refused to check it: {short(error)}"
        self._why_not[account] = why_not
        raise _Uncheckable(why_not)

    # --- the request ---------------------------------------------------------------------------------------------

    def _request_of(self, letter: Record) -> RenderRequest:
        """The request that a replay would send, as far as it is known without running the task's body."""
        is_edited = self._args is not None or self._kwargs is not None
        if letter.job_kind in ("task", "import") or (letter.task.startswith("framelane.") and letter.task != _RENDER):
            raise _Uncheckable("a media task has no free check")
        if letter.task == _RENDER:
            return self._of_arguments(letter)
        if is_edited:
            raise _Uncheckable("its request is made by the task's body, which a check does not run")
        if letter.request is None:
            raise _Uncheckable("its request was refused and is not kept; the task's body makes it, which is not run")
        return RenderRequest(extra=json.loads(letter.request))  # `extra` goes on the wire as it is

    def _of_arguments(self, letter: Record) -> RenderRequest:
        call = Call.from_text(letter.call)
        args = call.args if self._args is None else self._args
        kwargs = call.kwargs if self._kwargs is None else self._kwargs
        task = self._app.tasks[_RENDER]
        try:
            task.check_call(args, kwargs)
            request: RenderRequest = task.run(*args, **kwargs)  # the built-in one's body only reads its arguments
        except TypeError as error:
            raise FramelaneError(f"{letter.task}: {short(error)}") from error
        return request


def _line(code: str | None, message: str, path: str | None) -> str:
    where = f" at {short(path, 80)}" if path else ""
    return f"{short(code, 60) or 'violation'}{where}: {short(message)}"
