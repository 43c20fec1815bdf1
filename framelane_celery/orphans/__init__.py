"""Orphans: jobs of ours that no record awaits, and records that wait for a job which is gone.

A room that came back without its last seconds, or empty, leaves jobs behind that are paid for and that nobody looks
at. Their metadata names their task, so they are found by a round over the API's lists. To *adopt* one is to write a
record that waits for it; the watcher and the task's second run then do what they always do. What only the lost record
knew stays lost: the arguments, and the canvas.

A workspace may be shared, and metadata names no namespace: a task of the same name in another app looks like ours. So
nothing is cancelled unasked, and nothing adopted unasked unless our own result backend knows the task.
"""

from framelane_celery.orphans.acting import adopt, cancel, route, tend
from framelane_celery.orphans.finding import (
    GONE_AFTER_S,
    PAGE,
    WHY,
    NoSuchOrphan,
    Orphan,
    Orphans,
    Search,
    Why,
    can_finish,
    find,
    owner_of,
    read,
    why_orphan,
)

__all__ = [
    "GONE_AFTER_S",
    "PAGE",
    "WHY",
    "NoSuchOrphan",
    "Orphan",
    "Orphans",
    "Search",
    "Why",
    "adopt",
    "can_finish",
    "cancel",
    "find",
    "owner_of",
    "read",
    "route",
    "tend",
    "why_orphan",
]
