"""Jobs as JSON, the way the API shows them."""

from __future__ import annotations

from typing import Any

from framelane_celery.testing.artefacts import content_of, make_artefact
from framelane_celery.testing.clock import iso
from framelane_celery.testing.jobs import Completed, Failed, Phase, StoredJob
from framelane_celery.testing.storage import Storage
from framelane_celery.testing.switches import Switches


def job_view(job: StoredJob, phase: Phase, storage: Storage, switches: Switches) -> dict[str, Any]:
    """Write a job as "Get a task" shows it, every field present and null where it does not apply (INFER).

    Source: docs.framelane.io/api-reference/tasks/get-a-task.
    """
    return {
        "id": job.id,
        "kind": job.kind,
        "workspace_id": job.workspace_id,
        "status": phase.status,
        "created_at": iso(job.life.accepted_at),
        "updated_at": iso(phase.since),
        "task_type": job.submission.task_type,
        "progress_percent": phase.percent,
        "progress_stage": phase.stage,
        "output": output_view(job, phase, storage, switches),
        "error": _error_view(phase),
        "metadata": dict(job.submission.metadata),
        "completed_at": iso(phase.since) if phase.is_terminal else None,
    }


def output_view(job: StoredJob, phase: Phase, storage: Storage, switches: Switches) -> dict[str, Any] | None:
    """Write the output object, null before `completed`; a transcript has no measures (INFER)."""
    if phase.status != "completed":
        return None
    artefact, body = make_artefact(job.submission), job.submission.body
    is_text = artefact.extension == "json"
    output = {
        "url": storage.sign(job.id, artefact.extension, phase.since + switches.output_url_lives_s),
        "width": None if is_text else body.get("width") or 1280,
        "height": None if is_text else body.get("height") or 720,
        "duration": None if is_text else job.submission.output_s if job.kind == "render" else 1.0,
        "size_bytes": content_of(job).size_bytes,
    }
    return {**output, **(phase.outcome.output if isinstance(phase.outcome, Completed) else {})}


def _error_view(phase: Phase) -> dict[str, str] | None:
    if not isinstance(phase.outcome, Failed):
        return None
    return {"code": phase.outcome.code, "message": phase.outcome.message}
