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


def full_jitter_s(tries: int, *, chance: float, first_s: float, max_s: float) -> float:
    """Capped exponential backoff with full jitter: anywhere in the span, so that a thousand that failed together part.

    Units: ``tries`` counts from 1; ``chance`` is uniform in 0 to 1.
    """
    return chance * min(max_s, first_s * 2.0 ** min(tries - 1, 40))


def pause_s(retry_after_s: float | None, tries: int, *, chance: float) -> float:
    """How long an HTTP call that may be repeated has to wait: what the server asks for, else a backoff.

    A little is added to the server's own figure, so that all who were refused do not come back in the same instant.
    """
    if retry_after_s is None:
        return backoff_s(tries, chance=chance)
    return min(retry_after_s, 3600.0) + min(1.0, PAUSE_FIRST_S * chance)


HEAD_START_S = 3600.0
"""What one level of Celery's priority is worth in the queue of submit slots: an hour of waiting."""


def head_start_s(priority: int | None, *, higher_is_first: bool) -> float:
    """How far ahead of its arrival a task queues. An hour a level, so that what is not urgent waits, but not for ever.

    ``higher_is_first``: on RabbitMQ 9 goes before 0; on Redis and kombu's other transports 0 goes before 9.
    """
    level = max(0, min(priority or 0, 255 if higher_is_first else 9))
    return HEAD_START_S * (level if higher_is_first else 9 - level)
