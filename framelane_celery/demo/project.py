"""The demo's Celery project: what a user would write. `examples/pipeline` is the same on Redis and on RabbitMQ.

Its key and the API's address come from FRAMELANE_API_KEY and FRAMELANE_BASE_URL.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from celery import Celery, chain, chord, shared_task

import framelane_celery as framelane
from framelane_celery import FramelaneClient, GuardedTask, Job, RenderRequest, models
from framelane_celery.settings import settings_of

# --- the app: files in one folder carry the messages, keep the results and the records ------------------------------

FOLDER = Path(os.environ.get("DEMO_FOLDER", "demo-folder")).absolute()
OUTPUT = Path(os.environ.get("DEMO_OUTPUT", "demo-output")).absolute()

app = Celery("framelane-demo")
app.conf.update(
    broker_url="filesystem://",
    broker_transport="framelane_celery.demo.files:Transport",  # kombu's own loses a message now and then
    broker_transport_options={
        "data_folder_in": str(FOLDER / "messages"),
        "data_folder_out": str(FOLDER / "messages"),
        "control_folder": str(FOLDER / "control"),
        "polling_interval": 0.05,
    },
    result_backend=f"file://{FOLDER}/results",
    result_chord_retry_interval=0.5,  # this result backend has to ask whether a chord is complete; Redis need not
)
app.conf.framelane = {
    "room_url": f"sqlite:///{FOLDER}/room.sqlite",
    "reads_per_minute": 600,  # more than the default, so that the bars move often
}

# --- what is rendered ------------------------------------------------------------------------------------------------

SIZES = {
    "wide": (1920, 1080),
    "square": (1080, 1080),
    "portrait": (1080, 1350),
    "story": (1080, 1920),
    "banner": (1500, 500),
    "cinema": (2560, 1080),
    "preview": (640, 360),
    "thumbnail": (320, 180),
}


def promo(product: str, size: str) -> RenderRequest:
    """Two clips with a transition, a logo that slides in, a caption word by word, music."""
    media = f"https://media.example.com/{product}"
    width, height = SIZES[size]
    caption = [("Made", 1, 1.5), ("to", 1.5, 1.8), ("move", 1.8, 3)]
    words = [models.Word(text=text, start=start, end=end) for text, start, end in caption]
    return RenderRequest(
        width=width,
        height=height,
        elements=[
            models.VideoElement(id="run", source_url=f"{media}/run.mp4", out_point=3, volume=0),
            models.VideoElement(id="jump", source_url=f"{media}/jump.mp4", time=3, out_point=3, volume=0),
            models.ImageElement(
                id="logo",
                source_url=f"{media}/logo.png",
                duration=6,
                x="85%",
                y="12%",
                width="20%",
                z_index=2,
                motion=[models.Motion(type="slide_left", time=0, duration=0.8, easing="ease_out")],
            ),
            models.TextElement(
                text="Made to move",
                time=1,
                duration=4,
                y="80%",
                font_size=72,
                font_weight=800,
                stroke=True,
                word_animation=models.WordAnimation(style="scale_pop", words=words),
            ),
            models.AudioElement(source_url=f"{media}/music.mp3", out_point=6, volume=60, fade_out_duration=1),
        ],
        transitions=[models.Transition(type="cross_dissolve", duration=0.5, from_id="run", to_id="jump")],
        metadata={"product": product, "size": size},  # comes back with the finished job
    )


# --- tasks of the tail, guarded: not lost with their worker ------------------------------------------------


@shared_task(base=GuardedTask)
def publish(result: dict[str, Any], name: str) -> str:
    """Fetch the file of a finished job."""
    job = Job.model_validate(result)
    OUTPUT.mkdir(exist_ok=True)
    with FramelaneClient.from_settings(settings_of(app)) as client:
        client.download("render" if job.kind == "render" else "task", job.id, OUTPUT / name)
    return name


@shared_task(base=GuardedTask)
def catalogue(results: list[dict[str, Any]], product: str) -> list[str]:
    """Fetch the files of all sizes, and write a list of them."""
    names = [publish(result, f"{product}-{result['metadata']['size']}.mp4") for result in results]
    (OUTPUT / f"{product}.catalogue.json").write_text(json.dumps(names, indent=2))
    return names


@shared_task
def tick() -> float:
    """Anything else that the same worker has to do: says when it was run."""
    return time.time()


# --- the two pipelines -----------------------------------------------------------------------------------------------


def render_and_transcribe(product: str) -> Any:
    """A chain: each step starts when the one before has ended; the video is fetched as soon as it is there."""
    video = framelane.render.s(promo(product, "wide"))
    video.link(publish.s(f"{product}.mp4"))
    return chain(video, framelane.transcribe.s(language="en"), publish.s(f"{product}.json"))


def render_all_sizes(product: str) -> Any:
    """A chord: the catalogue is made when the last size is rendered."""
    return chord([framelane.render.s(promo(product, size)) for size in SIZES], catalogue.s(product))
