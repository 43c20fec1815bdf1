"""What one round comes to, and what several come to together."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

HIT_SHARE_LEAST: Final = 0.8
"""A run whose faults struck less work than this has shown nothing."""

_COUNTS: Final = (
    "attempted", "accepted", "lost", "duplicated", "paid", "run_twice", "faults_planned", "faults_hit", "seconds",
)  # fmt: skip


@dataclass
class Ledger:
    """Figures of one round, or of all.

    ``figures`` are told and judged by nobody; a fault that promises more than what is counted here writes into
    ``broken`` what did not hold.
    """

    attempted: int = 0
    """Jobs that were asked for: a chain of two tasks asks for two."""
    accepted: int = 0
    """Of those, jobs of calls that returned."""
    lost: int = 0
    """Tasks without a good end."""
    duplicated: int = 0
    """Tasks that were paid for more than once."""
    paid: int = 0
    """Jobs that the server made."""
    run_twice: int = 0
    """Tasks whose second run went to its end more than once: see `ground.run_twice`."""
    faults_planned: int = 0
    faults_hit: int = 0
    """Faults that struck live work: a record of ours was not over."""
    seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    @property
    def hit_share(self) -> float | None:
        """None: no fault was planned."""
        return self.faults_hit / self.faults_planned if self.faults_planned else None

    @property
    def verdict(self) -> str:
        share = self.hit_share
        is_hit = share is None or share >= HIT_SHARE_LEAST
        is_good = is_hit and self.accepted > 0 and not (self.lost or self.duplicated or self.run_twice or self.broken)
        return "pass" if is_good else "fail"

    def check(self, is_so: bool, what: str) -> None:
        """Note a promise that did not hold."""
        if not is_so:
            self.broken.append(what)

    def show(self) -> dict[str, Any]:
        """As it is written into the output."""
        share = self.hit_share
        return {
            **asdict(self),
            "seconds": round(self.seconds, 1),
            "hit_share": None if share is None else round(share, 3),
            "verdict": self.verdict,
        }


def read_ledger(shown: dict[str, Any]) -> Ledger:
    return Ledger(**{name: value for name, value in shown.items() if name in Ledger.__dataclass_fields__})


def together(rounds: dict[str, Ledger]) -> Ledger:
    """All rounds as one; their figures keep the rounds' names."""
    whole = Ledger()
    for label, one in rounds.items():
        for name in _COUNTS:
            setattr(whole, name, getattr(whole, name) + getattr(one, name))
        whole.figures |= {f"{label}: {name}": value for name, value in one.figures.items()}
        whole.broken += [f"{label}: {what}" for what in one.broken]
    return whole
