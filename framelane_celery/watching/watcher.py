"""The watcher: looks at jobs and the clock, moves records on, and sends wake-ups.

Four kinds of threads, so that none waits for another's trouble. The *clock* (this worker's leases, revokes, the lead,
due times, slots) talks to the room only. *Looks* are HTTP calls, in `pool`; `plan` says which, `looker` has them made,
for each account of its own (`workspace`).
The *scribe* acts on what was seen: it moves records and writes results. The *post* talks to the broker: wake-ups and
events.

One watcher is active per namespace; the others stand by, but each renews the leases of its own worker's runs and
writes down the revokes that it hears. Every write of the active one carries its token.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from framelane_celery import records, wakeups
from framelane_celery.client import FramelaneClient
from framelane_celery.errors import FramelaneError, RoomError
from framelane_celery.monitoring import say
from framelane_celery.queues import dead_letter_queue_of
from framelane_celery.records import ForeignRecord, Record
from framelane_celery.room import Room, Transition, move
from framelane_celery.settings import FramelaneSettings
from framelane_celery.tasks.routes import lost
from framelane_celery.watching import scribe
from framelane_celery.watching.desk import Desk
from framelane_celery.watching.holds import Holds
from framelane_celery.watching.keeper import Keeper
from framelane_celery.watching.looker import cancel
from framelane_celery.watching.request import untold
from framelane_celery.watching.revokes import Revokes
from framelane_celery.watching.slots import slot_queues
from framelane_celery.watching.workspace import Workspace, share_reads

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

TICK_S: Final = 0.25
LEAD_S: Final = 10.0
"""How long a dead watcher keeps the lead."""

PAGE: Final = 200
PURGE_EVERY_S: Final = 60.0
LETTERS_EVERY_S: Final = 1.0


class Watcher:
    """One worker's watcher. ``runs`` and ``revokes`` tell what the worker is doing and what it has heard.

    ``events_are_on`` tells whether somebody asked for events (``-E``, or a monitor).
    """

    def __init__(
        self,
        app: Celery,
        room: Room,
        settings: FramelaneSettings,
        node: str,
        *,
        runs: Callable[[], Iterable[str]],
        revokes: Callable[[], Iterable[str]],
        events_are_on: Callable[[], bool],
    ) -> None:
        self.app, self.room, self.settings, self.node = app, room, settings, node
        self._runs, self._heard, self.events_are_on = runs, revokes, events_are_on
        self._owner = f"{node}/{uuid4().hex[:8]}"  # two workers may have one name by mistake
        self.token: int | None = None
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._resigned = not settings.watcher
        self._desk = Desk("framelane-scribe")
        self._post = Desk("framelane-post")
        self._scribe = scribe.Scribe(self)
        self._workspaces = {
            account: Workspace(self, self._scribe, self._desk, account) for account in settings.account_names
        }
        self._clock_ahead_s = time.time() - time.monotonic()  # until the room has said
        self._ticked_at = 0.0
        self._renewed_at = 0.0
        self._purged_at = 0.0
        self._letters_at = 0.0
        self._revokes = Revokes(self, revokes)
        self._holds = Holds(self, {account: one.pool for account, one in self._workspaces.items()})
        self._keeper = Keeper(self, self._scribe, self._desk)
        self._slots = slot_queues(self)

    # --- its life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._desk.start()
        self._post.start()
        threading.Thread(target=self._keep_time, name="framelane-clock", daemon=True).start()

    def hand_over(self) -> None:
        """Have another worker lead, at once. The leases of running tasks are still renewed.

        Called from a signal handler: it only says so, and the clock's own thread does it.
        """
        self._resigned = True
        self._wake.set()

    def stop(self) -> None:
        self._stopping.set()
        self.hand_over()
        self._desk.stop()
        self._post.stop()
        for workspace in self._workspaces.values():
            workspace.pool.stop()

    def _keep_time(self) -> None:
        trouble = 0
        while not self._stopping.is_set():
            try:
                if trouble or self._wake.is_set() or time.monotonic() - self._ticked_at >= TICK_S:
                    self._wake.clear()
                    self._ticked_at = time.monotonic()
                    self._tick()
                if self.token is not None:
                    self._look()
                trouble = 0
            except RoomError as error:
                trouble += 1
                if trouble in (1, 10) or trouble % 100 == 0:
                    logger.error("the room is away, nothing is moved on (%d tries): %s", trouble, error)
            except Exception:  # the clock must not stop; one tick is lost, and told
                trouble += 1
                logger.exception("the watcher's clock stumbled")
            pause_s = TICK_S
            if not trouble and self.token is not None:
                pause_s = min(workspace.looker.pause_s() for workspace in self._workspaces.values())
            self._wake.wait(min(pause_s * 2 ** min(trouble, 5), 5.0))
        self._resign()

    def _look(self) -> None:
        share_reads(self._workspaces, self.settings)
        for workspace in self._workspaces.values():
            workspace.looker.keep()

    def _resign(self) -> None:
        if self.token is None:
            return
        self.token = None
        try:
            self.room.resign(self._owner)
        except RoomError as error:
            logger.warning("the lead could not be handed over, it ends in %.0f s: %s", LEAD_S, error)

    # --- the clock -----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._tell_ends()
        self._renew_runs()
        self._revokes.tell()
        if self._resigned:
            self._resign()
            return
        token = self.room.lead(self._owner, LEAD_S)
        if token != self.token:
            self._take_over(token)
        if token is None:
            return
        self._revokes.read()
        self._keep_due_times()
        self._holds.keep()
        for slots in self._slots:
            slots.let_in()
        self._keeper.keep()
        for workspace in self._workspaces.values():
            workspace.search()
        if time.monotonic() - self._purged_at > PURGE_EVERY_S:
            self._purged_at = time.monotonic()
            self.room.purge()
            self._count_letters()

    def _count_letters(self) -> None:
        """Nothing is dropped in silence, so somebody has to be told that they pile up."""
        letters = self.room.waiting("dead") + self.room.waiting("dead:new")
        if letters >= self.settings.dead_letters_alarm:
            logger.warning(
                "%d dead letters of %s wait for somebody: celery framelane dead list", letters, self.room.namespace
            )

    def _take_over(self, token: int | None) -> None:
        self.token = token
        self._revokes.forget()
        self._holds.forget()
        self._keeper.begin_anew()
        for workspace in self._workspaces.values():
            workspace.begin_anew()
        logger.info("%s: %s", self.node, "another watcher leads" if token is None else f"watching, token {token}")

    def _tell_ends(self) -> None:
        """First of all, before a lease that has ended meanwhile is called back."""
        for task_id, transition in list(untold.items()):
            self._move(task_id, transition)
            del untold[task_id]

    def _renew_runs(self) -> None:
        """Say that this worker's runs are alive, three times in a lease."""
        if time.monotonic() - self._renewed_at < self.settings.lease_s / 3:
            return
        for task_id in self._runs():
            self._move(task_id, partial(_renewed, node=self.node, lease_s=self.settings.lease_s))
        self._renewed_at = time.monotonic()

    def _keep_due_times(self) -> None:
        """Move on what is due, for a second at most: leases and the lead have to be renewed meanwhile."""
        stop_at = time.monotonic() + 1.0
        if time.monotonic() >= self._letters_at + LETTERS_EVERY_S:
            self._letters_at = time.monotonic()
            for record in self.room.due("dead:new", PAGE)[0]:
                self.isolated(record, partial(self._is_due, record))
        while time.monotonic() < stop_at:
            page, _ = self.room.due("clock", PAGE)
            moved = sum(self.isolated(record, partial(self._is_due, record)) for record in page)
            if len(page) < PAGE or not moved:
                return
        self._wake.set()

    def _is_due(self, record: Record) -> bool:
        """Move one record on. True: it is out of the way of the next page."""
        settings = self.settings
        if record.ending and record.until in records.WAITING:
            ending = self.move(record.id, lambda old, now: records.try_to_end(old, now=now))
            if ending is not None:
                self._send_to_end(ending)
            return ending is not None
        if record.until in ("running", "replacing"):
            return self.move(record.id, lambda old, now: lost(self.app, settings, old, now)) is not None
        if record.is_letter:
            announce = partial(records.announce, resend_after_s=settings.resend_after_s)
            letter = self.move(record.id, lambda old, now: announce(old, now=now))
            if letter is not None:
                self._post.put(partial(self._announce_letter, letter))
            return letter is not None
        change = records.resend if record.until == "start" else records.wake
        woken = self.move(
            record.id,
            lambda old, now: (
                change(old, now=now, resend_after_s=settings.resend_after_s)
                if old.step == record.step and old.due_at is not None and old.due_at <= now
                else None
            ),
        )
        if woken is not None:
            self.publish(woken)
        return woken is not None

    def _send_to_end(self, record: Record) -> None:
        """Have the job cancelled, if there is one and it shall be, and then the task ended."""
        end = partial(self._desk.put, partial(self._scribe.end, record))
        workspace = self._workspaces.get(record.account)  # None: nobody has the key that could cancel it
        if workspace is not None and record.job_id is not None and self.settings.cancel_on_revoke:
            workspace.pool.call(partial(_cancel_then, record, end))
        else:
            end()

    # --- small ones ----------------------------------------------------------------------------------------------

    def publish(self, record: Record) -> None:
        """Send the wake-up of a record that has moved. It may be lost, or late while the broker is away."""
        self._post.put(partial(wakeups.publish, self.app, record, **wakeups.ON_A_LIVE_CONNECTION))

    def ask_mend(self, task_id: str, call: wakeups.Call) -> None:
        """A PROGRESS was written too late: see `tasks.mending`."""
        self._post.put(partial(wakeups.ask_mend, self.app, task_id, call))

    def _announce_letter(self, letter: Record) -> None:
        """Runs in the post's thread. If it is not sent, or that is not written, it is sent again."""
        queue = dead_letter_queue_of(self.settings, (letter.letter or {}).get("queue"))
        wakeups.announce(self.app, letter, queue)
        self.move(letter.id, lambda old, now: records.announced(old, step=letter.step))

    def announce(self, kind: str, task_id: str, fields: dict[str, Any]) -> None:
        """Send an event, if anybody asked for events."""
        if self.events_are_on():
            self._post.put(partial(send_event, self.app, self.node, kind, task_id, fields))

    def set_clock(self, now: float) -> None:
        """The room's clock says what time it is."""
        self._clock_ahead_s = now - time.monotonic()

    def now(self) -> float:
        """The room's clock, as it was seen last."""
        return time.monotonic() + self._clock_ahead_s

    def move(self, task_id: str, transition: Transition, known: Record | None = None) -> Record | None:
        """A transition under this watcher's token: refused once another one leads."""
        token = self.token
        if token is None:
            return None
        return self._move(task_id, transition, token=token, known=(known, self.now()) if known else None)

    def _move(self, task_id: str, transition: Transition, **checks: Any) -> Record | None:
        """Move a record on, unless another version of this package wrote it: it is left alone, and stops nobody."""
        try:
            return move(self.room, task_id, transition, **checks)
        except ForeignRecord as error:
            logger.warning("%s: left alone: %s", task_id, error)
            return None

    def isolated(self, record: Record, act: Callable[[], bool]) -> bool:
        """One bad record never stops the others; a room that is away stops all."""
        try:
            is_moved = act()
            self._scribe.went_well(record)
            return is_moved
        except RoomError:
            raise
        except FramelaneError as error:
            say(logger.error, record, "passed over: %s", error)
        except Exception:  # noqa: BLE001 - told with its traceback
            say(logger.exception, record, "passed over")
        self._scribe.put_off(record)
        return False


def _cancel_then(record: Record, then: Callable[[], None], client: FramelaneClient) -> None:
    cancel(client, record.job_kind or "render", record.job_id or "")
    then()


def send_event(app: Celery, node: str, kind: str, task_id: str, fields: dict[str, Any]) -> None:
    """As the worker itself would: a dispatcher with another name makes a phantom worker in Flower."""
    with app.events.default_dispatcher(hostname=node) as dispatcher:
        dispatcher.send(kind, uuid=task_id, **fields)


def _renewed(record: Record, now: float, *, node: str, lease_s: float) -> Record | None:
    return records.renew(record, node=node, now=now, lease_s=lease_s)
