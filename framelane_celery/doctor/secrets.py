"""What must not be shown: the key, and the passwords of all URLs that the app knows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from framelane_celery.doctor.asking import attempt
from framelane_celery.doctor.facts import NotAsked

if TYPE_CHECKING:
    from celery import Celery

_URLS = ("broker_url", "broker_read_url", "broker_write_url", "result_backend", "database_url", "cache_backend")
_PASSWORD = re.compile(r"://[^:/]*:(.+)@")
_WORDS = ("password", "secret", "api_key", "token")


def secrets_of(app: Celery) -> tuple[str, ...]:
    """All that is known to be secret, longest first."""
    found = attempt(lambda: {text for text in _secrets(app) if len(text) > 2})
    return () if isinstance(found, NotAsked) else tuple(sorted(found, key=len, reverse=True))


def _secrets(app: Celery) -> Iterator[str]:
    values: list[Any] = [app.conf.get(name) for name in _URLS]
    values += [app.conf.broker_url, app.conf.broker_read_url, app.conf.broker_write_url, app.conf.result_backend]
    values += [value for name, value in os.environ.items() if name.startswith(("FRAMELANE_", "CELERY_"))]
    yield from (os.environ[name] for name in ("FRAMELANE_API_KEY",) if os.environ.get(name))
    yield from os.environ.get("FRAMELANE_WEBHOOK_SECRET", "").split(",")
    for name in ("broker_password", "redis_password"):
        values.append(f"x://:{app.conf.get(name)}@" if app.conf.get(name) else None)
    conf = app.conf.get("framelane")
    yield from _named(conf)
    values += [_plain(conf.get("room_url"))] if isinstance(conf, Mapping) else []
    for value in values:
        for url in value if isinstance(value, (list, tuple)) else [value]:
            yield from _passwords(url)


def _named(value: Any) -> Iterator[str]:
    """Values in a dict, and in what it holds, whose names say that they are secret."""
    for name, inner in value.items() if isinstance(value, Mapping) else ():
        for one in inner if isinstance(inner, (list, tuple)) else [inner]:
            if isinstance(one, Mapping):
                yield from _named(one)
            elif one and any(word in str(name) for word in _WORDS):
                yield _plain(one)


def _plain(value: Any) -> str:
    return str(getattr(value, "get_secret_value", lambda: value)())


def _passwords(url: Any) -> Iterator[str]:
    """Of a URL, or of several with ``;`` between; also where it is no proper URL."""
    for part in str(url).split(";") if isinstance(url, str) else ():
        for password in _PASSWORD.findall(part):
            yield from {password, unquote(password), quote(unquote(password), safe="")}


def without(secrets: tuple[str, ...], text: str) -> str:
    """A text without them."""
    for secret in secrets:
        text = text.replace(secret, "…")
    return text
