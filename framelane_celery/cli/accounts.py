"""`hold`, `release`, `holds`: an account's submissions, stopped and let go on. `estimate`: what a render will cost."""

from __future__ import annotations

import json
from shlex import quote
from typing import IO, Any

import click

from framelane_celery import operations
from framelane_celery.cli import output
from framelane_celery.cli.output import NotDone, app_of, as_json, count_of, print_rows, room_of_app, short
from framelane_celery.errors import RoomError
from framelane_celery.models import RenderRequest, parse_request
from framelane_celery.room import Hold, Room
from framelane_celery.settings import FramelaneSettings, settings_of
from framelane_celery.waits import relative


def _account_name(text: str) -> str:
    if not text.strip():
        raise ValueError(text)
    return text


_account = click.argument("account", type=_account_name, default="default")


@click.command()
@_account
@click.option("--reason", default="an operator", show_default=True, help="Why, for whoever asks.")
@as_json
@click.pass_context
def hold(ctx: click.Context, account: str, reason: str, is_json: bool) -> None:
    """Stop the submissions of ACCOUNT (without one: default). Jobs that are accepted already are still watched."""
    on = operations.hold(app_of(ctx), account, short(reason) or "an operator")
    if is_json:
        output.print_json(_as_json(on, room_of_app(ctx)))
        return
    output.say(f"Account {account} is on hold ({on.reason}) until: celery framelane release {quote(account)}")


@click.command()
@_account
@as_json
@click.pass_context
def release(ctx: click.Context, account: str, is_json: bool) -> None:
    """End the hold of ACCOUNT (without one: default), whatever it is for. What was held queues for submit slots."""
    room = room_of_app(ctx)
    held = room.waiting(f"hold:{account}")
    if not operations.release(app_of(ctx), account):
        raise NotDone(f"account {account} is not on hold")
    if is_json:
        output.print_json({"id": account, "account": account, "released": True, "held": held})
        return
    output.say(f"Account {account} is released; {count_of(held, 'task')} will queue for submit slots.")


@click.command()
@as_json
@click.pass_context
def holds(ctx: click.Context, is_json: bool) -> None:
    """List the accounts whose submissions are stopped: why, since when, until when, how many tasks are held."""
    room = room_of_app(ctx)
    known, now = room.holds()
    rows = [_as_json(hold, room) for hold in known if hold.is_on]
    if is_json:
        output.print_json(rows)
        return
    if not rows:
        output.say("No account is on hold.")
        return
    print_rows(
        ("account", "code", "since", "until", "held", "reason"),
        [
            (
                row["account"],
                row["code"],
                relative(row["since"], now),
                "an operator releases it" if row["ends_at"] is None else relative(row["ends_at"], now),
                row["held"],
                row["reason"],
            )
            for row in rows
        ],
    )
    output.say(f"{count_of(len(rows), 'account')} on hold. To end a hold: celery framelane release ACCOUNT")


def _as_json(hold: Hold, room: Room) -> dict[str, Any]:
    return {
        "id": hold.account,
        "account": hold.account,
        "code": hold.code,
        "reason": short(hold.reason),
        "since": hold.since,
        "ends_at": hold.ends_at,
        "held": room.waiting(f"hold:{hold.account}"),
    }


# --- what a render will cost -------------------------------------------------------------------------------------


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--account", type=_account_name, default="default", show_default=True, metavar="NAME", help="Whose spend guard."
)
@as_json
@click.pass_context
def estimate(ctx: click.Context, file: IO[bytes], account: str, is_json: bool) -> None:
    """Estimate the output of a composition: FILE is a RenderRequest as JSON ("-": read it from stdin).

    And tell what the spend guard leaves for today.
    """
    request = _request_in(file)
    seconds = request.estimated_output_s()
    why = _why_not(request) if seconds is None else _why_more(request)
    settings = settings_of(app_of(ctx), needs_room=False).of(account)
    left: dict[str, Any] = {}
    away = None
    if settings.spend_guard.counts:
        try:
            left = _left(settings, room_of_app(ctx), account)
        except RoomError as error:
            away = error
    minutes = None if seconds is None else seconds / 60
    if is_json:
        output.print_json(
            {"seconds": seconds, "minutes": minutes, "note": why, "account": account, "left": left or None}
        )
    else:
        output.say(_told(seconds, why))
        _tell_left(left, minutes, account)
    if away is not None:
        raise NotDone(f"what the spend guard leaves cannot be told: {away}") from away


def _request_in(file: IO[bytes]) -> RenderRequest:
    try:
        data = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise NotDone(f"not JSON: {short(error, 120)}") from error
    return parse_request(RenderRequest, data)


def _told(seconds: float | None, why: str | None) -> str:
    if seconds is None:
        return f"The output's length cannot be told: {why}."
    if seconds == 0:
        return "A picture: it has no seconds."
    return f"About {seconds:g} s of output, {seconds / 60:.2f} min." + (f" Perhaps more: {why}." if why else "")


def _open_ended(request: RenderRequest) -> int:
    """Elements that play to the end of their source."""
    return sum(getattr(element, "out_point", 0) is None for element in request.elements)


def _why_not(request: RenderRequest) -> str:
    if not request.elements:
        return "there is no duration, and there are no elements"
    return "there is no duration, and no element tells when it ends: they play to the end of their sources"


def _why_more(request: RenderRequest) -> str | None:
    number = _open_ended(request)
    if request.duration is not None or not number or request.output_format in ("png", "jpg"):
        return None
    return f"{count_of(number, 'element')} without out_point, played to the end of the source"


def _left(settings: FramelaneSettings, room: Room, account: str) -> dict[str, Any]:
    guard, (submissions, minutes) = settings.spend_guard, room.spent(account)
    left: dict[str, Any] = {"submissions_spent": submissions, "minutes_spent": minutes}
    if guard.submissions_per_day is not None:
        left["submissions"] = max(0, guard.submissions_per_day - submissions)
    if guard.minutes_per_day is not None:
        left["minutes"] = max(0.0, guard.minutes_per_day - minutes)
    return left


def _tell_left(left: dict[str, Any], minutes: float | None, account: str) -> None:
    parts = []
    if "submissions" in left:
        parts.append(count_of(left["submissions"], "submission"))
    if "minutes" in left:
        parts.append(f"{left['minutes']:.2f} min of output")
    if not parts:
        return
    output.say(f"The spend guard leaves account {account} {' and '.join(parts)} for today (UTC).")
    if left.get("submissions") == 0 or (minutes or 0) > left.get("minutes", float("inf")):
        output.say("So this one would be stopped by it.")
