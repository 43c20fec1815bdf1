"""What an operator does to tasks that wait: cancel one, stop an account's submissions, let them go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from framelane_celery import records
from framelane_celery.errors import FramelaneError
from framelane_celery.records import ForeignRecord, Record
from framelane_celery.room import Hold, Room, move, room_of
from framelane_celery.settings import settings_of

if TYPE_CHECKING:
    from celery import Celery


class NoSuchTask(FramelaneError):
    """No record has that id, or its task is over."""


def room_for(app: Celery) -> Room:
    """The room of an app. Raises: SettingsError."""
    return room_of(app, settings_of(app))


def find(app: Celery, task_id: str) -> Record:
    """Read one record. Raises: NoSuchTask, RoomError."""
    try:
        record, _ = room_for(app).read(task_id)
    except ForeignRecord as error:
        raise NoSuchTask(str(error)) from error
    if record is None:
        raise NoSuchTask(f"{task_id}: no such task (finished ones are remembered for two days)")
    return record


def cancel(app: Celery, task_id: str) -> Record:
    """Cancel a task that waits or runs, as ``revoke`` would: its job is cancelled, its state becomes REVOKED.

    It is written into the record, so it is done even if no worker is up now.
    A task that was cancelled before is answered as it is.
    Raises: NoSuchTask, if there is none or it has ended otherwise; RoomError.
    """
    record, room = find(app, task_id), room_for(app)
    room.add_revokes([f"id:{task_id}"])
    revoked = move(room, task_id, lambda old, now: records.revoke(old, reason="revoked", now=now))
    if revoked is not None:
        return revoked
    record = find(app, task_id)
    if record.ending is None:
        raise NoSuchTask(f"{task_id} is {record.until}: there is nothing left to cancel")
    return record


def hold(app: Celery, account: str = "default", reason: str = "an operator") -> Hold:
    """Stop an account's submissions until `release`. Raises: SettingsError, if there is no such account; RoomError."""
    settings_of(app).of(account)
    return room_for(app).hold(account, "operator", reason)


def release(app: Celery, account: str = "default") -> bool:
    """End an account's hold, whatever it is for; what was held queues for slots. False: none was on.

    Raises: SettingsError, if there is no such account, and no hold of one that there was; RoomError.
    """
    is_released = room_for(app).release(account)
    if not is_released:
        settings_of(app).of(account)
    return is_released
