"""A user's own file, for mypy to read: a line that ends in `E:` is refused there, with that code, and no other is.

Nothing here runs; see tests/unit/test_typing.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import assert_type

import framelane_celery as framelane
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
