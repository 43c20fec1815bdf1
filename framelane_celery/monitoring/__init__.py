"""What is shown of tasks while they go on, and what is told of them: to logs, counters and traces."""

from framelane_celery.monitoring.log import Named, about, say
from framelane_celery.monitoring.progress import PROGRESS, progress_meta, shown_args, shown_kwargs
from framelane_celery.monitoring.transitions import told

__all__ = ["PROGRESS", "Named", "about", "progress_meta", "say", "shown_args", "shown_kwargs", "told"]
