"""A video for each product, and a catalogue of those that were made and of those that were not."""

from celery import shared_task

from framelane_celery import FramelaneTask, GuardedTask, RenderRequest, TaskFailure, gather
from framelane_celery.models import ImageElement, TextElement


@shared_task(base=FramelaneTask)
def video(sku: str, name: str, picture_url: str) -> RenderRequest:
    """Four seconds of one product."""
    picture = ImageElement(id="picture", source_url=picture_url, duration=4)
    return RenderRequest(elements=[picture, TextElement(text=name, duration=4, y="80%")], metadata={"sku": sku})


@shared_task(base=GuardedTask)
def catalogue(items: list[dict], skus: list[str]) -> dict:
    """The body: it gets an item for each product, in their order, be it a finished job or a failure."""
    made, missing = {}, {}
    for sku, item in zip(skus, items, strict=True):
        failure = TaskFailure.of(item)
        if failure is None:
            made[sku] = item["id"]
        else:
            missing[sku] = {"code": failure.code, "letter": failure.task_id}
    return {"made": made, "missing": missing}


def pipeline(products: list[dict]):
    """The canvas. With `chord` in place of `gather`, one picture that is gone would cost the whole catalogue."""
    return gather([video.s(**product) for product in products], catalogue.s([product["sku"] for product in products]))
