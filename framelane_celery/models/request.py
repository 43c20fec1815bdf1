"""What every request and every part of one has in common: unknown fields, `extra`, the bytes on the wire.

Strict about what the server surely refuses, and about an unknown field, which the server drops in silence. Only
fields that were set go on the wire: the defaults are the server's.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from framelane_celery.errors import InvalidArguments, clean_text

_ON_THE_WIRE = {"wire": True}
_MOST_ERRORS_SHOWN = 5


def wrong(what: str, field: str | None) -> PydanticCustomError:
    """Make the error of a check that looks at a whole model, and name the field it is about."""
    return PydanticCustomError("wrong", "{what}", {"what": what, "field": field})


def _short_number(value: float) -> int | float:
    """Write 5.0 as 5: the same number in fewer bytes, whichever of the two the caller gave."""
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else value


def _http_url(url: str) -> str:
    if not re.match(r"https?://[^/?#\s]+[^\s]*\Z", url, re.IGNORECASE):
        raise ValueError("must be a URL that starts with https://")
    return url


def _dimension(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("must be a number of pixels, a percentage such as '50%' or an angle such as '90deg'")
    return value


Number = Annotated[float, PlainSerializer(_short_number)]
Url = Annotated[str, Field(min_length=1, max_length=2083), AfterValidator(_http_url)]
Dimension = Annotated[float | str, BeforeValidator(_dimension)]
Metadata = dict[str, str]


class _Hidden:
    def __repr__(self) -> str:
        return "…"


_HIDDEN = _Hidden()


class WireModel(BaseModel):
    """A part of a request. `extra` holds what the API has gained since: it is merged into the JSON, and wins."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False, defer_build=True
    )

    # Names people try, and what to write in their place, where the nearest spelling would mislead.
    instead_of: ClassVar[Mapping[str, str]] = {}

    extra: dict[str, Any] = Field(default_factory=dict)

    def __repr_args__(self) -> Iterator[tuple[str, object]]:
        """Which fields are set. Error reports keep the reprs of local variables, so: no text, no URL."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name in self.model_fields_set:
                yield name, value if isinstance(value, (bool, int, float)) else _HIDDEN

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        unknown = [str(name) for name in value if name not in cls.model_fields]
        if unknown:
            hints = "; ".join(cls._hint(name) for name in unknown[:_MOST_ERRORS_SHOWN])
            raise wrong(hints, clean_text(unknown[0], 60))
        return dict(value)

    @classmethod
    def _hint(cls, name: str) -> str:
        known = [field for field in cls.model_fields if field != "extra"]
        near = difflib.get_close_matches(name.lower(), known, n=1)
        shown = clean_text(name, 60)
        if name in cls.instead_of:
            return f"unknown field '{shown}', {cls.instead_of[name]}"
        if near:
            return f"unknown field '{shown}', did you mean '{near[0]}'?"
        return f"unknown field '{shown}' (if the API has gained it, write extra={{'{shown}': …}})"

    @field_validator("extra")
    @classmethod
    def _extra_is_json(cls, extra: dict[str, Any]) -> dict[str, Any]:
        try:
            canonical(extra)
        except (TypeError, ValueError):  # an object, NaN, infinity, a lone surrogate
            raise wrong("holds what JSON cannot", None) from None
        return extra

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Keep `extra` apart in a plain dump, which `parse_request` reads again; merge it in on the wire."""
        data: dict[str, Any] = handler(self)
        if "type" in type(self).model_fields:  # an element's discriminator is its default, and never left out
            data["type"] = getattr(self, "type")  # noqa: B009
        if info.context == _ON_THE_WIRE:
            data.pop("extra", None)
            data.update(self.extra)
        return data


class JobRequest(WireModel):
    """A request that makes a job."""

    kind: ClassVar[Literal["render", "task", "import"]]
    path: ClassVar[str]
    task_type: ClassVar[str | None] = None

    def wire(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Write the request as the JSON object that is sent, with these pairs merged into its own metadata; these win.

        Only what was set is in it, and `extra` is merged in.
        """
        data = self.model_dump(mode="json", exclude_unset=True, context=_ON_THE_WIRE)
        merged = {**(data.get("metadata") or {}), **metadata}
        if merged and "metadata" in type(self).model_fields:
            data["metadata"] = merged
        return data

    def body(self, metadata: Mapping[str, str]) -> bytes:
        """Write the request as canonical JSON bytes; see `wire`."""
        return canonical(self.wire(metadata))

    def to_json(self) -> dict[str, Any]:
        """Write the request as JSON that can be a task's argument; `parse_request` reads it again."""
        return self.model_dump(mode="json", exclude_unset=True)


class MarkedRequest(JobRequest):
    """A request whose job carries the caller's own pairs, and tells of its end: every one but an import's."""

    metadata: Metadata = Field(default_factory=dict)
    webhook_url: Url | None = None


RequestT = TypeVar("RequestT", bound=JobRequest)


def parse_request(model_cls: type[RequestT], value: object) -> RequestT:
    """Read a request model or a plain dict.

    Raises: InvalidArguments, which names the field and what to change, and quotes no value.
    """
    if isinstance(value, model_cls):
        return value
    if not isinstance(value, Mapping):
        raise InvalidArguments(f"must be a {model_cls.__name__} or a dict, not {type(value).__name__}")
    try:
        return model_cls.model_validate(value)
    except ValidationError as error:
        raise invalid_arguments(error) from None


def invalid_arguments(error: ValidationError) -> InvalidArguments:
    """Turn pydantic's error, also one of a model built by the user's own code, into ours."""
    details = error.errors(include_url=False, include_input=False)
    told = [_told(detail) for detail in details]
    lines = [f"{path}: {what}" if path else what for path, what in told]
    more = len(lines) - _MOST_ERRORS_SHOWN
    shown = "; ".join(lines[:_MOST_ERRORS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    return InvalidArguments(f"{error.title}: {shown}", _field_of(details[0], told[0][0]) or None)


def _told(detail: ErrorDetails) -> tuple[str, str]:
    """Say where and what, in the caller's words."""
    path, kind = _path(detail["loc"]), detail["type"]
    if kind == "missing":
        return path, "is required"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        return f"{path}.type", "must be 'video', 'audio', 'text' or 'image'"
    return path, clean_text(detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be"), 400)


def _field_of(detail: ErrorDetails, path: str) -> str:
    name = detail.get("ctx", {}).get("field")
    return f"{path}.{name}" if name and path else name or path


def _path(loc: tuple[int | str, ...]) -> str:
    """Write ('elements', 0, 'video', 'effects', 1, 'type') as elements[0].effects[1].type.

    Pydantic puts the element's type between its index and the field; nobody wrote that.
    """
    steps = [step for at, step in enumerate(loc) if not (at == 2 and loc[0] == "elements")]
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def canonical(data: object) -> bytes:
    """Write JSON as bytes. Equal data is equal bytes: keys are sorted, nothing is spaced, text is UTF-8."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
