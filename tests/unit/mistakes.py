"""Compositions that are wrong, each with the field it is about. Made by hand: what people really get wrong."""

from __future__ import annotations

from typing import Any

VIDEO = {"type": "video", "source_url": "https://x.io/a.mp4", "id": "v"}
AUDIO = {"type": "audio", "source_url": "https://x.io/a.mp3"}
TEXT = {"type": "text", "text": "Hello", "duration": 3, "id": "t"}
IMAGE = {"type": "image", "source_url": "https://x.io/a.png", "duration": 2, "id": "i"}
CAPTION = {"style": "glow", "words": [{"text": "hi", "start": 0, "end": 0.4}]}


def of(element: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A composition of a good video and this element, with its fields changed; None takes a field away."""
    changed = {name: value for name, value in {**element, **fields}.items() if value is not None}
    return {"elements": [{**VIDEO, "id": "first"}, changed]}


def joined(**fields: Any) -> dict[str, Any]:
    """A composition with a transition, with its fields changed; None takes a field away."""
    transition = {"type": "cube", "duration": 1, "from_id": "v", "to_id": "t", **fields}
    return {
        "elements": [VIDEO, TEXT],
        "transitions": [{name: value for name, value in transition.items() if value is not None}],
    }


def caption(**fields: Any) -> dict[str, Any]:
    """A composition with an animated word, whose fields are changed."""
    (word,) = CAPTION["words"]
    changed = {name: value for name, value in {**word, **fields}.items() if value is not None}  # type: ignore[dict-item]
    return of(TEXT, word_animation={**CAPTION, "words": [changed]})


REFUSED_BY_BOTH: list[tuple[dict[str, Any], str]] = [
    ({"width": 15, "height": 720}, "width"),
    ({"width": 1280, "height": 8193}, "height"),
    ({"width": 1280}, "height"),
    ({"height": 720}, "width"),
    ({"width": 1280.5, "height": 720}, "width"),
    ({"duration": 0}, "duration"),
    ({"duration": "10s"}, "duration"),
    ({"frame_rate": 241}, "frame_rate"),
    ({"frame_rate": 29.97}, "frame_rate"),
    ({"output_format": "mpeg4"}, "output_format"),
    ({"output_format": "JPEG"}, "output_format"),
    ({"output_filename": "promo.mp4"}, "output_filename"),
    ({"background_color": "red"}, "background_color"),
    ({"background_color": "#12345"}, "background_color"),
    ({"background_image_url": "promo.png"}, "background_image_url"),
    ({"alpha": True}, "alpha"),
    ({"alpha": True, "output_format": "gif"}, "alpha"),
    ({"alpha": "transparent"}, "alpha"),
    ({"webhook_url": "shop.example/hook"}, "webhook_url"),
    ({"metadata": {"order": 7}}, "metadata.order"),
    ({"metadata": "order 7"}, "metadata"),
    ({"ingest_external": "always"}, "ingest_external"),
    ({"elements": {"0": VIDEO}}, "elements"),
    ({"elements": ["intro.mp4"]}, "elements[0]"),
    (of({"source_url": "https://x.io/a.mp4"}), "elements[1].type"),
    (of(VIDEO, type="vidoe"), "elements[1].type"),
    (of(VIDEO, source_url=None), "elements[1].source_url"),
    (of(VIDEO, source_url="/media/a.mp4"), "elements[1].source_url"),
    (of(VIDEO, source_url="https://x.io/a.avi?as=.mp4"), "elements[1].source_url"),
    (of(VIDEO, time=-1), "elements[1].time"),
    (of(VIDEO, track=256), "elements[1].track"),
    (of(VIDEO, in_point=5, out_point=5), "elements[1].out_point"),
    (of(VIDEO, out_point=0), "elements[1].out_point"),
    (of(VIDEO, speed=5), "elements[1].speed"),
    (of(VIDEO, speed=0), "elements[1].speed"),
    (of(VIDEO, volume=101), "elements[1].volume"),
    (of(VIDEO, crop_left=1.5), "elements[1].crop_left"),
    (of(VIDEO, lut_intensity=200), "elements[1].lut_intensity"),
    (of(VIDEO, blend_mode="color-burn"), "elements[1].blend_mode"),
    (of(VIDEO, opacity=-1), "elements[1].opacity"),
    (of(VIDEO, x="half"), "elements[1].x"),
    (of(VIDEO, width="50 %"), "elements[1].width"),
    (of(VIDEO, z_rotation="90 degrees"), "elements[1].z_rotation"),
    (of(VIDEO, visible="perhaps"), "elements[1].visible"),
    (of(VIDEO, z_index=1.5), "elements[1].z_index"),
    (of(VIDEO, color_overlay="red"), "elements[1].color_overlay"),
    (of(VIDEO, effects=[{"type": "vhs", "intensity": 101}]), "elements[1].effects[0].intensity"),
    (of(VIDEO, effects=[{"intensity": 5}]), "elements[1].effects[0].type"),
    (of(VIDEO, motion=[{"type": "fade", "duration": 0}]), "elements[1].motion[0].duration"),
    (of(VIDEO, motion=[{"type": "fade", "easing": "ease"}]), "elements[1].motion[0].easing"),
    (of(VIDEO, motion=[{"type": "fade", "scope": "word"}]), "elements[1].motion[0].scope"),
    (of(AUDIO, volume=0), "elements[1].volume"),
    (of(AUDIO, source_url=None), "elements[1].source_url"),
    (of(AUDIO, in_point=-2), "elements[1].in_point"),
    (of(TEXT, duration=None), "elements[1].duration"),
    (of(TEXT, text=""), "elements[1].text"),
    (of(TEXT, text=7), "elements[1].text"),
    (of(TEXT, font_weight=50), "elements[1].font_weight"),
    (of(TEXT, font_weight="bold"), "elements[1].font_weight"),
    (of(TEXT, font_style="itallic"), "elements[1].font_style"),
    (of(TEXT, text_align="centre"), "elements[1].text_align"),
    (of(TEXT, font_size=0), "elements[1].font_size"),
    (of(TEXT, background=True, shadow=True), "elements[1].shadow"),
    (of(TEXT, background_opacity=101), "elements[1].background_opacity"),
    (of(TEXT, word_animation={**CAPTION, "words": []}), "elements[1].word_animation.words"),
    (of(TEXT, word_animation={**CAPTION, "style": "pop"}), "elements[1].word_animation.style"),
    (caption(start=None), "elements[1].word_animation.words[0].start"),
    (caption(end="0.4s"), "elements[1].word_animation.words[0].end"),
    (of(IMAGE, id=None), "elements[1].id"),
    (of(IMAGE, id=""), "elements[1].id"),
    (of(IMAGE, duration=None), "elements[1].duration"),
    (of(IMAGE, source_url=None), "elements[1].source_url"),
    (joined(duration=0), "transitions[0].duration"),
    (joined(type=None), "transitions[0].type"),
    (joined(to_id="x"), "transitions[0].to_id"),
    (joined(from_id="x"), "transitions[0].from_id"),
    (joined(to_id="v"), "transitions[0].to_id"),
]

# What the server takes, and drops in silence; what the models say of it is the end of their message.
DROPPED_IN_SILENCE: list[tuple[dict[str, Any], str, str]] = [
    ({"framerate": 24}, "framerate", "did you mean 'frame_rate'?"),
    ({"fps": 24}, "fps", "did you mean 'frame_rate'?"),
    ({"widht": 1280}, "widht", "did you mean 'width'?"),
    ({"outputFormat": "gif"}, "outputFormat", "did you mean 'output_format'?"),
    ({"format": "gif"}, "format", "did you mean 'output_format'?"),
    ({"webhook": "https://x.io/hook"}, "webhook", "did you mean 'webhook_url'?"),
    ({"layers": []}, "layers", "did you mean 'elements'?"),
    ({"priority": 1}, "priority", "unknown field (if the API has gained it, write extra={'priority': …})"),
    (of(TEXT, duratoin=3), "elements[1].duratoin", "did you mean 'duration'?"),
    (of(TEXT, color="#ff0000"), "elements[1].color", "did you mean 'text_color'?"),
    (of(TEXT, colour_overlay="#ff0000"), "elements[1].colour_overlay", "did you mean 'color_overlay'?"),
    (of(TEXT, start=2), "elements[1].start", "did you mean 'time'?"),
    (of(TEXT, duration_ms=3000), "elements[1].duration_ms", "write 'duration', which is in seconds"),
    (of(TEXT, volume=50), "elements[1].volume", "only video and audio elements have it"),
    (of(VIDEO, duration=3), "elements[1].duration", "set 'out_point', a second of the source: what is played has no "
     "duration of its own"),
    (of(VIDEO, start=3), "elements[1].start", "write 'time' for when in the output, or 'in_point' for where in its "
     "source"),
    (of(VIDEO, zindex=3), "elements[1].zindex", "did you mean 'z_index'?"),
    (of(AUDIO, z_index=3), "elements[1].z_index", "only video, text and image elements have it"),
    (of(IMAGE, url="https://x.io/b.png"), "elements[1].url", "did you mean 'source_url'?"),
    (of(IMAGE, rotation=90), "elements[1].rotation", "did you mean 'z_rotation'?"),
    (of(IMAGE, motion=[{"type": "fade", "start": 1}]), "elements[1].motion[0].start", "did you mean 'time'?"),
    (of(IMAGE, effects=[{"type": "vhs", "strength": 1}]), "elements[1].effects[0].strength",
     "did you mean 'intensity'?"),
    (caption(confidence=0.98), "elements[1].word_animation.words[0].confidence", "these are a transcript's words, in "
     "milliseconds: WordAnimation.from_transcript makes seconds of them"),
    (joined(**{"from": "v"}), "transitions[0].from", "did you mean 'from_id'?"),
]  # fmt: skip
