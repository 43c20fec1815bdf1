"""The webhook, which needs no user, and the status, which needs one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.http import HttpResponse, JsonResponse, UnreadablePostError
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe

from framelane_celery import webhooks
from framelane_celery.django.permission import may_read, may_read_result
from framelane_celery.django.project import celery_app
from framelane_celery.django.status import status_of
from framelane_celery.errors import FramelaneError

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = logging.getLogger(__name__)

AGAIN_AFTER_S = 30


@csrf_exempt  # the signature is the proof; Framelane has no token of ours
@require_POST
def webhook(request: HttpRequest) -> HttpResponse:
    """Take one webhook. 200: taken; 400: not proven; 413: too long; 503: send it again, we cannot take it now.

    Never more than ``webhooks.MAX_BODY_BYTES`` is read, for anybody may send.
    """
    if _told_length(request) > webhooks.MAX_BODY_BYTES:
        return HttpResponse(status=413)
    try:
        body = request.read(webhooks.MAX_BODY_BYTES + 1)
        if len(body) > webhooks.MAX_BODY_BYTES:
            return HttpResponse(status=413)
        webhooks.receive(request.headers, body, app=celery_app())
    except (webhooks.WebhookRefused, UnreadablePostError):
        return HttpResponse(status=400)
    except FramelaneError as error:  # the room is away, or a setting is missing
        logger.error("a webhook could not be taken: %s", error)
        return HttpResponse(status=503, headers={"Retry-After": str(AGAIN_AFTER_S)})
    return HttpResponse(status=200)


def _told_length(request: HttpRequest) -> int:
    told = str(request.META.get("CONTENT_LENGTH") or "0")
    return int(told) if told.isascii() and told.isdigit() and len(told) < 20 else 0


@require_safe
@never_cache
def status(request: HttpRequest, task_id: str) -> JsonResponse:
    """Tell how a task goes; with ``?result=1`` also where its output is, to whom the project's permission lets.

    404 for who may not read it as for what is not there: nobody learns which ids exist. 503 while the result backend or
    the room is away.
    """
    if not may_read(request, task_id):
        return _not_found()
    wants_result = "result" in request.GET and may_read_result(request, task_id)
    try:
        known = status_of(celery_app(), task_id, with_result=wants_result)
    except FramelaneError as error:
        logger.error("the status of %s cannot be told: %s", task_id, error)
        return _answer({"error": "unavailable"}, 503)
    return _not_found() if known is None else _answer(known.to_json(), 200)


def _not_found() -> JsonResponse:
    return _answer({"error": "not found"}, 404)


def _answer(body: dict[str, Any], code: int) -> JsonResponse:
    return JsonResponse(body, status=code)


webhook.framelane_name = "webhook"  # by which checks.py finds what is mounted, under whatever decorators
status.framelane_name = "status"
