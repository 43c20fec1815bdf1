"""The `download` task: a finished job's file, written where the next step can read it."""

from __future__ import annotations

import importlib
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from framelane_celery.errors import InternalError, InvalidArguments, RateLimited, TransportError
from framelane_celery.models import Job
from framelane_celery.pacing import pause_s
from framelane_celery.tasks.choice import is_job
from framelane_celery.tasks.face import builtin
from framelane_celery.tasks.guarded import GuardedTask
from framelane_celery.tasks.jobs import client_of_job

if TYPE_CHECKING:
    from framelane_celery.client import FramelaneClient

RETRIES_MAX: Final = 10
"""How often the whole task is run again while a network is away, about ten minutes; each run tries for itself too."""


class DownloadTask(GuardedTask):
    """It has a record, so a worker that dies in the middle costs a new run; the file is there whole, or not at all."""

    abstract = True
    max_retries = RETRIES_MAX

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        given = dict(zip(("job", "path", "storage"), args, strict=False)) | dict(kwargs)
        self.check_target(given.get("path"), given.get("storage"))
        self.job_of(given.get("job"))

    def check_target(self, path: object, storage: object) -> None:
        """Raises: InvalidArguments, that names the argument."""
        if not isinstance(path, str) or not path:
            raise InvalidArguments(f"{self.name}: path must be a string that names a file", "path")
        if storage is None and not Path(path).is_absolute():
            raise InvalidArguments(
                f"{self.name}: path must be absolute: each worker has a directory of its own", "path"
            )

    def job_of(self, given: object) -> Job:
        """Raises: InvalidArguments, for what is no job with an artefact."""
        if not is_job(given):
            raise InvalidArguments(f"{self.name}: job must be a finished job, such as the step before returns", "job")
        job = Job.model_validate(given)
        if job.kind == "import":
            raise InvalidArguments(f"{self.name}: an import has no artefact: its output.url is the copy", "job")
        return job


@builtin("framelane.download", DownloadTask)
def download(
    self: DownloadTask, /, job: Mapping[str, Any] | None = None, path: str = "", storage: str | None = None
) -> dict[str, Any]:
    """Write a job's file to a path, or into one of Django's storages (``storage="default"``), over what is there.

    Shape:  {"job_id", "job_kind", "path", "storage", "size_bytes"}; path is the name that a storage has given it.
    """
    self.check_target(path, storage)
    known = self.job_of(job)
    client = client_of_job(self.app, known)
    try:
        written, size = _store(client, known, path, storage) if storage else (path, _write(client, known, path))
    except (TransportError, InternalError, RateLimited) as error:
        wait_s = pause_s(getattr(error, "retry_after_s", None), self.request.retries, chance=random.random())
        raise self.retry(exc=error, countdown=wait_s) from error
    return {"job_id": known.id, "job_kind": known.kind, "path": written, "storage": storage, "size_bytes": size}


def _write(client: FramelaneClient, job: Job, target: Any) -> int:
    if isinstance(target, str):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
    size_bytes = job.output.size_bytes if job.output else None
    return client.download("render" if job.kind == "render" else "task", job.id, target, size_bytes=size_bytes)


def _store(client: FramelaneClient, job: Job, name: str, alias: str) -> tuple[str, int]:
    """By way of a file on this machine: what a storage has begun to take cannot be taken back everywhere."""
    files = importlib.import_module("django.core.files")  # by name: Django is only there where a project has it
    storage = importlib.import_module("django.core.files.storage").storages[alias]
    with tempfile.TemporaryFile() as file:
        size = _write(client, job, file)
        file.seek(0)
        if storage.exists(name):  # of an earlier run, or an earlier version: or the new one would get another name
            storage.delete(name)
        return storage.save(name, files.File(file, name)), size
