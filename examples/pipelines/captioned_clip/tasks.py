"""A clip gets captions that light up word by word: transcribe it, make captions of the transcript, render both."""

import json
from io import BytesIO

from celery import chain, shared_task

import framelane_celery as framelane
from framelane_celery import FramelaneClient, FramelaneTask, RenderRequest
from framelane_celery.models import TextElement, VideoElement, WordAnimation
from framelane_celery.settings import settings_of

WORDS_A_LINE = 4


@shared_task(base=FramelaneTask, bind=True)
def captioned(self, transcribed: dict, source_url: str, begin_s: float, seconds: float) -> RenderRequest:
    """Render a part of the clip with its captions. ``transcribed`` is the finished job of the step before."""
    file = BytesIO()
    with FramelaneClient.from_settings(settings_of(self.app)) as client:
        client.download("task", transcribed["id"], file)
    clip = VideoElement(source_url=source_url, in_point=begin_s).lasting(seconds)
    return RenderRequest(width=1080, height=1920, elements=[clip, *captions(json.loads(file.getvalue()), clip)])


def captions(transcript: dict, clip: VideoElement) -> list[TextElement]:
    """A line for each few words, shown while they are spoken.

    The transcript has milliseconds of the source, a caption seconds of the timeline: `from_transcript` does the sum,
    and leaves out the words that the clip does not play.
    """
    words = WordAnimation.from_transcript(transcript, "glow", played_as=clip).words
    lines = [words[at : at + WORDS_A_LINE] for at in range(0, len(words), WORDS_A_LINE)]
    return [
        TextElement(
            text=" ".join(word.text for word in line),
            time=line[0].start,
            duration=line[-1].end - line[0].start,
            y="80%",
            font_size=72,
            word_animation=WordAnimation(style="glow", words=line),
        )
        for line in lines
    ]


def pipeline(source_url: str, begin_s: float = 0, seconds: float = 30):
    """The canvas: two jobs, one after the other."""
    return chain(framelane.transcribe.s(source_url, language="en"), captioned.s(source_url, begin_s, seconds))
