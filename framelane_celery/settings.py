"""One frozen settings model, and where its values come from.

First match wins: ``app.conf.framelane`` (``CELERY_FRAMELANE`` in Django), then the environment, then a default, which
for `namespace` is the app's name and for `room_url` the app's own broker or result backend.
A secret's value never appears in an error, a repr or a dump.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from framelane_celery.errors import SettingsError
from framelane_celery.routing import Route, parse_routes, queue_name

if TYPE_CHECKING:
    from celery import Celery

_ENVIRONMENT = {
    "api_key": "FRAMELANE_API_KEY",
    "base_url": "FRAMELANE_BASE_URL",
    "webhook_secrets": "FRAMELANE_WEBHOOK_SECRET",  # several, while a secret rotates: separated by commas
    "room_url": "FRAMELANE_ROOM_URL",
}

_NAMESPACE = re.compile(r"[A-Za-z0-9_.:-]+")
_REDIS = ("redis", "rediss", "sentinel")
_SQL = ("postgresql", "sqlite")
_ROOM_CHOICES = "redis://, rediss://, sentinel://, postgresql:// or sqlite:///file"
_SET_ROOM = f"set framelane['room_url'] or FRAMELANE_ROOM_URL to {_ROOM_CHOICES}"

_Span = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_LeaseSpan = Annotated[float, Field(ge=15, allow_inf_nan=False)]  # longer than Celery's own chord claim, design.md §3
_Rate = Annotated[int, Field(ge=1)]


class SpendGuard(BaseModel):
    """Caps that a mistake must not pass: attempts per task; submissions and output per account and day (UTC).

    Units: ``minutes_per_day`` counts estimated minutes of output, as `RenderRequest.estimated_output_s` tells them.
    What passes a cap is routed by the code ``spend_guard``: by default it is held until the next day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    max_attempts: _Rate | None = None
    submissions_per_day: _Rate | None = None
    minutes_per_day: _Span | None = None

    @property
    def counts(self) -> bool:
        """Whether anything has to be counted."""
        return self.submissions_per_day is not None or self.minutes_per_day is not None


class FramelaneSettings(BaseModel):
    """All settings of one app. Build it with `resolve` or `settings_of`, which raise SettingsError."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    api_key: SecretStr | None = None
    base_url: str = "https://api.framelane.io"
    webhook_secrets: tuple[SecretStr, ...] = ()
    namespace: str | None = None
    room_url: SecretStr | None = None  # may hold a password

    connect_timeout_s: _Span = 5
    read_timeout_s: _Span = 30

    deadline_s: _Span = 6 * 3600
    hold_max_s: _Span = 35 * 86400  # longer than a quota's month
    cancel_on_timeout: bool = True
    cancel_on_revoke: bool = True

    routes: tuple[Route, ...] = ()  # the defaults come after them: routing.DEFAULTS
    retry_queue: str | None = None  # None: the task's own queue, with ".retry" behind it
    dead_letter_queue: str | None = None  # None: "<namespace>.dead"
    dead_letters_alarm: _Rate = 1000
    spend_guard: SpendGuard = SpendGuard()

    renders_per_minute: _Rate = 120
    media_tasks_per_minute: _Rate = 300
    reads_per_minute: _Rate = 600
    long_polls: Annotated[int, Field(ge=0)] = 40  # 0: single reads only
    watcher: bool = True
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = None  # where a worker answers Prometheus
    metrics_host: str = "127.0.0.1"
    allow_live_eager: bool = False

    lease_s: _LeaseSpan = 60
    resend_after_s: _LeaseSpan = 60
    max_lost_runs: _Rate = 5

    @field_validator("api_key")
    @classmethod
    def _key_fits_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        """Strip the newline a secrets file leaves, and refuse what `requests` would quote in an error of its own."""
        if key is None:
            return None
        text = key.get_secret_value().strip()
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("must be printable ASCII without spaces")
        return SecretStr(text)

    @field_validator("base_url")
    @classmethod
    def _base_url_is_a_root(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError("must look like https://api.framelane.io")
        return url.rstrip("/").removesuffix("/v1")

    @field_validator("webhook_secrets", mode="before")
    @classmethod
    def _one_secret_is_a_list_of_one(cls, value: object) -> object:
        return (value,) if isinstance(value, (str, SecretStr)) else value

    @field_validator("webhook_secrets")
    @classmethod
    def _no_secret_is_empty(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not all(secret.get_secret_value() for secret in secrets):
            raise ValueError("holds an empty secret, with which anybody could sign")
        return secrets

    @field_validator("namespace")
    @classmethod
    def _namespace_fits_everywhere(cls, namespace: str | None) -> str | None:
        if namespace is not None and not _NAMESPACE.fullmatch(namespace):
            raise ValueError("may hold only letters, digits and _ . : -")
        return namespace

    @field_validator("routes", mode="before")
    @classmethod
    def _routes_are_rules(cls, rules: object) -> tuple[Route, ...]:
        return parse_routes(rules)

    @field_validator("retry_queue", "dead_letter_queue")
    @classmethod
    def _is_a_queue(cls, name: str | None) -> str | None:
        return None if name is None else queue_name(name)

    @field_validator("room_url")
    @classmethod
    def _room_is_usable(cls, url: SecretStr | None) -> SecretStr | None:
        return None if url is None else SecretStr(_usable_room_url(url.get_secret_value()))


def resolve(
    conf: Mapping[str, Any] | None,
    *,
    environ: Mapping[str, str],
    app_name: str | None,
    broker_url: str | Sequence[str] | None,
    result_backend: str | None,
    needs_room: bool = True,
) -> FramelaneSettings:
    """Build the settings of plain values.

    needs_room=False leaves `room_url` None where none can be found: for calls in place, which keep no record.
    Raises: SettingsError, one line that names the key and says what to write instead.
    """
    if conf is not None and not isinstance(conf, Mapping):
        raise SettingsError(f"framelane must be a dict of settings, not {type(conf).__name__}")
    _refuse_unknown_keys(conf or {})
    values = _environment(environ) | {key: value for key, value in (conf or {}).items() if value not in (None, "")}
    if "namespace" not in values:
        values["namespace"] = _namespace_of(app_name)
    if "room_url" not in values:
        values["room_url"] = _default_room_url(broker_url, result_backend, needs_room=needs_room)
    try:
        return FramelaneSettings(**values)
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None


_Inputs = tuple[Any, ...]
_cache: WeakKeyDictionary[Celery, dict[bool, tuple[_Inputs, FramelaneSettings]]] = WeakKeyDictionary()


def settings_of(app: Celery, *, needs_room: bool = True) -> FramelaneSettings:
    """Read an app's settings; built once, and again when what they come from has changed.

    Raises: SettingsError.
    """
    app = getattr(app, "_get_current_object", lambda: app)()  # current_app is a proxy, which no weak map can hold
    environ = {name: os.environ.get(name, "") for name in _ENVIRONMENT.values()}
    conf = app.conf.get("framelane")
    broker_url, result_backend = None, None
    if not (environ["FRAMELANE_ROOM_URL"] or (isinstance(conf, Mapping) and conf.get("room_url"))):
        broker_url, result_backend = app.conf.broker_write_url, _result_backend_url(app)
    inputs = (conf, environ, app.main, broker_url, result_backend)
    cached = _cache.setdefault(app, {}).get(needs_room)
    if cached is None or cached[0] != inputs:
        settings = resolve(
            conf,
            environ=environ,
            app_name=app.main,
            broker_url=broker_url,
            result_backend=result_backend,
            needs_room=needs_room,
        )
        cached = _cache[app][needs_room] = (_copy(inputs), settings)
    return cached[1]


def _result_backend_url(app: Celery) -> str | None:
    """The result backend; for the bare word `database`, Celery keeps the URL in `database_url`."""
    backend = app.conf.result_backend
    if backend in ("database", "db") and app.conf.get("database_url"):
        return f"db+{app.conf.database_url}"
    return backend if isinstance(backend, str) else None


def _copy(value: Any) -> Any:
    """Copy dicts and lists, so that a value changed in place is seen as changed."""
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return type(value)(map(_copy, value)) if type(value) in (list, tuple) else value


def _environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {key: environ[name] for key, name in _ENVIRONMENT.items() if environ.get(name)}
    if "webhook_secrets" in found:
        found["webhook_secrets"] = tuple(s.strip() for s in found["webhook_secrets"].split(",") if s.strip())
    return found


def _refuse_unknown_keys(conf: Mapping[str, Any]) -> None:
    known = list(FramelaneSettings.model_fields)
    for key in conf:
        if key in known:
            continue
        near = difflib.get_close_matches(str(key).lower(), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"the keys are {', '.join(known)}"
        raise SettingsError(f"framelane: unknown key '{key}'; {hint}")


def _namespace_of(app_name: str | None) -> str:
    if app_name is None or app_name == "__main__":
        given = "has no name" if app_name is None else "is named '__main__'"
        raise SettingsError(
            f"namespace: the Celery app {given}; write Celery('your_project') or set framelane['namespace']"
        )
    return app_name


def _default_room_url(
    broker_url: str | Sequence[str] | None, result_backend: str | None, *, needs_room: bool
) -> str | None:
    """Take the broker if it is Redis, else the result backend if it is Redis or SQL."""
    broker = broker_url if isinstance(broker_url, str) or broker_url is None else ";".join(broker_url)
    candidates = [(broker, _REDIS), (result_backend, _REDIS + _SQL)]
    for url, schemes in candidates:
        try:
            usable = _usable_room_url(url or "")
        except ValueError:
            continue
        if _dialect(usable) in schemes:
            return usable
    if not needs_room:
        return None
    raise SettingsError(
        f"room_url: the broker ({_kind_of(broker)}) and the result backend ({_kind_of(result_backend)})"
        f" cannot keep the records; {_SET_ROOM}"
    )


def _usable_room_url(url: str) -> str:
    """Check a room's URL and drop Celery's `db+` prefix. Raises ValueError, which names the scheme and nothing else."""
    url = url.strip()
    for prefix in ("db+", "database+"):
        url = url.removeprefix(prefix)
    scheme, dialect = _scheme(url), _dialect(url)
    if scheme in ("redis+cluster", "rediss+cluster"):
        raise ValueError(f"Redis Cluster cannot keep the records; {_SET_ROOM}")
    if dialect not in _REDIS + _SQL or (dialect in _REDIS and scheme != dialect):
        raise ValueError(
            f"{_kind_of(url) if scheme else 'a value without a scheme'} cannot keep the records; {_SET_ROOM}"
        )
    if ";" in url and scheme != "sentinel":
        raise ValueError(f"several servers cannot keep the records; {_SET_ROOM}")
    if dialect == "sqlite" and url.partition("://")[2] in ("", "/", "/:memory:"):
        raise ValueError("SQLite in memory is not shared between processes; write sqlite:///file")
    return url


def _scheme(url: str) -> str:
    """The scheme alone, the one part that is surely no secret; "" where there is none."""
    head, separator, _ = url.partition("://")
    return head.lower() if separator and re.fullmatch(r"[A-Za-z][\w+.-]*", head) else ""


def _kind_of(url: str | None) -> str:
    """Name a broker or a result backend in an error. Celery knows some by a bare word, such as `django-db`."""
    if not url:
        return "none"
    return _scheme(url) or (url if re.fullmatch(r"[a-z-]{1,20}", url) else "no URL")


def _dialect(url: str) -> str:
    return _scheme(url).partition("+")[0]


def _one_line(error: ValidationError) -> str:
    """Name each bad key and what is wrong with it, without its value."""
    lines = []
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        key = ".".join(map(str, detail["loc"])) or "framelane"
        lines.append(f"{key}: {detail['msg'].removeprefix('Value error, ')}")
    return "; ".join(dict.fromkeys(lines))
