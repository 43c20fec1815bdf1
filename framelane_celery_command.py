"""The entry point of `celery … framelane`: a module outside the package, which imports it only when it is called.

Celery loads the entry points of every installed package whenever `celery` starts, for whatever project. Importing
`framelane_celery` registers its tasks with all apps, and those start a watcher in their workers: so a worker of another
project in the same environment would get one too, or refuse to start because its settings name no room.
"""

from __future__ import annotations

from typing import Any

import click


class _Later(click.Group):
    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """From here on, the real group is at work; what Celery has added to this one (preload options) goes along."""
        from framelane_celery.cli.commands import framelane as group

        group.params, group.callback = self.params, self.callback
        return group.make_context(*args, **kwargs)


@click.group(cls=_Later, name="framelane")
def framelane(**preload_options: Any) -> None:
    """Framelane jobs: what waits, dead letters, holds."""
