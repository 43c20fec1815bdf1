"""The models and the local server read one text apart: what the one takes the other takes, and they name one field."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from celery import Celery
from hypothesis import given, settings
from hypothesis import strategies as st

from framelane_celery import InvalidArguments
from framelane_celery.models import (
    AudioElement,
    GazeRedirectRequest,
    ImageElement,
    RemoveBackgroundRequest,
    RenderRequest,
    SuperResolutionRequest,
    TextElement,
    TranscribeRequest,
    VideoElement,
    Word,
    WordAnimation,
    parse_request,
)
from framelane_celery.testing import FramelaneServer
from tests.unit.compositions import ELEMENTS, SCHEMA, compositions, drawn, edges
from tests.unit.mistakes import CAPTION, DROPPED_IN_SILENCE, IMAGE, REFUSED_BY_BOTH, TEXT, VIDEO, of

Post = Callable[..., requests.Response]
MEDIA = (TranscribeRequest, GazeRedirectRequest, SuperResolutionRequest, RemoveBackgroundRequest)
SOURCE = {"source_url": "https://x.io/a.mp4"}


@pytest.fixture(scope="module")
def post() -> Iterator[Post]:
    """Post a body to a local server, over a socket."""
    with (
        FramelaneServer(renders_per_minute=None, tasks_per_minute=None, virtual_time=True) as server,
        requests.Session() as session,
    ):
        session.trust_env = False
        session.headers.update({"Authorization": f"Bearer {server.api_key}", "Content-Type": "application/json"})
        yield lambda body, path="/v1/renders": session.post(f"{server.base_url}{path}", data=body, timeout=60)


def refusal_of(body: Any, model: Any = RenderRequest) -> InvalidArguments:
    with pytest.raises(InvalidArguments) as caught:
        parse_request(model, body)
    return caught.value


@settings(max_examples=200, database=None)
@given(composition=compositions())
def test_what_the_models_accept_the_server_accepts(post: Post, composition: dict[str, Any]) -> None:
    answer = post(parse_request(RenderRequest, composition).body({}))
    assert answer.status_code == 202, answer.text


@pytest.mark.parametrize("model", [*ELEMENTS, RenderRequest], ids=lambda model: model.__name__)
def test_every_field_is_accepted_up_to_its_edges(post: Post, model: Any) -> None:
    """Each field of the schema alone, with its least, its greatest and each of its words."""
    schema = SCHEMA["$defs"].get(model.__name__, SCHEMA)
    least = {name: edges(schema["properties"][name])[0] for name in schema.get("required", ())}
    least |= {"out_point": 10**10} if "out_point" in schema["properties"] else {}
    beside = {"alpha": {"output_format": "mov"}}
    for name in schema["properties"].keys() - {"extra", "elements", "transitions", "out_point", "height"}:
        for value in edges(schema["properties"][name]):
            body = {**least, name: value, **({"height": value} if name == "width" else {}), **beside.get(name, {})}
            answer = post(
                parse_request(RenderRequest, body if model is RenderRequest else {"elements": [body]}).body({})
            )
            assert answer.status_code == 202, (name, value, answer.text)


@pytest.mark.parametrize(("body", "field"), REFUSED_BY_BOTH)
def test_what_is_wrong_is_refused_by_both_with_the_same_field_named(post: Post, body: Any, field: str) -> None:
    answer = post(json.dumps(body).encode())
    assert answer.status_code == 422
    assert [wrong["field"] for wrong in answer.json()["error"]["details"]["fields"]] == [field]
    error = refusal_of(body)
    assert error.field == field
    assert str(error).startswith(f"RenderRequest: {field}: ")


def test_there_are_fifty_of_them() -> None:
    assert len({json.dumps(body) for body, _ in REFUSED_BY_BOTH}) >= 50
    assert len({field for _, field in REFUSED_BY_BOTH}) >= 50


@pytest.mark.parametrize(("body", "field", "said"), DROPPED_IN_SILENCE)
def test_a_typo_that_the_server_drops_is_told_by_the_models(post: Post, body: Any, field: str, said: str) -> None:
    assert post(json.dumps(body).encode()).status_code == 202
    error = refusal_of(body)
    assert error.field == field
    assert str(error).startswith(f"RenderRequest: {field}: unknown field")
    assert str(error).endswith(said)


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({"elements": [VIDEO, VIDEO]}, "elements[1].id", "invalid_request"),
        ({"elements": [VIDEO | {"source_url": "http://x.io/a.mp4"}]}, "elements[0].source_url", "invalid_source"),
    ],
)
def test_where_the_pages_do_not_agree_the_models_let_both_ways_pass(
    post: Post, body: Any, field: str, code: str
) -> None:
    """Two ids alike are an error on one page and in a recipe on another; plain HTTP is for a server of one's own."""
    answer = post(parse_request(RenderRequest, body).body({}))
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["details"]["fields"][0]["field"] == field


# -- media tasks


@pytest.mark.parametrize("model", MEDIA, ids=lambda model: model.__name__)
@settings(max_examples=50, database=None)
@given(data=st.data())
def test_media_requests_that_the_models_accept_the_server_accepts(post: Post, model: Any, data: st.DataObject) -> None:
    body = data.draw(drawn(model.model_json_schema()))
    answer = post(parse_request(model, body).body({}), model.path)
    assert answer.status_code == 202, answer.text


@pytest.mark.parametrize(
    ("model", "body", "field", "said"),
    [
        (TranscribeRequest, {}, "source_url", "is required"),
        (TranscribeRequest, {**SOURCE, "speech_model": "universal-3"}, "speech_model", "did you mean 'universal-2'?"),
        (TranscribeRequest, {**SOURCE, "speakers_expected": 11}, "speakers_expected", "must be 10 or less"),
        (TranscribeRequest, {**SOURCE, "language": ""}, "language", "must not be empty"),
        (TranscribeRequest, {**SOURCE, "word_boost": ["a"] * 201}, "word_boost", "must have at most 200 items"),
        (GazeRedirectRequest, {**SOURCE, "intensity": 50}, "intensity", "must be 1 or less"),
        (RemoveBackgroundRequest, {"source_url": "a.png"}, "source_url", "must be a URL that starts with https://"),
        (RemoveBackgroundRequest, {**SOURCE, "metadata": {"a": 1}}, "metadata.a", "must be a string"),
    ],
)
def test_what_is_wrong_with_a_media_request_is_told_by_both(
    post: Post, model: Any, body: Any, field: str, said: str
) -> None:
    answer = post(json.dumps(body).encode(), model.path)
    assert [wrong["field"] for wrong in answer.json()["error"]["details"]["fields"]] == [field]
    error = refusal_of(body, model)
    assert error.field == field
    assert str(error).startswith(f"{model.__name__}: {field}: ")
    assert str(error).endswith(said)


def test_the_factor_that_no_page_names_goes_into_extra() -> None:
    told = str(refusal_of({**SOURCE, "scale": 2}, SuperResolutionRequest))
    assert "scale: unknown field, write extra={'scale': …}" in told
    assert SuperResolutionRequest(**SOURCE, extra={"scale": 2}).wire({}) == {**SOURCE, "scale": 2}


# -- messages


def test_several_fields_are_told_at_once_each_with_its_place() -> None:
    assert str(refusal_of({"elements": [TEXT | {"duratoin": 3, "colour": "red"}, IMAGE]})) == (
        "RenderRequest: elements[0].duratoin: unknown field, did you mean 'duration'?; "
        "elements[0].colour: unknown field, did you mean 'text_color'?"
    )


@pytest.mark.parametrize("how", ["dict", "model", "fields", "signature"])
def test_the_caller_of_a_task_is_told(how: str) -> None:
    app = Celery("compositions", set_as_current=False, broker="memory://", backend="cache+memory://")
    render = app.tasks["framelane.render"]
    wrong = of(TEXT, duratoin=3)
    calls = {
        "dict": lambda: render.delay(wrong),
        "model": lambda: render.delay(RenderRequest(), **wrong),
        "fields": lambda: render.delay(**wrong),
        "signature": lambda: render.s(wrong).apply_async(),
    }
    with pytest.raises(InvalidArguments, match=r"elements\[1\]\.duratoin: unknown field, did you mean 'duration'\?"):
        calls[how]()


def test_a_name_that_is_a_key_is_not_quoted() -> None:
    error = refusal_of({"https://x.io/a?sig=hunter2": 1, 7: 1})
    assert "hunter2" not in str(error) + str(error.field)
    assert "7: unknown field" in str(error)
    error = refusal_of({"metadata": {"https://x.io/a?sig=hunter2": 1}})
    assert "hunter2" not in str(error) + str(error.field)


# -- the way out


def test_a_field_of_the_future_is_sent_from_any_level() -> None:
    request = RenderRequest(elements=[TextElement(text="x", duration=1, extra={"glow": None})], extra={"priority": 1})
    assert request.wire({}) == {"elements": [{"type": "text", "text": "x", "duration": 1, "glow": None}], "priority": 1}


def test_none_is_left_out_of_what_is_sent() -> None:
    body = {
        "duration": None,
        "webhook_url": None,
        "elements": [TEXT | {"clip": None, "motion": [{"type": "fade", "loop": {"a": None}}]}],
    }
    sent = parse_request(RenderRequest, body).wire({})
    assert sent == {"elements": [TEXT | {"motion": [{"type": "fade", "loop": {"a": None}}]}]}


# -- arithmetic


@pytest.mark.parametrize(("fields", "out_point"), [({}, 3), ({"in_point": 4}, 7), ({"in_point": 4, "speed": 2}, 10)])
def test_a_video_that_lasts_three_seconds(fields: dict[str, float], out_point: float) -> None:
    for model, url in ((VideoElement, "https://x.io/a.mp4"), (AudioElement, "https://x.io/a.mp3")):
        element = model(source_url=url, **fields).lasting(3)
        assert element.out_point == out_point
        assert RenderRequest(elements=[element]).estimated_output_s() == 3


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_nothing_lasts_no_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="out_point"):
        VideoElement(source_url="https://x.io/a.mp4").lasting(seconds)


def test_an_image_lies_above_what_it_shall_cover() -> None:
    video, text = VideoElement.model_validate(VIDEO), TextElement.model_validate(TEXT)
    image = ImageElement.model_validate(IMAGE)
    assert [image.above(*below).z_index for below in ([video], [video, text], [image.above(text)], [])] == [1, 2, 3, 1]
    assert image.z_index is None


TRANSCRIPT = {
    "text": "made on this machine",
    "words": [
        {"text": word, "start": at * 1000, "end": at * 1000 + 650, "confidence": 0.98, "speaker": None}
        for at, word in enumerate(("made", "on", "this", "machine"))
    ],
}


def test_a_transcript_becomes_seconds() -> None:
    caption = WordAnimation.from_transcript(TRANSCRIPT, "glow")
    assert caption.words[:2] == [Word(text="made", start=0, end=0.65), Word(text="on", start=1, end=1.65)]
    assert len(caption.words) == 4


def test_a_transcript_follows_the_element_that_plays_it() -> None:
    video = VideoElement.model_validate(VIDEO | {"time": 10, "in_point": 1.5, "out_point": 3.2, "speed": 2})
    words = WordAnimation.from_transcript(TRANSCRIPT, "box", played_as=video).words
    assert words == [
        Word(text="on", start=10, end=10.075),  # begun before the cut
        Word(text="this", start=10.25, end=10.575),
        Word(text="machine", start=10.75, end=10.85),  # cut off by the end
    ]


@pytest.mark.parametrize("transcript", [{}, {"words": []}, {"words": None}])
def test_a_transcript_without_words_makes_no_caption(transcript: Any) -> None:
    with pytest.raises(InvalidArguments, match="word_timings"):
        WordAnimation.from_transcript(transcript, "glow")


# -- the JSON schema


def test_the_schema_is_whole_and_strict() -> None:
    text = json.dumps(SCHEMA)
    named = {part.partition('"')[0] for part in text.split("#/$defs/")[1:]}
    assert named <= SCHEMA["$defs"].keys()
    for name, part in {**SCHEMA["$defs"], "": SCHEMA}.items():
        if name != "JsonValue":
            assert part["additionalProperties"] is False, name
            assert part["description"], name


@pytest.mark.parametrize("model", ELEMENTS, ids=lambda model: model.__name__)
def test_the_schema_asks_for_what_the_models_ask_for(model: Any) -> None:
    required = SCHEMA["$defs"][model.__name__]["required"]
    whole = {"video": VIDEO, "text": TEXT, "image": IMAGE, "audio": {"type": "audio", "source_url": "https://x.io/a"}}
    element = whole[model.model_fields["type"].default]
    for name in required:
        assert (
            refusal_of(of({key: value for key, value in element.items() if key != name})).field == f"elements[1].{name}"
        )
    assert parse_request(RenderRequest, of({name: element[name] for name in required}))


def test_the_schema_tells_units_and_ranges() -> None:
    video, text = (SCHEMA["$defs"][name]["properties"] for name in ("VideoElement", "TextElement"))
    assert (video["speed"]["minimum"], video["speed"]["maximum"]) == (0.25, 4)
    assert video["source_url"]["format"] == "uri"
    assert "duration" not in video
    assert text["duration"]["description"] == "Seconds."
    assert text["font_style"]["enum"] == ["normal", "italic", "bold", "bolditalic"]
    assert CAPTION["style"] in SCHEMA["$defs"]["WordAnimation"]["properties"]["style"]["enum"]
