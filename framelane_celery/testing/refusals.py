"""A request that is refused, and the body that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from framelane_celery.testing.switches import Switches

Path = tuple["str | int", ...]


class Refusal(Exception):
    """An answer in the documented error envelope.

    Shape:  {"error": {"code": "not_found", "message": "Render not found.", "details": {…} (optional)}}
    Source: docs.framelane.io/introduction/errors.
    """

    def __init__(
        self, status: int, code: str, message: str, details: Any = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(status, code, message, details, retry_after_s)
        self.status, self.code, self.message, self.details = status, code, message, details
        self.retry_after_s = retry_after_s
        self.is_replay = False

    def body(self) -> Any:
        """The JSON body."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details is not None:
            error["details"] = self.details
        return {"error": error}


class FastApiRefusal(Refusal):
    """A refusal in the shape FastAPI gives when nobody has changed it (INFER: the backend is Python with Pydantic)."""

    def body(self) -> Any:
        """The JSON body."""
        return {"detail": self.details}


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a body, and where."""

    path: Path
    message: str
    code: str = "invalid_request"
    violation: str | None = None

    @property
    def field(self) -> str:
        """The place in words: `elements[0].source_url`."""
        text = ""
        for step in self.path:
            text += f"[{step}]" if isinstance(step, int) else f".{step}"
        return text.lstrip(".") or "body"


def refuse_invalid(problems: Sequence[Problem], switches: Switches) -> Refusal:
    """Turn what is wrong into one refusal; its code is the first problem's."""
    if switches.validation_style == "fastapi":
        listed = [{"loc": ["body", *item.path], "msg": item.message, "type": "value_error"} for item in problems]
        return FastApiRefusal(400, "invalid_request", "", listed)
    message = "; ".join(f"{item.field}: {item.message}" for item in problems[:5])
    violations = [
        {"code": item.violation, "message": item.message, "severity": "error", "path": item.field}
        for item in problems
        if item.violation
    ]
    fields = [{"field": item.field, "message": item.message} for item in problems]
    details: dict[str, Any] = {"fields": fields, **({"violations": violations} if violations else {})}
    return Refusal(422, problems[0].code, message, details)
