"""For Flower's configuration, `flowerconfig.py`: how a task is shown. Flower itself is not imported.

    from framelane_celery.flower import format_task

Our own tasks never put a signed URL into an event. A plain task that gets a finished job as its argument does, for
Celery's events show arguments and results as they are.
"""

from __future__ import annotations

from typing import Any, Final

from framelane_celery.errors import clean_text

SHOWN: Final = ("args", "kwargs", "result", "exception", "traceback")
"""What Flower shows of a task that came from elsewhere (`celery.events.state.Task`)."""

_LONGEST_LINE: Final = 10_000


def format_task(task: Any) -> Any:
    """Take the keys out of signed URLs. Flower gives a copy of its task; its API shows tasks without asking this."""
    for name in SHOWN:
        value = getattr(task, name, None)
        if value is not None:
            setattr(task, name, "\n".join(clean_text(line, _LONGEST_LINE) for line in str(value).split("\n")))
    return task
