"""Signals in Celery's manner, to observe what becomes of jobs.

    @job_finished.connect(sender="framelane.render")
    def note(sender, task_id, job_id, outcome, code, **kwargs): ...

Each is sent by the process that has moved the task's record on, once that is stored: a pool process for what a run
does, the worker's main process for what the watcher sees. So a receiver has to be quick, and is called at most once: a
process that dies between the two tells nobody. What has to happen belongs into the canvas. A receiver's error is
logged, and changes nothing.

``sender`` is the task's name. All of them give ``task_id``, ``job_id``, ``kind`` ("render" or "task"), ``account`` and
``attempt``, and leave room for more: take ``**kwargs``.
"""

from __future__ import annotations

from celery.utils.dispatch import Signal

_ALWAYS = {"task_id", "job_id", "kind", "account", "attempt"}

job_submitted = Signal(name="job_submitted", providing_args=_ALWAYS)
"""A job was accepted."""

job_progressed = Signal(name="job_progressed", providing_args={*_ALWAYS, "status", "percent", "stage"})
"""A job that goes on has news, which was shown. ``percent``: 0 to 100."""

job_finished = Signal(name="job_finished", providing_args={*_ALWAYS, "outcome", "code"})
"""A job's end was seen, before the task's own. ``outcome``: "completed", "failed", "cancelled", "timed_out" or
"not_found"; ``code``: the API's of a failure, else None. If the attempt is repeated, another job follows."""

job_dead_lettered = Signal(name="job_dead_lettered", providing_args={*_ALWAYS, "code", "keeps_waiting"})
"""A failure became a dead letter. ``job_id`` may be None, where no job was made."""
