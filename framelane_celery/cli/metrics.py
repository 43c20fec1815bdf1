"""`metrics`: answer Prometheus from a process of its own, or print the dashboard and the alert rules."""

from __future__ import annotations

import click

from framelane_celery import metrics as ours
from framelane_celery.cli import output
from framelane_celery.cli.output import NotDone, app_of


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=9108, show_default=True, help="0: any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 for everybody.")
@click.option("--once", is_flag=True, help="Print the metrics as a scrape would see them, and end.")
@click.option("--dashboard", "shows_dashboard", is_flag=True, help="Print the Grafana dashboard, and end.")
@click.option("--alerts", "shows_alerts", is_flag=True, help="Print the alert rules for Prometheus, and end.")
@click.pass_context
def metrics(ctx: click.Context, port: int, host: str, once: bool, shows_dashboard: bool, shows_alerts: bool) -> None:
    """Answer Prometheus with the numbers of all workers, until it is stopped (Ctrl-C)."""
    if shows_dashboard or shows_alerts:
        click.echo(ours.dashboard() if shows_dashboard else ours.alert_rules(), nl=False)
        return
    if once:
        click.echo(ours.text(app_of(ctx)), nl=False)
        return
    try:
        serving = ours.serve(app_of(ctx), port, host)
    except OSError as error:
        raise NotDone(f"port {port} of {host} cannot be used: {error.strerror}") from error
    output.say(f"http://{host}:{serving.port}/metrics")
    serving.thread.join()
