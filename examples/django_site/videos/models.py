"""A visitor's video: what was ordered, and how far it is."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.urls import reverse

from framelane_celery import RenderRequest
from framelane_celery.models import Motion, TextElement

BACKGROUNDS = [("#1f4e79", "Blue"), ("#7a1f3d", "Red"), ("#1d5c3a", "Green"), ("#2b2b2b", "Charcoal")]

ENDS = [
    ("well", "Well"),
    ("internal", "Well, after an error on Framelane's side: it is tried again by itself"),
    ("source_not_found", "Not, until somebody replays it: a dead letter"),
    ("rolled back", "Not at all: the order is taken back before it is placed"),
]


class Video(models.Model):
    """One order. ``task_id`` is the Celery task that works on it now; a replay is another one."""

    class State(models.TextChoices):
        MAKING = "making", "being made"
        READY = "ready", "ready"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    title = models.CharField(max_length=60)
    background = models.CharField(max_length=7, choices=BACKGROUNDS, default=BACKGROUNDS[0][0])
    seconds = models.PositiveSmallIntegerField(default=4, validators=[MinValueValidator(1), MaxValueValidator(120)])
    ends = models.CharField("how it shall end", max_length=20, choices=ENDS, default="well")

    task_id = models.CharField(max_length=100, db_index=True, editable=False)
    state = models.CharField(max_length=10, choices=State.choices, default=State.MAKING, editable=False)
    code = models.CharField(max_length=100, blank=True, editable=False)
    job_id = models.CharField(max_length=100, blank=True, editable=False)
    ordered_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("video", args=[self.pk])

    def composition(self) -> RenderRequest:
        """What Framelane is asked for. ``metadata`` comes back with the job; here it tells the local server its end."""
        title = TextElement(
            text=self.title,
            duration=self.seconds,
            font_size=72,
            font_weight=700,
            motion=[Motion(type="slide_up", time=0, duration=0.8, easing="ease_out")],
        )
        return RenderRequest(
            width=640,
            height=360,
            output_format="webm",
            background_color=self.background,
            elements=[title],
            metadata={"video": str(self.pk), "ends": self.ends},
        )
