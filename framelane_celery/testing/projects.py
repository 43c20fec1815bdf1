"""The endpoints of projects, as the vendor's llms.txt tells of them (framelane_api.md §15). Much of it is INFER."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from werkzeug.wrappers import Response

from framelane_celery.testing.api import Api
from framelane_celery.testing.calls import Call, answer_json
from framelane_celery.testing.clock import iso
from framelane_celery.testing.endpoints import accept
from framelane_celery.testing.paging import page_of
from framelane_celery.testing.previews import violations_of
from framelane_celery.testing.refusals import Problem, Refusal, refuse_invalid
from framelane_celery.testing.workspace import make_id


@dataclass
class StoredProject:
    """One project."""

    id: str
    name: str | None
    created_at: float
    request: dict[str, Any] = field(default_factory=lambda: {"elements": []})
    version: int = 1
    updated_at: float = 0.0

    def view(self, workspace_id: str, *, is_full: bool) -> dict[str, Any]:
        """With the composition itself only where it is asked for."""
        elements = self.request.get("elements") or []
        summary = {name: self.request.get(name) for name in ("width", "height", "duration", "frame_rate")} | {
            "output_format": self.request.get("output_format") or "mp4",
            "element_count": len(elements),
            "transition_count": len(self.request.get("transitions") or []),
            "elements": [{"id": one.get("id"), "type": one.get("type"), "time": one.get("time")} for one in elements],
        }
        return {
            "id": self.id,
            "name": self.name,
            "version": self.version,
            "workspace_id": workspace_id,
            "created_at": iso(self.created_at),
            "updated_at": iso(self.updated_at or self.created_at),
            "summary": summary,
            "render_request": self.request if is_full else None,
        }


def create_project(api: Api, call: Call) -> Response:
    """Keep a composition: 201 (INFER). It may be incomplete, and is checked when it is previewed or rendered."""
    body = call.json_object()
    name, request = body.get("name"), body.get("render_request")
    if name is not None and not isinstance(name, str):
        raise refuse_invalid([Problem(("name",), "must be a string")], api.switches)
    if request is not None and not isinstance(request, dict):
        raise refuse_invalid([Problem(("render_request",), "must be an object")], api.switches)
    now = api.clock.now()
    project = StoredProject(make_id("proj", now), name, now, request or {"elements": []})
    api.projects[project.id] = project
    return answer_json(project.view(api.workspace.id, is_full=True), 201)


def list_projects(api: Api, call: Call) -> Response:
    """List the projects, newest first (INFER)."""
    views = [project.view(api.workspace.id, is_full=False) for project in reversed(list(api.projects.values()))]
    return answer_json(page_of(views, call, api.switches))


def get_project(api: Api, call: Call, project_id: str) -> Response:
    """Read one; `?view=summary` unless it is `full` (INFER)."""
    view = call.query.get("view", "summary")
    if view not in ("summary", "full"):
        raise refuse_invalid([Problem(("view",), "must be summary or full")], api.switches)
    return answer_json(_find(api, project_id).view(api.workspace.id, is_full=view == "full"))


def delete_project(api: Api, call: Call, project_id: str) -> Response:
    """Delete one: 204 (INFER); softly, says the site: nothing shows it any more."""
    del api.projects[_find(api, project_id).id]
    return Response(status=204)


def change_project(api: Api, call: Call, project_id: str) -> Response:
    """Carry out ops, all or none. Served: set_fields, add_element, remove_element, replace_request.

    Raises: Refusal 409 for a stale `if_version`, 422 for an op that is not served here.
    """
    project, body = _find(api, project_id), call.json_object()
    if body.get("if_version", project.version) != project.version:
        raise Refusal(409, "conflict", f"The project is at version {project.version}.")
    ops = body.get("ops")
    if not isinstance(ops, list) or not all(isinstance(op, dict) for op in ops):
        raise refuse_invalid([Problem(("ops",), "must be a list of objects")], api.switches)
    request, changed = copy.deepcopy(project.request), []
    for at, op in enumerate(ops):
        request, element_id = _carry_out(api, request, op, at)
        changed.append(element_id)
    before, after = _ids(project.request), _ids(request)
    violations = violations_of(api, request)
    is_ok = not any(one["severity"] == "error" for one in violations)
    if is_ok:
        project.request, project.version, project.updated_at = request, project.version + 1, api.clock.now()
    diff = {"added_ids": [i for i in after if i not in before], "removed_ids": [i for i in before if i not in after]}
    return answer_json(
        {
            "version": project.version,
            "ok": is_ok,
            "changed_ids": [one for one in changed if one is not None] if is_ok else [],
            "diff": {**diff, "transitions_changed": False},
            "violations": violations,
        }
    )


def preview_project(api: Api, call: Call, project_id: str) -> Response:
    """Check a project; only the dry run is served."""
    project = _find(api, project_id)
    if call.json_object().get("dry_run") is not True:
        raise Refusal(422, "unsupported_feature", "Only previews with dry_run: true are served here.")
    violations = violations_of(api, project.request)
    return answer_json({"ok": not any(one["severity"] == "error" for one in violations), "violations": violations})


def render_project(api: Api, call: Call, project_id: str) -> Response:
    """Submit a project as it is now: {"id", "status"}. INFER: an idempotency key is honoured as for other renders."""
    project = _find(api, project_id)
    return accept(api, call, None, copy.deepcopy(project.request), is_short=True)


def _find(api: Api, project_id: str) -> StoredProject:
    project = api.projects.get(project_id)
    if not isinstance(project, StoredProject):
        raise Refusal(404, "not_found", "Project not found.")
    return project


def _ids(request: dict[str, Any]) -> list[Any]:
    return [element.get("id") for element in request.get("elements") or []]


def _carry_out(api: Api, request: dict[str, Any], op: dict[str, Any], at: int) -> tuple[dict[str, Any], Any]:
    kind, elements = op.get("op"), request.setdefault("elements", [])
    if kind == "replace_request" and isinstance(op.get("render_request"), dict):
        return copy.deepcopy(op["render_request"]), None
    if kind == "add_element" and isinstance(op.get("element"), dict):
        elements.append(op["element"])
        return request, op["element"].get("id")
    found = [element for element in elements if element.get("id") == op.get("id")]
    if kind in ("set_fields", "remove_element") and not found:
        raise refuse_invalid([Problem(("ops", at, "id"), "names no element")], api.switches)
    if kind == "set_fields" and isinstance(op.get("fields"), dict):
        found[0].update(op["fields"])
        return request, op["id"]
    if kind == "remove_element":
        elements.remove(found[0])
        return request, op["id"]
    raise refuse_invalid([Problem(("ops", at, "op"), "is no op that is served here")], api.switches)
