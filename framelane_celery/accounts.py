"""Named accounts: workspaces beside the top level's, each with its own key; and the values that both are made of."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

DEFAULT: Final = "default"
"""The account that is the top level of the settings itself."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")


def _fits_a_header(key: SecretStr) -> SecretStr:
    """Strip the newline a secrets file leaves, and refuse what `requests` would quote in an error of its own."""
    text = key.get_secret_value().strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be printable ASCII without spaces")
    return SecretStr(text)


def _is_a_root(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ValueError("must look like https://api.framelane.io")
    return url.rstrip("/").removesuffix("/v1")


def _one_is_a_list_of_one(value: object) -> object:
    return (value,) if isinstance(value, (str, SecretStr)) else value


def _none_is_empty(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not all(secret.get_secret_value() for secret in secrets):
        raise ValueError("holds an empty secret, with which anybody could sign")
    return secrets


ApiKey = Annotated[SecretStr, AfterValidator(_fits_a_header)]
BaseUrl = Annotated[str, AfterValidator(_is_a_root)]
WebhookSecrets = Annotated[
    tuple[SecretStr, ...], BeforeValidator(_one_is_a_list_of_one), AfterValidator(_none_is_empty)
]
Span = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[int, Field(ge=1)]


class SpendGuard(BaseModel):
    """Caps that a mistake must not pass: attempts per task; submissions and output per account and day (UTC).

    Units: ``minutes_per_day`` counts estimated minutes of output, as `RenderRequest.estimated_output_s` tells them.
    What passes a cap is routed by the code ``spend_guard``: by default it is held until the next day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    max_attempts: Rate | None = None
    submissions_per_day: Rate | None = None
    minutes_per_day: Span | None = None

    @property
    def counts(self) -> bool:
        """Whether anything has to be counted."""
        return self.submissions_per_day is not None or self.minutes_per_day is not None


class Account(BaseModel):
    """One more workspace. What it does not say, the top level of the settings does.

    A limit of its own is counted apart from the others': for a workspace whose workers have another IP address, or to
    leave the others room.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    api_key: ApiKey
    base_url: BaseUrl | None = None
    webhook_secrets: WebhookSecrets | None = None
    renders_per_minute: Rate | None = None
    media_tasks_per_minute: Rate | None = None
    reads_per_minute: Rate | None = None
    spend_guard: SpendGuard | None = None

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            for key in given:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key '{key}'; {nearest(key, cls.model_fields, 'the keys are')}")
        return given

    def own(self) -> dict[str, Any]:
        """What it says itself."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


def checked_name(name: str) -> str:
    """Raises: ValueError, for a name that would not fit into keys, lanes and labels, or is the top level's."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"an account's name may hold only letters, digits and _ . -, not {name!r}")
    if name == DEFAULT:
        raise ValueError(f"'{DEFAULT}' is the top level itself: set its api_key there, or choose another name")
    return name


def nearest(name: object, known: Iterable[str], otherwise: str) -> str:
    """What was meant by an unknown name, or all that there are."""
    known = list(known)
    near = difflib.get_close_matches(str(name).lower(), known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"{otherwise} {', '.join(known)}"
