"""Holds: accounts whose submissions are stopped, for a spent quota, a wrong key, the spend guard, or by an operator.

Jobs that were accepted are watched meanwhile. A hold ends by itself when its reason has ended, or by an operator; then
what was held queues for slots, in its order. What has been held for as long as it may goes on by the routes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from framelane_celery import records
from framelane_celery.client import FramelaneClient
from framelane_celery.errors import FramelaneError
from framelane_celery.models import Usage
from framelane_celery.records import Record
from framelane_celery.room import Hold
from framelane_celery.tasks.routes import decide

if TYPE_CHECKING:
    from framelane_celery.watching.pool import LookPool
    from framelane_celery.watching.watcher import Watcher

logger = logging.getLogger(__name__)

KEEP_EVERY_S: Final = 1.0
PAGE: Final = 200
ASK_EVERY_S: Final = 600.0
"""How often the usage is read again while a quota is spent: its period may be cut short by an upgrade."""

ASK_KEY_EVERY_S: Final = 60.0
LEAST_S: Final = 60.0
"""The shortest hold for a quota, if the server's clock is behind ours: a refused submission a minute, at most."""


def ends_at(hold: Hold, usage: Usage | None, now: float) -> float | None:
    """When a hold ends, as a reading of the usage tells; None: it tells nothing.

    A key that is refused no more (``unauthorized``) ends its hold at once. A quota's ends with its period.
    """
    if hold.code == "unauthorized":
        return None if usage is None else hold.since
    if hold.code != "quota_exceeded":
        return None
    if usage is None or usage.period_end is None:  # periods are calendar months, says framelane_api.md §12
        return hold.ends_at or _next_month(now)
    if usage.period_start is not None and usage.period_start.timestamp() > hold.since:
        return hold.since
    end = usage.period_end.timestamp()
    return end if end > now else hold.since + LEAST_S


def _next_month(now: float) -> float:
    today = datetime.fromtimestamp(now, timezone.utc)
    year, month = divmod(today.year * 12 + today.month, 12)
    return datetime(year, month + 1, 1, tzinfo=timezone.utc).timestamp()


def ask_every_s(hold: Hold) -> float | None:
    """How often the usage is read for a hold; None: never, as it tells nothing."""
    return {"quota_exceeded": ASK_EVERY_S, "unauthorized": ASK_KEY_EVERY_S}.get(hold.code)


class Holds:
    """One watcher's view of them."""

    def __init__(self, watcher: Watcher, pools: Mapping[str, LookPool]) -> None:
        """``pools`` by account: each calls with its account's key."""
        self._watcher, self._pools = watcher, pools
        self._kept_at = 0.0
        self._asked: dict[tuple[str, float], float] = {}

    def forget(self) -> None:
        """Another watcher may have asked, or not: ask again."""
        self._asked.clear()

    def keep(self) -> None:
        if time.monotonic() - self._kept_at < KEEP_EVERY_S:
            return
        holds, now = self._watcher.room.holds()
        self._watcher.set_clock(now)
        for hold in holds:
            if not hold.is_on:
                if not self._move_out(hold.account):
                    self._watcher.room.drop_hold(hold.account)
            elif hold.ends_at is not None and now >= hold.ends_at:
                self._release(hold, "it has ended")
            elif hold.account in self._pools:  # else the settings name it no more: it is left alone
                self._ask(hold)
                self._give_up_old(hold.account)
        for account in self._pools.keys() - {hold.account for hold in holds}:
            self._move_out(account)  # held by who read a hold that was gone by then
        self._kept_at = time.monotonic()

    def _release(self, hold: Hold, why: str) -> None:
        if self._watcher.token is not None and self._watcher.room.release(hold.account, since=hold.since):
            logger.info("account %s is released from its hold for %s: %s", hold.account, hold.code, why)

    def _move_out(self, account: str) -> int:
        """Queue a page of what was held; how many."""
        held = list(islice(self._watcher.room.scan(f"hold:{account}"), PAGE))
        for record in held:
            self._watcher.move(record.id, lambda old, now: records.release(old, now=now))
        return len(held)

    # --- how long ------------------------------------------------------------------------------------------------

    def _ask(self, hold: Hold) -> None:
        """Have the usage read, now and then: in the pool, for the clock waits for no HTTP."""
        every_s, key = ask_every_s(hold), (hold.account, hold.since)
        if every_s is not None and time.monotonic() - self._asked.get(key, -every_s) >= every_s:
            self._asked[key] = time.monotonic()
            self._pools[hold.account].call(partial(self._read_usage, hold))

    def _read_usage(self, hold: Hold, client: FramelaneClient) -> None:
        usage = None
        try:
            usage = client.get_usage()
        except FramelaneError as error:
            logger.log(
                logging.INFO if hold.code == "unauthorized" else logging.WARNING,
                "account %s is on hold for %s, and its usage could not be read: %s", hold.account, hold.code, error,
            )  # fmt: skip
        end = ends_at(hold, usage, self._watcher.now())
        if end is not None and end <= hold.since:
            self._release(hold, "a new period" if hold.code == "quota_exceeded" else "the key is accepted")
        elif end is not None and end != hold.ends_at and self._is_still_on(hold):
            self._watcher.room.hold(hold.account, hold.code, hold.reason, end)
            logger.info("account %s is on hold for %s until %s", hold.account, hold.code, time.ctime(end))

    def _is_still_on(self, hold: Hold) -> bool:
        """Not released meanwhile: to say when it ends would be to begin it again."""
        return self._watcher.token is not None and any(
            there.is_on and (there.account, there.since) == (hold.account, hold.since)
            for there in self._watcher.room.holds()[0]
        )

    def _give_up_old(self, account: str) -> None:
        """What has been held for as long as it may goes on by the next rule."""
        page, _ = self._watcher.room.due(f"hold:{account}", PAGE)
        for record in page:
            self._watcher.isolated(record, partial(self._give_up, record))

    def _give_up(self, record: Record) -> bool:
        watcher = self._watcher
        failure = record.failure or {"code": "operator", "message": "on hold for as long as it may be"}
        decision = decide(watcher.app, watcher.settings, record, failure["code"], may_hold=False)
        moved = watcher.move(
            record.id,
            lambda old, now: (
                records.fail(
                    old,
                    outcome="failed",
                    failure=failure,
                    decision=decision,
                    now=now,
                    resend_after_s=watcher.settings.resend_after_s,
                    is_refused=old.first_post_at is None,
                )
                if old.step == record.step
                else None
            ),
        )
        if moved is not None and moved.until == "start":
            watcher.publish(moved)
        return moved is not None
