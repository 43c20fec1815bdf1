"""One frozen settings model, and where its values come from.

First match wins: ``app.conf.framelane`` (``CELERY_FRAMELANE`` in Django), then the environment, then a default, which
for `namespace` is the app's name and for `room_url` the app's own broker or result backend.
A secret's value never appears in an error, a repr or a dump.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from framelane_celery.accounts import (
    DEFAULT,
    Account,
    ApiKey,
    BaseUrl,
    Rate,
    Span,
    SpendGuard,
    WebhookSecrets,
    checked_name,
    nearest,
)
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

_LeaseSpan = Annotated[float, Field(ge=15, allow_inf_nan=False)]  # longer than Celery's own chord claim, design.md §3


class FramelaneSettings(BaseModel):
    """All settings of one app. Build it with `resolve` or `settings_of`, which raise SettingsError."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    api_key: ApiKey | None = None
    base_url: BaseUrl = "https://api.framelane.io"
    webhook_secrets: WebhookSecrets = ()
    accounts: dict[str, Account] = Field(default_factory=dict)  # by name: more workspaces, each with its own key
    namespace: str | None = None
    room_url: SecretStr | None = None  # may hold a password

    connect_timeout_s: Span = 5
    read_timeout_s: Span = 30

    deadline_s: Span = 6 * 3600
    hold_max_s: Span = 35 * 86400  # longer than a quota's month
    cancel_on_timeout: bool = True
    cancel_on_revoke: bool = True

    routes: tuple[Route, ...] = ()  # the defaults come after them: routing.DEFAULTS
    retry_queue: str | None = None  # None: the task's own queue, with ".retry" behind it
    dead_letter_queue: str | None = None  # None: "<namespace>.dead"
    dead_letters_alarm: Rate = 1000
    spend_guard: SpendGuard = SpendGuard()

    renders_per_minute: Rate = 120
    media_tasks_per_minute: Rate = 300
    reads_per_minute: Rate = 600
    long_polls: Annotated[int, Field(ge=0)] = 40  # 0: single reads only
    watcher: bool = True
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = None  # where a worker answers Prometheus
    metrics_host: str = "127.0.0.1"
    allow_live_eager: bool = False

    lease_s: _LeaseSpan = 60
    resend_after_s: _LeaseSpan = 60
    max_lost_runs: Rate = 5

    @field_validator("accounts")
    @classmethod
    def _account_names_fit_everywhere(cls, accounts: dict[str, Account]) -> dict[str, Account]:
        return {checked_name(name): account for name, account in accounts.items()}

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

    def __hash__(self) -> int:
        """Of what mostly tells settings apart: a dict, as the accounts are, has none."""
        return hash((self.namespace, self.api_key, self.base_url, self.room_url, *self.accounts))

    # --- accounts

    @property
    def account_names(self) -> tuple[str, ...]:
        """All accounts, the top level first."""
        return (DEFAULT, *self.accounts)

    def of(self, account: str) -> FramelaneSettings:
        """The settings of one account: its own values laid over these; of "default" these themselves.

        Raises: SettingsError, if no account has that name.
        """
        if account == DEFAULT:
            return self
        found = self.laid_over.get(account)
        if found is None:
            raise SettingsError(
                f"no account {account!r} in framelane['accounts']; "
                + nearest(account, self.account_names, "the accounts are")
            )
        return found

    @cached_property
    def laid_over(self) -> dict[str, FramelaneSettings]:
        """The settings of each named account."""
        return {name: self.model_copy(update=account.own()) for name, account in self.accounts.items()}

    @property
    def all_webhook_secrets(self) -> tuple[SecretStr, ...]:
        """Those of every account: a webhook does not say whose it is."""
        secrets = [secret for name in self.account_names for secret in self.of(name).webhook_secrets]
        return tuple(dict.fromkeys(secrets))

    def bucket(self, account: str, kind: str) -> str:
        """Whose submit slots an account takes: all accounts' together ("render" or "task"), for the API counts by IP
        address; or its own ("render:eu"), if it has a limit of its own."""
        kind = "task" if kind == "import" else kind  # no page limits imports
        own = self.accounts.get(account)
        limit = None if own is None else own.renders_per_minute if kind == "render" else own.media_tasks_per_minute
        return kind if limit is None else f"{kind}:{account}"

    def per_minute(self, account: str, kind: str) -> int:
        """How many submissions its bucket lets through in a minute. Raises: SettingsError, as `of`."""
        settings = self.of(account)
        return settings.renders_per_minute if kind == "render" else settings.media_tasks_per_minute


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
    conf = app.conf.get("framelane")
    said = conf if isinstance(conf, Mapping) else {}
    environ = {name: os.environ.get(name, "") for key, name in _ENVIRONMENT.items() if not said.get(key)}
    broker_url, result_backend = None, None
    if not (said.get("room_url") or environ["FRAMELANE_ROOM_URL"]):
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
    for key in conf:
        if key not in FramelaneSettings.model_fields:
            hint = nearest(key, FramelaneSettings.model_fields, "the keys are")
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
