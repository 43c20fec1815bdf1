"""The group `celery -A proj framelane …`. Each module makes commands; here they are put together."""

from __future__ import annotations

from typing import Any

import click

from framelane_celery.cli.accounts import estimate, hold, holds, release
from framelane_celery.cli.dead import dead
from framelane_celery.cli.doctor import doctor, health
from framelane_celery.cli.draining import drain
from framelane_celery.cli.ends import ends
from framelane_celery.cli.metrics import metrics
from framelane_celery.cli.orphans import orphans
from framelane_celery.cli.output import Commands
from framelane_celery.cli.waiting import cancel, progress, waiting


@click.group(cls=Commands, name="framelane")
def framelane(**preload_options: Any) -> None:
    """Framelane jobs: what waits, dead letters, holds. All ask the room; `orphans` the API too; none a broker, but that
    `drain --remove` removes our queues from it."""


for _command in (
    waiting,
    progress,
    cancel,
    ends,
    dead,
    orphans,
    hold,
    release,
    holds,
    estimate,
    doctor,
    health,
    metrics,
    drain,
):
    framelane.add_command(_command)
