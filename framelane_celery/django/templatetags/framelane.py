"""``{% load framelane %}{% framelane_progress task_id %}``: a progress bar that follows a task."""

from __future__ import annotations

from typing import Any

from django import template
from django.urls import reverse

register = template.Library()


@register.inclusion_tag("framelane/progress.html")
def framelane_progress(task_id: Any, label: str = "Progress", script: bool = True) -> dict[str, Any]:
    """A progress bar. ``script=False``: the page brings in framelane/progress.js by itself."""
    url = reverse("framelane:status", args=[str(task_id)])
    return {"url": url, "label": label, "script": script}
