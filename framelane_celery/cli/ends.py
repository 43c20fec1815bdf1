"""`ends`: what told of the jobs that ended, and how long that took: a webhook that is dead is seen here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click

from framelane_celery.cli import output
from framelane_celery.cli.output import as_json, print_rows, room_of_app
from framelane_celery.room import Ends

MEANINGS: Final[Mapping[str, str]] = {
    "hint": "a webhook",
    "long_poll": "a read that the API held until the job ended",
    "sweep": "the job was missing from the list of those that go on",
    "read": "a single read in its turn",
    "deadline": "the last look at the deadline",
    "repair": "a look that nothing but caution asked for",
}


@click.command()
@as_json
@click.pass_context
def ends(ctx: click.Context, is_json: bool) -> None:
    """What told of the jobs that ended today and yesterday (UTC), and how long after their end."""
    counted = room_of_app(ctx).ends()
    rows = [_row(source, counted[source]) for source in sorted(counted, key=lambda source: -counted[source].jobs)]
    if is_json:
        output.print_json(rows)
        return
    if not rows:
        output.say("No job has ended today or yesterday.")
        return
    print_rows(
        ("told by", "jobs", "mean delay", "which is"),
        [(row["id"], row["jobs"], _seconds(row["mean_delay_s"]), MEANINGS.get(str(row["id"]))) for row in rows],
    )


def _row(source: str, one: Ends) -> dict[str, str | int | float | None]:
    return {"id": source, "jobs": one.jobs, "mean_delay_s": one.delay_s / one.dated if one.dated else None}


def _seconds(value: object) -> str:
    return f"{value:.2f} s" if isinstance(value, float) else ""
