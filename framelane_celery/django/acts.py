"""What an operator does in the admin: the very functions of the command line, each behind its permission."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from framelane_celery import dead_letters, operations
from framelane_celery.errors import FramelaneError

if TYPE_CHECKING:
    from celery import Celery

UNKNOWN: Final = "outcome_unknown"
"""A job may exist, and be paid for, that nobody has seen."""


class Act(NamedTuple):
    """One thing to do to what is selected."""

    name: str
    label: str
    permission: str
    perform: Callable[[Celery, str], str]
    """Does it, and says what was done. Raises: FramelaneError."""
    warning: Callable[[Celery, Sequence[str]], str | None]
    """What has to be confirmed first; None: nothing."""


def _replay(app: Celery, letter_id: str) -> str:
    done = dead_letters.replay(app, letter_id)
    if not done.is_new:
        return f"{letter_id} was replayed before, as {done.task_id}"
    return f"{letter_id} " + ("goes on" if done.task_id == letter_id else f"is replayed as {done.task_id}")


def _of_replay(app: Celery, ids: Sequence[str]) -> str | None:
    if any(_is_unknown(app, letter_id) for letter_id in ids):
        return (
            "A job of it may have been made already that nobody has seen: a replay may be paid for twice."
            " Look for that job first."
        )
    return "Each is a job that is paid for." if len(ids) > 1 else None


def _is_unknown(app: Celery, letter_id: str) -> bool:
    try:
        letter = dead_letters.find(operations.room_for(app), letter_id)
    except dead_letters.NoSuchLetter:  # the replay itself says so
        return False
    return UNKNOWN in (letter.outcome, (letter.failure or {}).get("code"))


def _discard(app: Celery, letter_id: str) -> str:
    dead_letters.discard(app, letter_id)
    return f"{letter_id} is discarded"


def _of_discard(app: Celery, ids: Sequence[str]) -> str:
    return "It is for good. A pipeline that was kept waiting fails then, with its errbacks and its chord."


def _cancel(app: Celery, task_id: str) -> str:
    record = operations.cancel(app, task_id)
    also = f", and its job {record.job_id} will be" if record.until == "job" else ""
    return f"{task_id} is cancelled{also}"


def _of_cancel(app: Celery, ids: Sequence[str]) -> str:
    return "Their jobs are cancelled, and their state becomes REVOKED. It cannot be taken back."


def _release(app: Celery, account: str) -> str:
    if not operations.release(app, account):
        raise FramelaneError(f"account {account} is not on hold")
    return f"account {account} is released; what was held queues for submit slots"


def _nothing(app: Celery, ids: Sequence[str]) -> None:
    """Nothing has to be confirmed."""


REPLAY: Final = Act("replay", "Replay", "framelane.replay_deadletter", _replay, _of_replay)
DISCARD: Final = Act("discard", "Discard", "framelane.discard_deadletter", _discard, _of_discard)
CANCEL: Final = Act("cancel", "Cancel", "framelane.cancel_waitingtask", _cancel, _of_cancel)
RELEASE: Final = Act("release", "Release", "framelane.release_heldaccount", _release, _nothing)
