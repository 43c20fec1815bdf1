"""Projects, as thin calls: they are in the vendor's llms.txt only (framelane_api.md §15), and not in the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from framelane_celery.client.answers import job_of
from framelane_celery.client.resource import JSON, Calls, item_path, iter_pages
from framelane_celery.models import Job, Preview, Project, ProjectChange, RenderRequest
from framelane_celery.models.request import canonical

_PROJECTS = "/v1/projects"


class ProjectCalls(Calls):
    """Projects."""

    def create_project(self, request: RenderRequest | None = None, *, name: str | None = None) -> Project:
        """Keep a composition as a project.

        Shape:  {"name"?, "render_request"?} -> Project
        Resend: makes another project.
        Source: POST /v1/projects, site llms.txt.
        """
        given = {"name": name, "render_request": request.wire({}) if request is not None else None}
        body = {key: value for key, value in given.items() if value is not None}
        return self._send(Project, "POST", _PROJECTS, body)

    def iter_projects(self, *, limit: int | None = None) -> Iterator[Project]:
        """Read the projects; `limit` is the size of a page. Source: GET /v1/projects?limit=, site src/lib/api.ts."""
        return iter_pages(lambda cursor: self._page(Project, _PROJECTS, limit=limit, cursor=cursor))

    def get_project(self, project_id: str, *, view: Literal["summary", "full"] | None = None) -> Project:
        """Read one project. Source: GET /v1/projects/{id}?view=, site llms.txt."""
        return self._get(Project, item_path(_PROJECTS, project_id), view=view)

    def delete_project(self, project_id: str) -> None:
        """Delete a project; softly, says the site. Source: DELETE /v1/projects/{id}."""
        self._delete(item_path(_PROJECTS, project_id))

    def change_project(
        self, project_id: str, ops: Sequence[Mapping[str, Any]], *, if_version: int | None = None
    ) -> ProjectChange:
        """Carry out ops such as ``{"op": "set_fields", "id": …, "fields": {…}}``, all of them or none.

        Raises: Conflict for an `if_version` that is not the present one; ApiError, TransportError.
        Resend: safe with `if_version` only.
        Source: POST /v1/projects/{id}/ops, site llms.txt. That an op's name is in `op` is INFER.
        """
        body = {"ops": [dict(op) for op in ops], **({} if if_version is None else {"if_version": if_version})}
        return self._send(ProjectChange, "POST", item_path(_PROJECTS, project_id, "/ops"), body)

    def preview_project(self, project_id: str) -> Preview:
        """Check a project without making a job; see `preview`.

        Source: POST /v1/projects/{id}/preview {"dry_run": true}, site llms.txt.
        """
        return self._send(Preview, "POST", item_path(_PROJECTS, project_id, "/preview"), {"dry_run": True})

    def render_project(self, project_id: str, idempotency_key: str) -> Job:
        """Submit a project as it is now. Its job carries no metadata of yours, so no task waits for it.

        Resend: whether the key is honoured here is on no page: a second call may pay twice.
        Source: POST /v1/projects/{id}/renders, site llms.txt.
        """
        headers = {**JSON, "Idempotency-Key": idempotency_key}
        path = item_path(_PROJECTS, project_id, "/renders")
        return job_of(self._request("POST", path, body=canonical({}), headers=headers), "render")
