"""`gather`: tasks side by side, and one that gets what became of each, failures among them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import chord, shared_task
from celery.canvas import Signature, maybe_signature

from framelane_celery.errors import InvalidArguments
from framelane_celery.tasks.gathered import deaf_step, mark, steps_of
from framelane_celery.tasks.guarded import GuardedTask
from framelane_celery.tasks.tail import show_no_result


def gather(tasks: Iterable[Signature], body: Signature | None = None) -> Signature:
    """Make a canvas that runs tasks side by side and gives ``body`` a list of what became of each, in their order.

    An item of it is a task's result or, where the task has failed for good, a failure: `TaskFailure.of(item)` tells.
    Without ``body`` the list is the result: ``gather(…).delay().get()``.

    Each of ``tasks`` is a task or a chain of tasks. In a chain the Framelane tasks and the guarded ones that follow a
    failure pass it on, and submit nothing; a plain task gets it as its argument.

    Gathered is what the routes decide about, once they have nothing left to try. An exception of the user's own code, a
    plain task's, a revoke and an ``expires`` fail the whole, as in any chord. After a failure that is gathered neither
    ``link`` nor ``link_error`` of that task runs.

    Raises: InvalidArguments: without tasks, for a group or chord among them, and for ``.si()`` later in a chain.
    """
    copies = [_copy(task) for task in tasks]
    if not copies:
        raise InvalidArguments("gather: there are no tasks; ask whether there are any before you call it", "tasks")
    # A chord without a body of one's own too: Celery takes a group of one in a chain apart, and no list is made.
    return chord(copies, copies[0].app.tasks[gathered.name].s() if body is None else body)


def _copy(task: Signature) -> Signature:
    """A copy of a task or a chain with the mark on each of its tasks."""
    copy = maybe_signature(task).clone()
    for step in steps_of(copy):
        if step.get("subtask_type"):
            raise InvalidArguments(
                f"gather: each of its tasks is a task or a chain of tasks, and no {step['subtask_type']}: gather what "
                "is in it, or run it before",
                "tasks",
            )
    if (deaf := deaf_step(copy)) is not None:
        raise InvalidArguments(
            f"gather: {deaf.task} is immutable (.si), so it would run after a failure too: let it take the result "
            "of the step before (.s)",
            "tasks",
        )
    mark(copy)
    return copy


@shared_task(name="framelane.gathered", base=GuardedTask, bind=True)
def gathered(self: GuardedTask, items: list[Any]) -> list[Any]:
    """The body of a `gather` that was given none."""
    show_no_result(self.request, items)
    return items
