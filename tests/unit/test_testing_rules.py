"""Which requests the local server refuses: the rules of framelane_api.md §5 and §6, one case each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framelane_celery.testing.jobs import TASK_TYPES
from framelane_celery.testing.validation import check_request

HERE = "https://media.example/"
VIDEO = {"type": "video", "source_url": f"{HERE}a.mp4?token=1", "id": "v"}
AUDIO = {"type": "audio", "source_url": f"{HERE}a.mp3", "id": "a"}
TEXT = {"type": "text", "text": "hi", "duration": 2, "id": "t"}
IMAGE = {"type": "image", "source_url": f"{HERE}a.png", "duration": 2, "id": "i"}
WORDS = {"style": "glow", "words": [{"text": "hi", "start": 0, "end": 0.4}]}


def problems_of(task_type: str | None, body: Any) -> list[tuple[str, str]]:
    """The fields that are wrong, with the code each is refused with."""
    found = check_request(task_type, body, lambda url: url.startswith("https://"))
    return [(problem.field, problem.violation or problem.code) for problem in found]


def test_a_composition_with_all_that_is_documented_is_accepted() -> None:
    motion = {"type": "slide_up", "time": 0, "duration": 1, "easing": "ease_in", "reversed": True, "scope": "character"}
    effect = {"type": "chroma_key", "intensity": 50, "chroma_settings": {"hue_min": 1}}
    looks = {"x": "50%", "y": 10, "z_rotation": "90°", "x_rotation": "-45deg", "opacity": 80, "blend_mode": "screen"}
    body = {
        "width": 1920,
        "height": 1080,
        "duration": 12.5,
        "frame_rate": 60,
        "output_format": "mov",
        "alpha": True,
        "output_filename": "promo",
        "background_color": "#00000080",
        "background_image_url": f"{HERE}b.png",
        "elements": [
            {**VIDEO, **looks, "in_point": 1, "out_point": 4, "speed": 2, "motion": [motion], "effects": [effect]},
            {**AUDIO, "volume": 1},
            {**TEXT, "word_animation": WORDS, "shadow": True, "background": False, "font_weight": 700},
            {**IMAGE, "crop_top": 0.5, "lut_url": f"{HERE}a.cube", "track": 255, "visible": False},
        ],
        "transitions": [{"type": "fade", "duration": 1, "from_id": "v", "to_id": "i"}, {"type": "new", "duration": 1}],
        "metadata": {"project_id": "p"},
        "webhook_url": None,
        "ingest_external": None,
    }
    assert problems_of(None, body) == []
    assert problems_of(None, {}) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"width": 100}, "height"),
        ({"height": 100}, "width"),
        ({"width": 15, "height": 16}, "width"),
        ({"width": 16, "height": 8193}, "height"),
        ({"width": 16.5, "height": 16}, "width"),
        ({"width": True, "height": 16}, "width"),
        ({"duration": 0}, "duration"),
        ({"duration": "10"}, "duration"),
        ({"frame_rate": 0}, "frame_rate"),
        ({"frame_rate": 241}, "frame_rate"),
        ({"output_format": "avi"}, "output_format"),
        ({"output_filename": "a.mp4"}, "output_filename"),
        ({"background_color": "black"}, "background_color"),
        ({"background_color": "#fff"}, "background_color"),
        ({"background_image_url": ""}, "background_image_url"),
        ({"webhook_url": f"https://{'a' * 2083}"}, "webhook_url"),
        ({"alpha": True}, "alpha"),
        ({"alpha": True, "output_format": "gif"}, "alpha"),
        ({"ingest_external": "yes"}, "ingest_external"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": None}, "metadata"),
        ({"elements": {}}, "elements"),
        ({"transitions": [{"type": "iris", "duration": 0}]}, "transitions[0].duration"),
        ({"transitions": [{"duration": 1}]}, "transitions[0].type"),
    ],
)
def test_top_level_rules(change: dict[str, Any], field: str) -> None:
    assert problems_of(None, change) == [(field, "invalid_request")]


@pytest.mark.parametrize(
    ("element", "field"),
    [
        (5, ""),
        ({"type": "shape"}, ".type"),
        ({"source_url": HERE}, ".type"),
        ({"type": "video"}, ".source_url"),
        ({**VIDEO, "source_url": f"{HERE}a.mkv?x=.mp4"}, ".source_url"),
        ({**VIDEO, "source_url": "a.mp4"}, ".source_url"),
        ({**VIDEO, "time": -1}, ".time"),
        ({**VIDEO, "track": 256}, ".track"),
        ({**VIDEO, "in_point": 5, "out_point": 5}, ".out_point"),
        ({**VIDEO, "out_point": 0}, ".out_point"),
        ({**VIDEO, "speed": 4.1}, ".speed"),
        ({**VIDEO, "volume": 101}, ".volume"),
        ({**VIDEO, "crop_left": 1.1}, ".crop_left"),
        ({**VIDEO, "blend_mode": "burn"}, ".blend_mode"),
        ({**VIDEO, "opacity": -1}, ".opacity"),
        ({**VIDEO, "x": "half"}, ".x"),
        ({**VIDEO, "motion": [{"type": "fade", "time": -1}]}, ".motion[0].time"),
        ({**VIDEO, "motion": [{"type": "fade", "easing": "bounce"}]}, ".motion[0].easing"),
        ({**VIDEO, "effects": [{"type": "vhs", "intensity": 101}]}, ".effects[0].intensity"),
        ({**AUDIO, "volume": 0}, ".volume"),
        ({**AUDIO, "in_point": 2, "out_point": 1}, ".out_point"),
        ({"type": "text", "text": "hi"}, ".duration"),
        ({"type": "text", "duration": 1}, ".text"),
        ({**TEXT, "text": ""}, ".text"),
        ({**TEXT, "font_weight": 950}, ".font_weight"),
        ({**TEXT, "font_style": "oblique"}, ".font_style"),
        ({**TEXT, "background": True, "stroke": True}, ".stroke"),
        ({**TEXT, "word_animation": {"style": "glow", "words": []}}, ".word_animation.words"),
        ({**TEXT, "word_animation": {**WORDS, "style": "zoom"}}, ".word_animation.style"),
        ({"type": "image", "source_url": HERE, "duration": 1}, ".id"),
        ({**IMAGE, "id": ""}, ".id"),
        ({"type": "image", "source_url": HERE, "id": "i"}, ".duration"),
    ],
)
def test_rules_of_elements(element: Any, field: str) -> None:
    assert problems_of(None, {"elements": [VIDEO | {"id": "first"}, element]}) == [
        (f"elements[1]{field}", "invalid_request")
    ]


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({"elements": [VIDEO, {**TEXT, "id": "v"}]}, "elements[1].id", "DUPLICATE_ELEMENT_ID"),
        ({"transitions": [{"from_id": "v", "to_id": "v"}]}, "transitions[0].to_id", "TRANSITION_SELF"),
        ({"transitions": [{"from_id": "v", "to_id": "x"}]}, "transitions[0].to_id", "DANGLING_TRANSITION"),
        ({"transitions": [{"from_id": "x"}], "elements": None}, "transitions[0].from_id", "DANGLING_TRANSITION"),
        ({"elements": [{"type": "composition"}]}, "elements[0].type", "unsupported_feature"),
        ({"elements": [{**IMAGE, "source_url": "http://a.example/a.png"}]}, "elements[0].source_url", "invalid_source"),
    ],
)
def test_invariants_beyond_the_schema(body: dict[str, Any], field: str, code: str) -> None:
    for transition in body.get("transitions", []):
        transition.update({"type": "iris", "duration": 1})
    assert problems_of(None, {"elements": [VIDEO], **body}) == [(field, code)]


def test_elements_without_an_id_are_not_duplicates() -> None:
    assert problems_of(None, {"elements": [{**VIDEO, "id": ""}, {**TEXT, "id": ""}]}) == []


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_every_media_task_needs_a_source(task_type: str) -> None:
    assert problems_of(task_type, {"source_url": f"{HERE}a.mp4"}) == []
    assert problems_of(task_type, {}) == [("source_url", "invalid_request")]
    assert problems_of(task_type, {"source_url": "http://a.example/a.mp4"}) == [("source_url", "invalid_source")]


@pytest.mark.parametrize(
    ("task_type", "change"),
    [
        ("transcribe", {"speech_model": "universal"}),
        ("transcribe", {"speakers_expected": 0}),
        ("transcribe", {"speakers_expected": 11}),
        ("transcribe", {"word_boost": ["a"] * 201}),
        ("transcribe", {"word_timings": 1}),
        ("transcribe", {"language": 7}),
        ("gaze_redirect", {"intensity": 1.01}),
        ("super_resolution", {"scale": 5}),
        ("remove_background", {"metadata": []}),
    ],
)
def test_rules_of_media_tasks(task_type: str, change: dict[str, Any]) -> None:
    assert problems_of(task_type, {"source_url": f"{HERE}a.mp4", **change}) == [(next(iter(change)), "invalid_request")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "text", "type"]), inner),
    max_leaves=4,
)
ELEMENT = st.fixed_dictionaries(
    {"type": st.sampled_from(["video", "audio", "text", "image"]) | JSON},
    optional=dict.fromkeys(
        ("id", "source_url", "in_point", "out_point", "duration", "text", "motion", "word_animation", "x"), JSON
    ),
)
TRANSITION = st.fixed_dictionaries({"type": JSON, "duration": JSON}, optional={"from_id": JSON, "to_id": JSON})
BODY = st.fixed_dictionaries(
    {},
    optional={
        "elements": st.lists(ELEMENT | JSON, max_size=3) | JSON,
        "transitions": st.lists(TRANSITION, max_size=2) | JSON,
        **dict.fromkeys(("width", "height", "duration", "alpha", "output_format", "metadata", "source_url"), JSON),
    },
)


@settings(max_examples=60, deadline=None, database=None)
@given(body=BODY, task_type=st.none() | st.sampled_from(TASK_TYPES))
def test_no_body_breaks_the_rules_themselves(body: dict[str, Any], task_type: str | None) -> None:
    for field, code in problems_of(task_type, body):
        assert field
        assert code
