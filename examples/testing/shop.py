"""The project that is tested: a Celery app, a task whose work is a render, and what comes after it."""

from celery import Celery, chain, shared_task

import framelane_celery as framelane
from framelane_celery import FramelaneTask, RenderRequest

app = Celery("shop", broker="redis://localhost:6379/0", backend="redis://localhost:6379/0")

told = []  # stands for the shop's database


@shared_task(base=FramelaneTask)
def promo(product):
    """What to render for a product."""
    text = {"type": "text", "text": f"New: {product}", "duration": 4}
    return RenderRequest.model_validate({"width": 1080, "height": 1920, "elements": [text]})


@shared_task
def publish(job, product):
    """The last step: it gets the finished job of the step before."""
    told.append(f"{product} is published: {job['kind']} {job['status']}")
    return product


@shared_task
def apologise(request, error, traceback, product):
    """Called with the error when a step has failed for good."""
    told.append(f"{product} is not published: {error.code}")


def submit(product):
    """What a view calls."""
    steps = chain(promo.s(product), framelane.transcribe.s(), publish.s(product))
    return steps.on_error(apologise.s(product)).delay()
