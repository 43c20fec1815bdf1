"""Animated words: a transcript has milliseconds of its source, a caption seconds of the whole timeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field

from framelane_celery.errors import InvalidArguments
from framelane_celery.models.fields import Number
from framelane_celery.models.request import WireModel

WordStyle = Literal["glow", "box", "scale_pop", "slide_up", "fly_in", "color"]

_MILLISECONDS = "these are a transcript's words, in milliseconds: WordAnimation.from_transcript makes seconds of them"


class Played(Protocol):
    """What a source is played as: a VideoElement or an AudioElement."""

    @property
    def in_point(self) -> float: ...
    @property
    def out_point(self) -> float | None: ...
    def timeline_s(self, source_s: float) -> float:
        """Say when a second of the source is seen or heard."""


class Word(WireModel):
    """A word of an animated caption; `start` and `end` are seconds of the whole timeline."""

    text: str
    start: Number = Field(description="Seconds of the whole timeline; a transcript has milliseconds.")
    end: Number = Field(description="Seconds of the whole timeline; a transcript has milliseconds.")

    instead_of: ClassVar[Mapping[str, str]] = {"confidence": _MILLISECONDS, "speaker": _MILLISECONDS}


class WordAnimation(WireModel):
    """How the words of a text element come in."""

    style: WordStyle
    words: Annotated[list[Word], Field(min_length=1)]

    @classmethod
    def from_transcript(
        cls, transcript: Mapping[str, Any], style: WordStyle, *, played_as: Played | None = None
    ) -> WordAnimation:
        """Make a caption of what `transcribe` has heard: milliseconds become seconds.

        `played_as` is the element that plays what was transcribed: words are then where it is heard on the timeline,
        and those that its in_point and out_point cut away are left out. Without it, the source plays from the start.

        Units:  the transcript's words have milliseconds (INFER from the documented sample: `end: 650` for one word).
        Raises: InvalidArguments, if no word is left.
        Source: docs.framelane.io/tasks/transcribe, …/renders/examples/word-animation.
        """
        words = [Word(text=text, start=start, end=end) for text, start, end in _heard(transcript, played_as)]
        if not words:
            raise InvalidArguments("the transcript has no words here; was it made with word_timings?", "words")
        return cls(style=style, words=words)


def _heard(transcript: Mapping[str, Any], played_as: Played | None) -> Iterator[tuple[str, float, float]]:
    for word in transcript.get("words") or ():
        start, end = word["start"] / 1000, word["end"] / 1000
        if played_as is not None:
            if end <= played_as.in_point or (played_as.out_point is not None and start >= played_as.out_point):
                continue
            start, end = (
                played_as.timeline_s(max(start, played_as.in_point)),
                played_as.timeline_s(end if played_as.out_point is None else min(end, played_as.out_point)),
            )
        yield str(word["text"]), round(start, 3), round(end, 3)
