"""What a job is and what it looks like at an instant: pure functions of its life and the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from framelane_celery.testing.lengths import output_seconds

STATUSES = ("ingesting", "queued", "processing", "completed", "failed", "cancelled")
TERMINAL = frozenset({"completed", "failed", "cancelled"})
TASK_TYPES = ("remove_background", "gaze_redirect", "super_resolution", "transcribe")
OPERATIONS = {name.replace("_", "-"): name for name in TASK_TYPES}  # in URLs: framelane_api.md §2
STAGES = ("downloading", "compositing", "encoding", "uploading")


@dataclass(frozen=True)
class Completed:
    """The job ends well. `output` replaces members of the output object, to show what a client must tolerate.

    `file_bytes` makes the file that large, with bytes after its own end.
    """

    output: Mapping[str, Any] = field(default_factory=dict)
    file_bytes: int | None = None


@dataclass(frozen=True)
class Failed:
    """The job ends with an error of framelane_api.md §11."""

    code: str = "internal"
    message: str = "Unexpected error while rendering."


@dataclass(frozen=True)
class Cancelled:
    """The job is cancelled by someone else."""


@dataclass(frozen=True)
class Never:
    """The job stays in `processing` until the test ends it."""


Outcome = Completed | Failed | Cancelled | Never


@dataclass(frozen=True)
class Submission:
    """An accepted request, as the callables `outcome` and `duration` see it."""

    kind: str
    task_type: str | None
    body: Mapping[str, Any]
    idempotency_key: str | None
    number: int

    @property
    def metadata(self) -> Mapping[str, str]:
        """The caller's own pairs."""
        pairs: Mapping[str, str] = self.body.get("metadata", {})
        return pairs

    @property
    def output_s(self) -> float:
        """How many seconds of video a render makes; a media task makes none that is counted (INFER)."""
        return output_seconds(self.body) if self.kind == "render" else 0.0


@dataclass(frozen=True)
class Phase:
    """What a job shows at one instant."""

    status: str
    percent: int
    stage: str | None
    since: float
    outcome: Outcome | None = None

    @property
    def is_terminal(self) -> bool:
        """True when nothing more will happen."""
        return self.status in TERMINAL


@dataclass(frozen=True)
class Life:
    """When a job was accepted, how long it takes, and how it ends.

    The first tenth is `ingesting` (only with ingest_external), the second `queued`, the rest `processing`, of which
    an unknown status may take the first fifth of the whole (INFER).
    """

    accepted_at: float
    duration_s: float
    outcome: Outcome
    ingests: bool = False
    unknown_status: str | None = None
    settled_at: float | None = None

    @property
    def ends_at(self) -> float | None:
        """The instant of the terminal state; None while only a test can bring it."""
        if self.settled_at is not None:
            return self.settled_at
        return None if isinstance(self.outcome, Never) else self.accepted_at + self.duration_s

    def settle(self, outcome: Outcome, at: float) -> Life:
        """End now, with this outcome."""
        return replace(self, outcome=outcome, settled_at=at)

    def accepted(self) -> Phase:
        """What the answer to the POST shows, however short the job is."""
        return Phase("ingesting" if self.ingests else "queued", 0, None, self.accepted_at)

    def phase(self, now: float) -> Phase:
        """What the job shows at `now`."""
        ends_at = self.ends_at
        if ends_at is not None and now >= ends_at:
            return _last_phase(self.outcome, ends_at)
        share = (now - self.accepted_at) / self.duration_s if self.duration_s > 0 else 1.0
        shown = self.accepted()
        for status, begins in self._timetable():
            if share < begins:
                break
            shown = Phase(status, 0, None, self.accepted_at + begins * self.duration_s)
        if shown.status != "processing":
            return shown
        done = min(0.99, max(0.0, (now - shown.since) / (ends_at - shown.since) if ends_at else share))
        return replace(shown, percent=int(done * 100), stage=STAGES[int(done * len(STAGES))])

    def _timetable(self) -> list[tuple[str, float]]:
        if self.unknown_status is None:
            return [("queued", 0.1), ("processing", 0.2)]
        return [("queued", 0.1), (self.unknown_status, 0.2), ("processing", 0.4)]


def _last_phase(outcome: Outcome, at: float) -> Phase:
    if isinstance(outcome, Failed):
        return Phase("failed", 0, None, at, outcome)
    if isinstance(outcome, Cancelled):
        return Phase("cancelled", 0, None, at, outcome)
    return Phase("completed", 100, None, at, outcome)


@dataclass(frozen=True)
class StoredJob:
    """One accepted job. `number` counts from 1 and orders the list."""

    number: int
    id: str
    workspace_id: str
    submission: Submission
    life: Life

    @property
    def kind(self) -> str:
        """`render` or `task`."""
        return self.submission.kind
