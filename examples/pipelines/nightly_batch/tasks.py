"""A video for every product, every night, paid for once however often the batch is run."""

from celery import shared_task
from celery.result import AsyncResult

from framelane_celery import FramelaneTask, Job, RenderRequest
from framelane_celery.models import TextElement


class Brief(FramelaneTask):
    """Its result is the job's id alone: hundreds of results are read while the batch is watched."""

    abstract = True

    def completed(self, job: Job, sku: str) -> str:
        return job.id


@shared_task(base=Brief)
def video(sku: str) -> RenderRequest:
    """Its argument is what does not change during a day: other arguments under the same id are refused."""
    return RenderRequest(elements=[TextElement(text=f"Today: {sku}", duration=4)], metadata={"sku": sku})


def submit(day: str, skus: list[str]) -> list[AsyncResult]:
    """Call every video of a day.

    The id is made of the day and the product, and the same id is the same piece of work: what is there already, done,
    under way or waiting, is left as it is. So a batch that broke off is simply submitted again, whole.
    """
    return [video.apply_async((sku,), task_id=f"nightly-{day}-{sku}") for sku in skus]
