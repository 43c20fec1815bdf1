"""When to try again. Pure: time and chance are passed in."""

from __future__ import annotations

PAUSE_FIRST_S = 1.0
PAUSE_MAX_S = 300.0


def backoff_s(tries: int, *, chance: float, first_s: float = PAUSE_FIRST_S, max_s: float = PAUSE_MAX_S) -> float:
    """Capped exponential backoff with jitter: the wait after ``tries`` failures.

    Units: ``chance`` is uniform in 0 to 1. Half of the span is fixed, so that a first retry never comes at once.
    """
    span = min(max_s, first_s * 2.0 ** min(tries, 20))
    return span / 2 + span / 2 * chance


def pause_s(retry_after_s: float | None, tries: int, *, chance: float) -> float:
    """How long an HTTP call that may be repeated has to wait: what the server asks for, else a backoff.

    A little is added to the server's own figure, so that all who were refused do not come back in the same instant.
    """
    if retry_after_s is None:
        return backoff_s(tries, chance=chance)
    return min(retry_after_s, 3600.0) + min(1.0, PAUSE_FIRST_S * chance)
