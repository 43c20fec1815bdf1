"""The command line: `celery -A proj framelane …` (`commands`), and `framelane-celery` (`standalone`)."""

from framelane_celery.cli.standalone import main

__all__ = ["main"]
