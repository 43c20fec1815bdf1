"""The one task: a render, whose end is written into the visitor's row."""

from celery import shared_task

from framelane_celery import FramelaneTask, RenderRequest
from videos.models import Video


class VideoTask(FramelaneTask):
    """Keeps a `Video` at the state of its task. Both run in the worker, once the job has ended."""

    abstract = True

    def completed(self, job, video_id):
        Video.objects.filter(pk=video_id).update(state=Video.State.READY, job_id=job.id, code="")
        return {"video": video_id, "job": job.id}

    def on_failure(self, error, task_id, args, kwargs, einfo):
        code = getattr(error, "code", None) or type(error).__name__
        Video.objects.filter(pk=args[0], task_id=task_id).update(state=Video.State.FAILED, code=code)


@shared_task(base=VideoTask, bind=True)
def make_video(self, video_id: int) -> RenderRequest:
    """Say what to render. A replay of a dead letter is a task of its own, so the row learns its id here."""
    Video.objects.filter(pk=video_id).update(state=Video.State.MAKING, task_id=self.request.id, code="")
    return Video.objects.get(pk=video_id).composition()
