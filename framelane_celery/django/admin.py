"""The admin's pages: what waits, dead letters, accounts on hold; over either room.

There are no tables behind them, so the views of ModelAdmin are replaced: `pages` reads, `acts` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import quote, unquote
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse

from framelane_celery.dead_letters import NoSuchLetter
from framelane_celery.django import acts, pages
from framelane_celery.django.acts import Act
from framelane_celery.django.models import DeadLetter, HeldAccount, WaitingTask
from framelane_celery.django.pages import Detail, Page
from framelane_celery.django.project import celery_app
from framelane_celery.errors import FramelaneError, RoomError, clean_text
from framelane_celery.operations import NoSuchTask

MOST_AT_ONCE: Final = pages.PAGE_ROWS

_UNTIL: Final = ("start", "slot", "job", "instant", "release", "running", "replacing")


class RoomAdmin(admin.ModelAdmin):
    """Read-only pages of what the room holds, and what may be done to it. ``view`` lets see, each act has its own."""

    filters: ClassVar[dict[str, tuple[str, ...]]] = {}
    """By name: what may be chosen; empty: text."""
    room_acts: ClassVar[Sequence[Act]] = ()

    def page(self, request: HttpRequest, filters: dict[str, str], number: int) -> Page:
        raise NotImplementedError

    def detail(self, request: HttpRequest, object_id: str) -> Detail:
        raise NotImplementedError

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def get_urls(self) -> list[Any]:
        """In place of ModelAdmin's: none of its views finds a table here."""
        guarded, name = self.admin_site.admin_view, f"{self.opts.app_label}_{self.opts.model_name}"
        act = [
            path(f"{one.name}/", guarded(partial(self.act_view, act=one)), name=f"{name}_{one.name}")
            for one in self.room_acts
        ]
        return [
            path("", guarded(self.changelist_view), name=f"{name}_changelist"),
            *act,
            path("<path:object_id>/change/", guarded(self.change_view), name=f"{name}_change"),
        ]

    # --- views ---------------------------------------------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        self._check_view(request)
        filters = {name: request.GET.get(name, "").strip() for name in self.filters}
        number, found, status = _number(request.GET.get("p")), None, 200
        try:
            found = self.page(request, filters, number)
        except FramelaneError as error:
            messages.error(request, clean_text(str(error)))
            status = 503
        given = {name: value for name, value in filters.items() if value}
        context = {
            "title": str(self.opts.verbose_name_plural).capitalize(),
            "page": found,
            "rows": [(row, self._url("change", quote(row.id))) for row in found.rows] if found else [],
            "filters": [(name, filters[name], choices) for name, choices in self.filters.items()],
            "is_filtered": bool(given),
            "before": "?" + urlencode({**given, "p": number - 1}) if number > 1 else None,
            "after": "?" + urlencode({**given, "p": number + 1}) if found and found.has_next else None,
        }
        return self._render(request, "room_list", context, status)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        self._check_view(request)
        known = unquote(object_id)
        try:
            detail = self.detail(request, known)
        except (NoSuchTask, NoSuchLetter) as error:
            raise Http404(clean_text(str(error))) from error
        except FramelaneError as error:
            messages.error(request, clean_text(str(error)))
            return self._render(request, "room_detail", {"title": known, "object_id": known}, 503)
        context = {"title": detail.title, "subtitle": known, "object_id": known, "detail": detail}
        return self._render(request, "room_detail", context)

    def act_view(self, request: HttpRequest, act: Act) -> HttpResponse:
        """Do something to what is selected; once it is confirmed, where that is needed."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not request.user.has_perm(act.permission):
            raise PermissionDenied
        ids = list(dict.fromkeys(request.POST.getlist("id")))[:MOST_AT_ONCE]
        try:
            if not ids:
                messages.warning(request, "Nothing was selected.")
            elif "confirmed" not in request.POST and (warning := act.warning(celery_app(), ids)) is not None:
                context = {"title": f"{act.label}: are you sure?", "act": act, "ids": ids, "warning": warning}
                return self._render(request, "room_confirm", context)
            else:
                self._perform(request, act, ids)
        except FramelaneError as error:  # the room is away: the others would fail too
            messages.error(request, clean_text(str(error)))
        return HttpResponseRedirect(self._url("changelist"))

    def _perform(self, request: HttpRequest, act: Act, ids: Sequence[str]) -> None:
        """Each by itself: one that fails stops nobody, a room that is away stops all.

        It is told at the end what was done: a room in the same SQLite file would wait for Django's transaction.
        """
        app, done = celery_app(), {}
        try:
            for one in ids:
                try:
                    done[one] = act.perform(app, one)
                except RoomError:
                    raise
                except FramelaneError as error:
                    messages.error(request, clean_text(str(error)))
        finally:
            for one, text in done.items():
                messages.success(request, text[:1].upper() + text[1:] + ".")
                self._log(request, one, text)

    def _log(self, request: HttpRequest, object_id: str, done: str) -> None:
        """Who did it, in the admin's own history."""
        LogEntry.objects.create(
            user_id=request.user.pk,
            content_type_id=ContentType.objects.get_for_model(self.model).pk,
            object_id=object_id,
            object_repr=object_id[:200],
            action_flag=CHANGE,
            change_message=done,
        )

    # --- what they share -----------------------------------------------------------------------------------------

    def _check_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _render(self, request: HttpRequest, name: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
        request.current_app = self.admin_site.name
        may = [(act, self._url(act.name)) for act in self.room_acts if request.user.has_perm(act.permission)]
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "acts": may}
        return TemplateResponse(request, f"admin/framelane/{name}.html", {**shared, **context}, status=status)

    def _url(self, what: str, *args: str) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{what}"
        return str(reverse(name, args=args, current_app=self.admin_site.name))


def _number(text: str | None) -> int:
    """A page's number; whatever is none is the first."""
    is_number = text is not None and text.isascii() and text.isdigit() and len(text) < 7
    return max(1, int(text)) if is_number and text else 1


@admin.register(WaitingTask)
class WaitingTaskAdmin(RoomAdmin):
    """What waits, and for what."""

    filters: ClassVar[dict[str, tuple[str, ...]]] = {"until": _UNTIL, "task": (), "code": (), "account": ()}
    room_acts: ClassVar[Sequence[Act]] = (acts.CANCEL,)

    def page(self, request: HttpRequest, filters: dict[str, str], number: int) -> Page:
        return pages.waiting_page(celery_app(), filters, number)

    def detail(self, request: HttpRequest, object_id: str) -> Detail:
        return pages.waiting_detail(celery_app(), object_id)


@admin.register(DeadLetter)
class DeadLetterAdmin(RoomAdmin):
    """Dead letters. Their arguments are shown to who may replay them."""

    filters: ClassVar[dict[str, tuple[str, ...]]] = {"code": (), "task": ()}
    room_acts: ClassVar[Sequence[Act]] = (acts.REPLAY, acts.DISCARD)

    def page(self, request: HttpRequest, filters: dict[str, str], number: int) -> Page:
        return pages.letters_page(celery_app(), filters, number)

    def detail(self, request: HttpRequest, object_id: str) -> Detail:
        may = request.user.has_perm(acts.REPLAY.permission)
        return pages.letter_detail(celery_app(), object_id, with_arguments=may)


@admin.register(HeldAccount)
class HeldAccountAdmin(RoomAdmin):
    """Accounts whose submissions are stopped."""

    room_acts: ClassVar[Sequence[Act]] = (acts.RELEASE,)

    def page(self, request: HttpRequest, filters: dict[str, str], number: int) -> Page:
        return pages.holds_page(celery_app(), filters, number)

    def detail(self, request: HttpRequest, object_id: str) -> Detail:
        return pages.hold_detail(celery_app(), object_id)
