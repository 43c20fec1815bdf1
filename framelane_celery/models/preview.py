"""What the API says about a composition that is only checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from framelane_celery.models.answer import Answer, Text, text_of


def items_of(value: object) -> object:
    listed = value if isinstance(value, (list, tuple)) else []
    return [item for item in listed if isinstance(item, (Mapping, BaseModel))]


class Violation(Answer):
    """One thing that is wrong with a composition (`error`: it would be refused) or odd (`warning`).

    A severity that is missing is an error (INFER); one we do not know is none.

    Source: {code, message, severity, path?}, site llms.txt (framelane_api.md §15). Of its codes the site names
            DUPLICATE_ELEMENT_ID, EMPTY_TIMELINE, TRANSITION_SELF and DANGLING_TRANSITION.
    """

    model_config = ConfigDict(extra="ignore")

    code: Text = None
    message: Annotated[str, BeforeValidator(lambda value: text_of(value) or "")] = ""
    severity: Annotated[str, BeforeValidator(lambda value: text_of(value) or "error")] = "error"
    path: Text = None

    @property
    def is_error(self) -> bool:
        return self.severity == "error"


class Preview(Answer):
    """The answer to a dry run: whether the API would take the composition.

    `ok` is false where the API says so, and where one of the violations is an error: "submitting with an
    error-severity violation is rejected". An answer that has neither `ok` nor `violations` is no Preview.

    Shape:  {"ok": bool, "violations": [Violation]} (INFER from the answer to a project's ops; §15).
    """

    model_config = ConfigDict(extra="ignore")

    ok: bool
    violations: Annotated[list[Violation], BeforeValidator(items_of)] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _ok_is_a_bool(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        read = dict(value)
        if not isinstance(read.get("ok"), bool):
            read.pop("ok", None)
            if isinstance(read.get("violations"), list):
                read["ok"] = True
        return read

    @model_validator(mode="after")
    def _no_error_is_ok(self) -> Preview:
        is_ok = self.ok and not any(violation.is_error for violation in self.violations)
        object.__setattr__(self, "ok", is_ok)
        return self
