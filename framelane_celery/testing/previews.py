"""Previews of an inline request: only the dry run, which validates and makes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from werkzeug.wrappers import Response

from framelane_celery.testing.api import Api
from framelane_celery.testing.calls import Call, answer_json
from framelane_celery.testing.refusals import Problem, Refusal, refuse_invalid
from framelane_celery.testing.validation import check_request


def preview(api: Api, call: Call) -> Response:
    """Say what is wrong with a composition. No job is made, and neither quota nor render limit is touched.

    Shape:  {"ok": bool, "violations": [{"code", "message", "severity": "error"|"warning", "path": string|null}]}
    Source: POST /v1/preview "for an inline request", `dry_run: true` as "validation only, free", and Violation, all in
            site llms.txt. INFER: the body is the render request's own fields plus `dry_run`, the answer is as above,
            and what no schema takes is a violation too; see the switches `preview_body`, `preview_refuses_schema`.
    Raises: Refusal 404 not_found, 422 invalid_request, 422 unsupported_feature when it is no dry run.
    """
    if not api.switches.has_preview:
        raise Refusal(404, "not_found", "Not found.")
    body = call.json_object()
    if body.get("dry_run") is not True:
        raise Refusal(422, "unsupported_feature", "Only previews with dry_run: true are served here.")
    request = body
    if api.switches.preview_body == "render_request":
        if "render_request" not in body:
            raise refuse_invalid([Problem(("render_request",), "is required")], api.switches)
        request = body["render_request"]
    found = violations_of(api, request)
    return answer_json({"ok": not any(one["severity"] == "error" for one in found), "violations": found})


def violations_of(api: Api, request: Any) -> list[dict[str, Any]]:
    """What is wrong with a composition; if nothing is, what is odd about it."""
    problems = check_request(None, request, api.is_good_source)
    if api.switches.preview_refuses_schema and any(problem.violation is None for problem in problems):
        raise refuse_invalid(problems, api.switches)
    if problems:
        return [_violation(problem, "error") for problem in problems]
    return [_violation(warning, "warning") for warning in _warnings(request)]


def _violation(problem: Problem, severity: str) -> dict[str, Any]:
    code = problem.violation or problem.code
    return {"code": code, "message": problem.message, "severity": severity, "path": problem.field}


def _warnings(request: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what is odd and yet accepted.

    Source: the three warnings of site renderRequestSchema.ts (quotes invariants.py). Of their codes only
            EMPTY_TIMELINE is named there, the others are INFER.
    """
    elements = request.get("elements") or []
    if not any(element.get("visible", True) for element in elements):
        yield Problem(("elements",), "no element is visible", violation="EMPTY_TIMELINE")
    for at, element in enumerate(elements):
        begins = element.get("time", 0)
        if request.get("duration") is not None and begins >= request["duration"]:
            yield Problem(("elements", at, "time"), "starts after the end", violation="ELEMENT_AFTER_END")
        words = (element.get("word_animation") or {}).get("words") or []
        if any(word["start"] < begins or word["end"] > begins + element["duration"] for word in words):
            yield Problem(("elements", at), "a word is outside its text's time", violation="WORD_OUTSIDE_TEXT")
