"""A user's own file, for mypy to read: a line that ends in `E:` is refused there, with that code, and no other is.

Nothing here runs; see tests/unit/test_typing.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import assert_type

import framelane_celery as framelane
from framelane_celery import FramelaneClient, FramelaneTask
from framelane_celery.models import (
    AudioElement,
    Effect,
    Element,
    ImageElement,
    Motion,
    RenderRequest,
    TextElement,
    TranscribeRequest,
    Transition,
    VideoElement,
    Word,
    WordAnimation,
    parse_request,
)


def promo(name: str, photos: list[str]) -> RenderRequest:
    intro = VideoElement(id="intro", source_url="https://cdn.example/intro.mp4", in_point=2, volume=40).lasting(3)
    title = TextElement(
        text=name,
        duration=3,
        x="50%",
        y=100,
        font_style="bold",
        effects=[Effect(type="vhs", intensity=20)],
        motion=[Motion(type="fade", time=0, duration=0.5, easing="ease_in")],
        word_animation=WordAnimation(style="glow", words=[Word(text=name, start=0, end=0.6)]),
    )
    elements: list[Element] = [intro, title]
    for at, url in enumerate(photos):
        photo = ImageElement(id=f"photo-{at}", source_url=url, time=3 + 2 * at, duration=2)
        elements.append(photo.above(intro, title))
    elements.append(AudioElement(source_url="https://cdn.example/tune.mp3", volume=20))
    return RenderRequest(
        width=1080,
        height=1920,
        output_format="mp4",
        elements=elements,
        transitions=[Transition(type="cube", duration=1, from_id="intro", to_id="photo-0")],
        metadata={"order": "7"},
        extra={"priority": "high"},
    )


def what_comes_out(request: RenderRequest, transcript: Mapping[str, Any]) -> None:
    assert_type(parse_request(RenderRequest, {"elements": []}), RenderRequest)
    assert_type(parse_request(TranscribeRequest, {}), TranscribeRequest)
    assert_type(request.estimated_output_s(), float | None)
    assert_type(request.elements[0].type, str)  # E: assert-type
    for element in request.elements:
        if isinstance(element, VideoElement):
            assert_type(element.lasting(2), VideoElement)
            WordAnimation.from_transcript(transcript, "box", played_as=element)
        if element.type == "text":
            assert_type(element, TextElement)
            element.out_point  # noqa: B018  # E: union-attr attr-defined


def mistakes(job: framelane.Job) -> None:
    url = "https://cdn.example/a.mp4"
    VideoElement(source_url=url, volum=40)  # E: call-arg
    VideoElement(source_url=url, duration=3)  # E: call-arg
    VideoElement(time=3)  # E: call-arg
    VideoElement(source_url=url, blend_mode="burn")  # E: arg-type
    VideoElement(source_url=url, volume="loud")  # E: arg-type
    VideoElement(source_url=url, x=[10])  # E: arg-type
    AudioElement(source_url=url, z_index=1)  # E: call-arg
    AudioElement(source_url=url).above()  # E: attr-defined
    TextElement(text="x")  # E: call-arg
    TextElement(text="x", duration="3")  # E: arg-type
    TextElement(text="x", duration=3).lasting(3)  # E: attr-defined
    ImageElement(source_url=url, duration=2)  # E: call-arg
    RenderRequest(output_format="avi")  # E: arg-type
    RenderRequest(metadata={"order": 7})  # E: dict-item
    WordAnimation.from_transcript({}, "sparkle")  # E: arg-type
    job.output.url  # noqa: B018  # E: union-attr


# --- tasks and their canvas --------------------------------------------------------------------------------------


def pipeline(request: RenderRequest, job: Mapping[str, Any]) -> None:
    steps = framelane.render.s(request) | framelane.transcribe.s(language="de") | framelane.download.s(path="a.json")
    steps.set(queue="video").delay()
    framelane.render.s({"elements": []}).apply_async(countdown=3, task_id="product-42")
    framelane.render.delay(elements=[], width=1080)
    framelane.render.apply_async((request,), task_id="product-42")
    framelane.render.delay_on_commit(request)
    framelane.transcribe.delay("https://cdn.example/a.mp4", language="de")
    framelane.import_media.si("https://cdn.example/a.mp4")
    framelane.download.delay(job, "a.mp4", storage="default")
    framelane.render.delay(3)  # E: arg-type
    framelane.render.delay(request, request)  # E: call-arg
    framelane.transcribe.s(request)  # E: arg-type
    framelane.download.s(pat="a.mp4")  # E: call-arg
    framelane.render.dely(request)  # E: attr-defined


class Links(FramelaneTask):
    abstract = True

    def completed(self, job: framelane.Job, product: str) -> dict[str, Any]:
        return {"product": product, "job": job.id}


def by_hand() -> None:
    with FramelaneClient("fl_key") as client:
        job = client.get_render("render_1")
        assert_type(job, framelane.Job)
        assert_type(job.is_terminal, bool)
        for one in client.iter_jobs("render", limit=3):
            assert_type(one.id, str)
        client.get_render(7)  # E: arg-type
        client.get_rendr("x")  # E: attr-defined
    try:
        raise framelane.JobFailed("it broke", "render_1", "internal")
    except framelane.JobFailed as error:
        assert_type(error.code, str | None)
    except framelane.ApiError as error:
        assert_type(error.status, int)
