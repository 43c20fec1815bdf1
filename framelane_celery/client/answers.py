"""Reading answers, and refusals of whatever shape: the API's own, FastAPI's, or a proxy's HTML."""

from __future__ import annotations

import email.utils
import json
import re
from datetime import timezone
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import urlsplit

import requests
from pydantic import BaseModel, ValidationError

from framelane_celery.client.sending import reason_of
from framelane_celery.errors import TransportError, clean_text
from framelane_celery.models import Import, Job

AnswerT = TypeVar("AnswerT", bound=BaseModel)

_MAX_RETRY_AFTER_S = 24 * 3600.0


def job_of(answer: requests.Response, kind: str) -> Job:
    if kind == "import":
        return parsed(Import, answer).as_job()
    job = parsed(Job, answer)
    return job if job.kind else job.model_copy(update={"kind": kind})


def parsed(model: type[AnswerT], answer: requests.Response) -> AnswerT:
    try:
        return model.model_validate(json_of(answer))
    except ValidationError:
        raise TransportError(f"{call_of(answer)}: the answer is no {model.__name__}") from None


class Page(NamedTuple, Generic[AnswerT]):
    """One page of a list; ``next_cursor`` is None on the last one."""

    items: list[AnswerT]
    next_cursor: str | None


def page_of(model: type[AnswerT], answer: requests.Response) -> Page[AnswerT]:
    """Read a page of things; one that is none is left out: a bad one never hides the others.

    Shape:  {"data": [...], "next_cursor": "…" | null, "has_more": false}, or a bare list (§13.1 names both).
    """
    body = json_of(answer)
    listed = body.get("data") if isinstance(body, dict) else body
    if not isinstance(listed, list):
        raise TransportError(f"{call_of(answer)}: the answer is no list of {model.__name__}")
    cursor = body.get("next_cursor") if isinstance(body, dict) and body.get("has_more") is not False else None
    read = (_item(model, item) for item in listed)
    items = [item for item in read if item is not None]
    return Page(items, cursor if isinstance(cursor, str) and cursor else None)


def _item(model: type[AnswerT], value: Any) -> AnswerT | None:
    try:
        return model.model_validate(value)
    except ValidationError:
        return None


def json_of(answer: requests.Response) -> object:
    try:
        return json.loads(content_of(answer))
    except ValueError:
        media_type = clean_text(answer.headers.get("Content-Type", "of no type"), 60)
        raise TransportError(f"{call_of(answer)}: the answer is not JSON ({media_type})") from None


def content_of(answer: requests.Response) -> bytes:
    try:
        return answer.content
    except requests.RequestException as error:
        raise TransportError(f"{call_of(answer)}: {reason_of(error)}") from None


def call_of(answer: requests.Response) -> str:
    return f"{answer.request.method} {urlsplit(answer.url).path}"


def error_body(answer: requests.Response) -> object:
    try:
        return json_of(answer)
    except TransportError:
        return None


def code_and_message(body: object) -> tuple[str | None, str]:
    """Read an error's code and message; of a body that is neither the API's nor FastAPI's, nothing is taken.

    Shape:  {"error": {"code", "message"}}, {"error": "…"}, {"detail": "…"}, {"detail": [{"loc": […], "msg": "…"}]}
    """
    if not isinstance(body, dict):
        return None, ""
    error, detail = body.get("error"), body.get("detail")
    if isinstance(error, dict):
        code, message = error.get("code"), error.get("message")
        return (code if isinstance(code, str) else None), (message if isinstance(message, str) else "")
    if isinstance(detail, list):
        parts = [item for item in detail if isinstance(item, dict)]
        return None, "; ".join(f"{_dotted(item.get('loc'))}{item.get('msg', '')}" for item in parts[:3])
    text = error if isinstance(error, str) else detail
    return None, text if isinstance(text, str) else ""


def _dotted(loc: object) -> str:
    return ".".join(str(step) for step in loc) + ": " if isinstance(loc, list) and loc else ""


def retry_after_of(header: str | None, message: str, now: float) -> float | None:
    """Read how long to stay away: the header's seconds or date, else the message's "Retry after N seconds"."""
    spoken = re.search(r"retry after (\d+(?:\.\d+)?) ?s", message, re.IGNORECASE)
    for text in (header or "", spoken[1] if spoken else ""):
        if re.fullmatch(r"\d+(\.\d+)?", text.strip()):
            return min(float(text), _MAX_RETRY_AFTER_S)
        try:
            at = email.utils.parsedate_to_datetime(text)
        except (TypeError, ValueError):
            continue
        at = at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at
        return min(max(0.0, at.timestamp() - now), _MAX_RETRY_AFTER_S)
    return None
