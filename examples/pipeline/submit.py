"""Submit two pipelines and show how they go on: `python submit.py [product]`."""

import sys
import time

import celery_app  # noqa: F401 - the app that the tasks belong to
from celery import chain, chord
from celery.result import AsyncResult
from tasks import SIZES, catalogue, promo, publish, tell_somebody

import framelane_celery as framelane


def submit(product: str) -> dict[str, AsyncResult]:
    """Send both pipelines off. Nothing waits here: in a web application, this is the view."""
    video = promo.s(product, "wide")
    video.link(publish.s(f"{product}.mp4"))
    last = chain(video, framelane.transcribe.s(), publish.s(f"{product}.json")).apply_async(
        link_error=tell_somebody.s()
    )
    body = chord([promo.s(product, size) for size in SIZES], catalogue.s(product)).apply_async()
    sizes = {f"render {size}": one for size, one in zip(SIZES, body.parent.results, strict=True)}
    return {
        "render": last.parent.parent, "transcribe": last.parent, "publish": last, **sizes, "catalogue": body,
    }  # fmt: skip


def follow(results: dict[str, AsyncResult], timeout_s: float = 120) -> bool:
    """Print each change until all are over; True if all went well."""
    said: dict[str, str] = {}
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        for name, result in results.items():
            state, info = result.state, result.info
            # While a job is waited for, the state is PROGRESS and `info` is a dict to show: job_id, percent, stage, …
            says = f"{state} {info['status']}" if state == "PROGRESS" else state
            if says != said.get(name):
                said[name] = says
                print(f"{name:<18} {says}", flush=True)
        if any(result.failed() for result in results.values()):
            return False
        if all(result.successful() for result in results.values()):
            return True
        time.sleep(0.2)
    return False


if __name__ == "__main__":
    sys.exit(0 if follow(submit(sys.argv[1] if len(sys.argv) > 1 else "sneaker")) else 1)
