"""What a pool process tells the worker of a run that ended without an end: as little as Celery needs.

Celery pickles the traceback of ``Ignore`` and ``Reject`` for the main process, which does not look at it: 30 kB since
Python 3.11, for the positions in the code of Celery's own tracer. So long a message is read in pieces; if the broker's
connection is lost between two of them, Celery forgets the first ones (``hub.reset`` in ``celery/worker/loops.py``, and
``_recv_message`` in ``celery/concurrency/asynpool.py``), takes what is left in the pipe for other messages, and never
gives that process a task again. What is shorter than a pipe's atomic write (4,096 bytes) is read at once.
"""

from __future__ import annotations

import functools
from typing import Any

from celery import states

WITHOUT_END = (states.IGNORED, states.REJECTED)


def shorten(task: Any) -> None:
    """Have a task's tracer, which Celery has made in this process, leave away the traceback of what has no end."""
    trace = task.__trace__

    @functools.wraps(trace)
    def shortened(*args: Any, **kwargs: Any) -> Any:
        answer = trace(*args, **kwargs)  # (result or ExceptionInfo, info, runtime, text)
        if answer[1] is not None and answer[1].state in WITHOUT_END:
            answer[0].tb = None
        return answer

    task.__trace__ = shortened
