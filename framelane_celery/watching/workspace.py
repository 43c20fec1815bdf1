"""What a watcher does for one account, with its key: looks at its jobs, and searches for its orphans.

Each has threads, connections and a plan of its own: a list shows the jobs of its key's workspace only, and an account
whose API does not answer keeps nobody waiting but itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from framelane_celery.client import shared_client
from framelane_celery.watching import looks
from framelane_celery.watching.looker import Looker
from framelane_celery.watching.pool import LookPool
from framelane_celery.watching.search import OrphanSearch

if TYPE_CHECKING:
    from framelane_celery.settings import FramelaneSettings
    from framelane_celery.watching.desk import Desk
    from framelane_celery.watching.scribe import Scribe
    from framelane_celery.watching.watcher import Watcher


class Workspace:
    """One account's, for one watcher."""

    def __init__(self, watcher: Watcher, scribe: Scribe, desk: Desk, account: str) -> None:
        settings = watcher.settings.of(account)
        self.pool = LookPool(lambda: shared_client(settings), looks.READ_THREADS + settings.long_polls)
        self.looker = Looker(watcher, scribe, self.pool, desk, account)
        self._search = OrphanSearch(watcher, self.looker, self.pool, account)
        self._has_key = settings.api_key is not None

    def begin_anew(self) -> None:
        """Another watcher has led."""
        self.looker.begin_anew()
        self._search.begin_anew()

    def search(self) -> None:
        """Go on with the search for orphans. Without a key there is nobody to ask."""
        if self._has_key:
            self._search.keep()


def share_reads(workspaces: dict[str, Workspace], settings: FramelaneSettings) -> None:
    """Give each its reads a minute: its own, if its account names some, else a share of what all have together."""
    own = {name: account.reads_per_minute for name, account in settings.accounts.items() if account.reads_per_minute}
    counts = {name: len(one.looker) for name, one in workspaces.items() if name not in own}
    for name, per_minute in {**looks.shares(counts, settings.reads_per_minute), **own}.items():
        workspaces[name].looker.pace(per_minute)
