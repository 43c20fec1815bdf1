"""Two thousand renders in one chord, and a body that gets what became of all of them."""

from celery import chord, shared_task

from framelane_celery import FramelaneTask, GuardedTask, Job, RenderRequest
from framelane_celery.models import TextElement


class Brief(FramelaneTask):
    """Its result is the job's id alone: the body's message holds all results at once."""

    abstract = True

    def completed(self, job: Job, number: int) -> str:
        return job.id


@shared_task(base=Brief)
def clip(number: int) -> RenderRequest:
    """One of them."""
    return RenderRequest(elements=[TextElement(text=f"Number {number}", duration=2)])


@shared_task(base=GuardedTask)
def count(job_ids: list[str]) -> int:
    """The body: how many different jobs there were."""
    return len(set(job_ids))


def pipeline(number: int):
    """The canvas. While it waits it holds no worker slot: it is so many records, and a count in the result backend."""
    return chord([clip.s(each) for each in range(number)], count.s())
