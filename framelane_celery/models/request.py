"""What every request and every part of one has in common: unknown fields, `extra`, the bytes on the wire.

Strict about what the server surely refuses, and about an unknown field, which the server drops in silence. Only
fields that were set go on the wire: the defaults are the server's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from framelane_celery.errors import InvalidArguments, clean_text
from framelane_celery.models.fields import Metadata, Url
from framelane_celery.models.telling import invalid_arguments, wrong
from framelane_celery.models.unknown import hint

_ON_THE_WIRE = {"wire": True}


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

    extra: dict[str, Any] = Field(
        default_factory=dict,
        description="Fields that the API has gained since: sent unchecked.",
    )

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
        known = cls.__pydantic_fields__.keys()
        if not value.keys() <= known:
            raise cls._unknown([str(name) for name in value if name not in known])
        return value if type(value) is dict else dict(value)

    @classmethod
    def _unknown(cls, names: list[str]) -> ValidationError:
        return wrong(*(((clean_text(name, 60),), cls._hint(name)) for name in names))

    @classmethod
    def _hint(cls, name: str) -> str:
        """Say what to write in place of a field that there is none of."""
        if name in cls.instead_of:
            return f"unknown field, {cls.instead_of[name]}"
        return hint(name, clean_text(name, 60), [field for field in cls.model_fields if field != "extra"])

    @field_validator("extra")
    @classmethod
    def _extra_is_json(cls, extra: dict[str, Any]) -> dict[str, Any]:
        try:
            canonical(extra)
        except (TypeError, ValueError):  # an object, NaN, infinity, a lone surrogate
            raise wrong(((), "holds what JSON cannot")) from None
        return extra

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Keep `extra` apart in a plain dump, which `parse_request` reads again; merge it in on the wire."""
        data: dict[str, Any] = handler(self)
        if "type" in self.__pydantic_fields__:  # an element's discriminator is its default, and never left out
            data["type"] = getattr(self, "type")  # noqa: B009
        if info.context == _ON_THE_WIRE:
            data.pop("extra", None)
            data.update(self.extra)
        return data

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Have an element's `type` required in the schema, as it is in JSON: only Python's class name stands for it."""
        written = handler.resolve_ref_schema(handler(schema))
        if "const" in written["properties"].get("type", {}):
            written["required"] = ["type", *written.get("required", [])]
        return written


class JobRequest(WireModel):
    """A request that makes a job."""

    kind: ClassVar[Literal["render", "task", "import"]]
    path: ClassVar[str]
    task_type: ClassVar[str | None] = None

    def wire(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Write the request as the JSON object that is sent, with these pairs merged into its own metadata; these win.

        Only what was set is in it, and `extra` is merged in. None is left out: wherever the API takes null, null is
        the default, and whether it takes one in the other fields is not known.
        """
        data = self.model_dump(mode="json", exclude_unset=True, exclude_none=True, context=_ON_THE_WIRE)
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


def canonical(data: object) -> bytes:
    """Write JSON as bytes. Equal data is equal bytes: keys are sorted, nothing is spaced, text is UTF-8."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
