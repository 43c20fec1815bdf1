"""The tasks: one of our own whose work is a render, and two plain ones."""

import json
from pathlib import Path

from celery import shared_task

from framelane_celery import FramelaneClient, FramelaneTask, GuardedTask, Job, RenderRequest
from framelane_celery.settings import settings_of

PUBLISHED = Path("published")
SIZES = {"wide": (1920, 1080), "square": (1080, 1080), "story": (1080, 1920), "thumbnail": (320, 180)}


@shared_task(base=FramelaneTask)
def promo(product: str, size: str) -> RenderRequest:
    """Say what to render. The worker submits it and goes on; the task's result is the finished job."""
    media = f"https://media.example.com/{product}"
    width, height = SIZES[size]
    return RenderRequest.model_validate(
        {
            "width": width,
            "height": height,
            "elements": [
                {"type": "video", "id": "run", "source_url": f"{media}/run.mp4", "out_point": 3, "volume": 0},
                {"type": "video", "id": "jump", "source_url": f"{media}/jump.mp4", "out_point": 3, "time": 3},
                {
                    "type": "image", "id": "logo", "source_url": f"{media}/logo.png", "duration": 6, "z_index": 2,
                    "x": "85%", "y": "12%", "width": "20%",
                    "motion": [{"type": "slide_left", "time": 0, "duration": 0.8}],
                },
                {
                    "type": "text", "text": "Made to move", "time": 1, "duration": 4, "y": "80%", "font_size": 72,
                    "word_animation": {
                        "style": "scale_pop",
                        "words": [
                            {"text": "Made", "start": 1, "end": 1.5},
                            {"text": "to", "start": 1.5, "end": 1.8},
                            {"text": "move", "start": 1.8, "end": 3},
                        ],
                    },
                },
                {"type": "audio", "source_url": f"{media}/music.mp3", "out_point": 6, "volume": 60},
            ],
            "transitions": [{"type": "cross_dissolve", "duration": 0.5, "from_id": "run", "to_id": "jump"}],
            "metadata": {"product": product, "size": size},
        }
    )  # fmt: skip


@shared_task(base=GuardedTask, bind=True)
def publish(self, result: dict, name: str) -> str:
    """Fetch the file of a finished job. Guarded: not lost with its worker. What happens twice here does no harm."""
    job = Job.model_validate(result)
    PUBLISHED.mkdir(exist_ok=True)
    with FramelaneClient.from_settings(settings_of(self.app)) as client:
        client.download(job.kind, job.id, PUBLISHED / name)
    return name


@shared_task(base=GuardedTask)
def catalogue(results: list[dict], product: str) -> list[str]:
    """Fetch the files of all sizes, and write a list of them."""
    names = [publish(result, f"{product}-{result['metadata']['size']}.mp4") for result in results]
    (PUBLISHED / f"{product}.catalogue.json").write_text(json.dumps(names, indent=2))
    return names


@shared_task
def tell_somebody(task_id: str) -> None:
    """An errback: it gets the id of the task that failed."""
    print(f"task {task_id} failed; its AsyncResult has the error")
