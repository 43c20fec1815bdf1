"""Tasks with ``pydantic=True``: apart, since Celery 5.5 does not understand annotations that are strings."""

from celery import shared_task

from framelane_celery import FramelaneTask, Job, RenderRequest


@shared_task(pydantic=True, name="tests.worker.project.publish")
def publish(job: Job) -> str:
    """A plain task that takes the finished job as a model."""
    return f"{job.kind} {job.status} {job.id}"


@shared_task(base=FramelaneTask, pydantic=True, name="tests.worker.project.as_dict")
def as_dict(text: str = "hello") -> RenderRequest:
    """With pydantic=True Celery hands on a dict."""
    return RenderRequest.model_validate({"elements": [{"type": "text", "text": text, "duration": 2}]})
