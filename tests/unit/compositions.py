"""Random JSON from a JSON schema, for hypothesis; and what is wrong on purpose."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st
from pydantic import ValidationError

from framelane_celery.models import RenderRequest, WireModel
from framelane_celery.models.elements import AudioElement, ImageElement, TextElement, VideoElement

SCHEMA = RenderRequest.model_json_schema()
ELEMENTS: tuple[type[WireModel], ...] = (VideoElement, AudioElement, TextElement, ImageElement)


def drawn(schema: dict[str, Any], but: tuple[str, ...] = ("extra",)) -> st.SearchStrategy[Any]:
    """What a JSON schema of ours describes. Sources are https: what may be fetched is no matter of form."""
    if "$ref" in schema:
        return drawn(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([drawn(option) for option in schema["anyOf"]])
    draw = {
        "string": _string,
        "number": _number,
        "integer": _integer,
        "array": lambda of: st.lists(drawn(of["items"]), min_size=of.get("minItems", 0), max_size=3),
        "object": lambda of: _object(of, but),
        "boolean": lambda _: st.booleans(),
        "null": lambda _: st.none(),
        None: lambda _: st.sampled_from([None, 1, "x", {"a": None}]),  # anything that is JSON
    }
    return draw[schema.get("type")](schema)  # type: ignore[no-any-return]


def _string(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    if "pattern" in schema:
        pattern = schema["pattern"].replace("[hH][tT][tT][pP][sS]?", "https")
        return st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= schema.get("maxLength", 10**6))
    return st.text(min_size=schema.get("minLength", 0), max_size=8)


def _number(schema: dict[str, Any]) -> st.SearchStrategy[float]:
    low, above, high = (schema.get(name) for name in ("minimum", "exclusiveMinimum", "maximum"))
    floats = st.floats(
        low if above is None else above, high, exclude_min=above is not None, allow_nan=False, allow_infinity=False
    )
    return floats | st.integers(1, int(high or 1000)) if (high or 1) >= 1 else floats


def _integer(schema: dict[str, Any]) -> st.SearchStrategy[int]:
    return st.integers(schema.get("minimum"), schema.get("maximum"))


def _object(schema: dict[str, Any], but: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    if "properties" not in schema:
        return st.dictionaries(st.text(max_size=5), drawn(schema["additionalProperties"]), max_size=2)
    fields = {name: drawn(of) for name, of in schema["properties"].items() if name not in but}
    required = {name: fields.pop(name) for name in schema.get("required", [])}
    some = st.sets(st.sampled_from(sorted(fields)), max_size=6) if fields else st.just(set())
    return some.flatmap(lambda names: st.fixed_dictionaries({**required, **{name: fields[name] for name in names}}))


def _is_accepted(model: type[WireModel], value: Any) -> bool:
    try:
        model.model_validate(value)
    except ValidationError:
        return False
    return True


def _element(model: type[WireModel]) -> st.SearchStrategy[dict[str, Any]]:
    """An element on its own; those whose fields do not go together are drawn again."""
    return drawn(SCHEMA["$defs"][model.__name__]).filter(lambda value: _is_accepted(model, value))


# What goes together by a rule that no JSON schema tells is drawn by hand.
_BODY = drawn(SCHEMA, ("extra", "elements", "transitions", "width", "height", "alpha"))
_SIZE = st.fixed_dictionaries({"width": st.integers(16, 8192), "height": st.integers(16, 8192)})
_ALPHA = st.fixed_dictionaries({"alpha": st.just(True), "output_format": st.sampled_from(["webm", "mov"])})
_ELEMENTS = st.lists(st.one_of([_element(model) for model in ELEMENTS]), max_size=4)
_TRANSITIONS = st.lists(drawn(SCHEMA["$defs"]["Transition"], ("extra", "from_id", "to_id")), max_size=2)


@st.composite
def compositions(draw: st.DrawFn) -> dict[str, Any]:
    """A whole composition. No two ids are the same: what the API thinks of that, its pages do not agree on."""
    body = draw(_BODY) | draw(_SIZE | st.just({})) | draw(_ALPHA | st.just({"alpha": False}))
    elements = draw(_ELEMENTS)
    for at, element in enumerate(elements):
        if element.get("id"):
            element["id"] += str(at)
    ids = [element["id"] for element in elements if element.get("id")]
    transitions = draw(_TRANSITIONS)
    for transition in transitions:
        transition["from_id"], transition["to_id"] = draw(st.permutations([*ids, None, ""]))[:2]
    return {**body, "elements": elements, "transitions": transitions}


_URLS = ["https://x.io/a.MOV?b#c", f"https://x.io/{'a' * 2066}.mp4"]
_STRINGS = ["", "x", "promo.v2", "ä" * 500, "#123456", "#00AAFF80", "50%", "-.5°", "+1.deg", "7", *_URLS]


def edges(schema: dict[str, Any]) -> list[Any]:
    """The least, the greatest and each of the words of what a schema describes."""
    if "anyOf" in schema:
        return [value for option in schema["anyOf"] for value in edges(option)]
    if "const" in schema or "enum" in schema:
        return list(schema.get("enum", [schema.get("const")]))
    if schema.get("type") in ("number", "integer"):
        above = schema.get("exclusiveMinimum", -(10**9))
        return [schema.get("minimum", above + 1), schema.get("maximum", 10**9)]
    if schema.get("type") == "string":
        sizes = range(schema.get("minLength", 0), schema.get("maxLength", 10**6) + 1)
        return [text for text in _STRINGS if len(text) in sizes and re.search(schema.get("pattern", ""), text)]
    some: dict[str, list[Any]] = {"boolean": [True, False], "null": [None], "array": [[]], "object": [{}]}
    return some.get(schema.get("type", ""), [])  # what is another model is drawn, not listed
