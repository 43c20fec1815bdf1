"""A local stand-in for Framelane's REST API, for tests, demos and development.

It is written from the documented contract alone and imports none of the client's models, so that a wrong model is
noticed here and not in production. Names are loaded when first asked for: pytest reads the plugin of this package in
every project that has it installed, with or without the `testing` extra.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from framelane_celery.testing.clock import Clock
    from framelane_celery.testing.ends import assert_dead_letter, assert_waiting
    from framelane_celery.testing.faults import Fault, Faults
    from framelane_celery.testing.jobs import Cancelled, Completed, Failed, Never, Outcome, Submission
    from framelane_celery.testing.ledger import Entry, Ledger
    from framelane_celery.testing.server import FramelaneServer
    from framelane_celery.testing.submitted import SubmittedJob
    from framelane_celery.testing.switches import Switches
    from framelane_celery.testing.webhooks import Delivered, Deliveries

__all__ = [
    "Cancelled",
    "Clock",
    "Completed",
    "Delivered",
    "Deliveries",
    "Entry",
    "Failed",
    "Fault",
    "Faults",
    "FramelaneServer",
    "Ledger",
    "Never",
    "Outcome",
    "Submission",
    "SubmittedJob",
    "Switches",
    "assert_dead_letter",
    "assert_waiting",
]

_HOMES = {
    "Cancelled": "jobs",
    "Clock": "clock",
    "Completed": "jobs",
    "Delivered": "webhooks",
    "Deliveries": "webhooks",
    "Entry": "ledger",
    "Failed": "jobs",
    "Fault": "faults",
    "Faults": "faults",
    "FramelaneServer": "server",
    "Ledger": "ledger",
    "Never": "jobs",
    "Outcome": "jobs",
    "Submission": "jobs",
    "SubmittedJob": "submitted",
    "Switches": "switches",
    "assert_dead_letter": "ends",
    "assert_waiting": "ends",
}


def __getattr__(name: str) -> Any:
    """Load one public name from its file.

    Raises: ImportError in one line when the `testing` extra is not installed.
    """
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "werkzeug":
            raise
        raise ImportError(
            "framelane_celery.testing needs werkzeug: pip install 'framelane-celery[testing]'", name=error.name
        ) from None
