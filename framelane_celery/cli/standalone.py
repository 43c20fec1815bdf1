"""`framelane-celery`: commands that need no Celery app."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from framelane_celery.testing import FramelaneServer


@click.group(name="framelane-celery")
def main() -> None:
    """Framelane jobs in Celery: the demo, and a local server for development."""


@main.command()
def demo() -> None:
    """Run a whole pipeline on this machine, without any server."""
    from framelane_celery.demo import main as run_the_demo

    run_the_demo()


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free port.")
@click.option("--job-seconds", default=3.0, show_default=True, type=click.FloatRange(0), help="How long a job takes.")
@click.option("--api-key", default="fl_test_key", show_default=True, help="The key that is let in.")
def serve(host: str, port: int, job_seconds: float, api_key: str) -> None:
    """Run a local stand-in for Framelane's API until Ctrl-C."""
    try:
        from framelane_celery.testing import FramelaneServer

        server = FramelaneServer(host=host, port=port, job_seconds=job_seconds, api_keys=(api_key,)).start()
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror}") from error
    try:
        _until_a_signal(lambda: _announce(server))
    finally:
        server.stop()
    click.echo(f"Stopped after {server.ledger.counts()['requests']} requests.")


def _announce(server: FramelaneServer) -> None:
    click.echo(f"Framelane's API, as a local stand-in: {server.base_url}")
    click.echo("Point your settings at it:")
    click.echo(f'  app.conf.framelane = {{"api_key": "{server.api_key}", "base_url": "{server.base_url}"}}')
    click.echo(f"  export FRAMELANE_API_KEY={server.api_key} FRAMELANE_BASE_URL={server.base_url}")
    click.echo(f"What crossed it: {server.base_url}/_ledger    Stop: Ctrl-C")


def _until_a_signal(begin: Callable[[], None]) -> None:
    """Whoever is told that it has begun may stop it at once, so the signals are minded before that."""
    told = threading.Event()
    before = {number: signal.signal(number, lambda *_: told.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        begin()
        told.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
