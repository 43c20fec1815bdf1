"""The built-in tasks. Their names are wire format: they are never renamed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from framelane_celery.errors import InvalidArguments
from framelane_celery.models import (
    GazeRedirectRequest,
    ImportRequest,
    JobRequest,
    RemoveBackgroundRequest,
    RenderRequest,
    SuperResolutionRequest,
    TranscribeRequest,
    parse_request,
)
from framelane_celery.tasks.choice import is_job
from framelane_celery.tasks.face import builtin
from framelane_celery.tasks.task import FramelaneTask


class BuiltinTask(FramelaneTask):
    """A task whose first argument is its request: a model, a dict, or, for media tasks, a source."""

    abstract = True
    request_class: ClassVar[type[JobRequest]] = RenderRequest
    source_field: ClassVar[str] = "source_url"

    @functools.cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.run)

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        given = dict(self._signature.bind(*args, **kwargs).arguments)
        fields = given.pop("fields", {})
        request = next(iter(given.values()), None)  # by position or by its name
        if not is_job(request):
            self.request_of(request, fields)

    def request_of(self, request: Any, fields: Mapping[str, Any]) -> JobRequest:
        """The request of these arguments.

        Raises: InvalidArguments, naming the field; what the client raises, if a job's fresh link has to be fetched.
        """
        if is_job(request):
            request = {self.source_field: self._source_url(request)}
        elif isinstance(request, str):
            request = {self.source_field: request}
        elif isinstance(request, JobRequest):
            request = request.to_json()
        elif request is not None and not isinstance(request, Mapping):
            raise InvalidArguments(
                f"{self.name}: {type(request).__name__} is not a request: give a dict or a model", None
            )
        return parse_request(self.request_class, {**(request or {}), **fields})

    def _source_url(self, job: Mapping[str, Any]) -> str:
        if self.source_field not in self.request_class.model_fields:
            raise InvalidArguments(
                f"{self.name}: got a finished job in place of a composition. Make a task of your own between them that "
                "takes the job and returns a RenderRequest with its link",
                None,
            )
        return self.fresh_url(job)


class RenderTask(BuiltinTask):
    abstract = True
    job_kind = "render"
    request_class = RenderRequest


class MediaTask(BuiltinTask):
    abstract = True
    job_kind = "task"


class ImportTask(BuiltinTask):
    abstract = True
    job_kind = "import"
    request_class = ImportRequest
    source_field = "url"


class TranscribeTask(MediaTask):
    abstract = True
    request_class = TranscribeRequest


class RemoveBackgroundTask(MediaTask):
    abstract = True
    request_class = RemoveBackgroundRequest


class GazeRedirectTask(MediaTask):
    abstract = True
    request_class = GazeRedirectRequest


class SuperResolutionTask(MediaTask):
    abstract = True
    request_class = SuperResolutionRequest


@builtin("framelane.render", RenderTask)
def render(
    self: RenderTask, /, composition: RenderRequest | Mapping[str, Any] | None = None, **fields: Any
) -> JobRequest:
    """Render a composition: a RenderRequest, a dict like it, or its fields by name. Result: the finished job."""
    return self.request_of(composition, fields)


@builtin("framelane.transcribe", TranscribeTask)
def transcribe(
    self: TranscribeTask, /, source: TranscribeRequest | Mapping[str, Any] | str | None = None, **fields: Any
) -> JobRequest:
    """Speech to text of a source: a URL, the finished job of the step before, or a TranscribeRequest."""
    return self.request_of(source, fields)


@builtin("framelane.remove_background", RemoveBackgroundTask)
def remove_background(
    self: RemoveBackgroundTask,
    /,
    source: RemoveBackgroundRequest | Mapping[str, Any] | str | None = None,
    **fields: Any,
) -> JobRequest:
    """Make the background of an image or video transparent; the source as in ``transcribe``."""
    return self.request_of(source, fields)


@builtin("framelane.gaze_redirect", GazeRedirectTask)
def gaze_redirect(
    self: GazeRedirectTask, /, source: GazeRedirectRequest | Mapping[str, Any] | str | None = None, **fields: Any
) -> JobRequest:
    """Turn the eyes in a video to the camera; the source as in ``transcribe``."""
    return self.request_of(source, fields)


@builtin("framelane.super_resolution", SuperResolutionTask)
def super_resolution(
    self: SuperResolutionTask, /, source: SuperResolutionRequest | Mapping[str, Any] | str | None = None, **fields: Any
) -> JobRequest:
    """Upscale a video; the source as in ``transcribe``. The factor's name is not documented: pass ``extra``."""
    return self.request_of(source, fields)


@builtin("framelane.import_media", ImportTask)
def import_media(
    self: ImportTask, /, source: ImportRequest | Mapping[str, Any] | str | None = None, **fields: Any
) -> JobRequest:
    """Copy a remote file to Framelane: a URL, or an ImportRequest. Result: a finished job of kind ``import``, which the
    next step takes as its source like any other."""
    return self.request_of(source, fields)
