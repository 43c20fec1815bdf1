"""What a pool process tells of a run that ended with an exception: as little as Celery needs.

Celery pickles the traceback for the main process, which looks at its text only. Since Python 3.11 that is 30 kB, for
the positions in the code of Celery's own tracer. So long a message is read in pieces; if the broker's connection is
lost between two of them, Celery forgets the first ones (``hub.reset`` in ``celery/worker/loops.py``, and
``_recv_message`` in ``celery/concurrency/asynpool.py``), takes what is left in the pipe for other messages, and that
process never has a task run again (tests/faults/test_half_read.py). What is shorter than a pipe's atomic write (4,096
bytes) is read at once; and of ``Ignore`` and ``Reject``, which every wait ends with, the traceback is not even made: it
is made and formatted twice else, which is a fifth of what a run costs.
"""

from __future__ import annotations

import functools
import sys
from types import TracebackType
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import Celery, states
from celery.app import trace

WITHOUT_END = (states.IGNORED, states.REJECTED)


class BriefInfo(trace.TraceInfo):
    """Celery makes one of these before it asks for the traceback: so this is where that can become a short one."""

    __slots__ = ()

    def __init__(self, state: str, retval: Any = None) -> None:
        super().__init__(state, retval)
        if state in WITHOUT_END:
            here = sys._getframe()
            retval.__traceback__ = TracebackType(None, here, here.f_lasti, here.f_lineno)
            retval.__cause__ = None  # which makes the context one that is not shown


def shorten(app: Celery, task: Any, node: str | None) -> None:
    """Make the task's tracer anew, as Celery has made it for this process (``process_initializer`` in
    ``celery/concurrency/prefork.py``). By the module's name, since Sentry replaces the maker."""
    traced = trace.build_tracer(task.name, task, app.loader, node, app=app, Info=BriefInfo)

    @functools.wraps(traced)
    def brief(*args: Any, **kwargs: Any) -> Any:
        answer = traced(*args, **kwargs)  # (result or ExceptionInfo, info, runtime, text)
        if isinstance(answer[0], ExceptionInfo):
            answer[0].tb = None
        return answer

    task.__trace__ = brief
