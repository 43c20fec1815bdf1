"""What the tests of a project assert about the jobs of their tasks. An error says what was there instead.

`task` is a Celery task or its name, `result` an AsyncResult or a task's id. Nothing here imports Celery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from framelane_celery.testing.submitted import SubmittedJob, listed

if TYPE_CHECKING:
    from framelane_celery.testing.ledger import Ledger

WAIT_S = 10.0
"""How long a worker in another thread may take to submit."""


class Assertions:
    """A part of FramelaneServer."""

    if TYPE_CHECKING:

        @property
        def ledger(self) -> Ledger: ...

        @property
        def submitted(self) -> list[SubmittedJob]: ...

    def assert_submitted(self, task: Any = None, *, times: int | None = None) -> list[SubmittedJob]:
        """Assert that jobs were submitted, for one task or for any, so many times or at least once; and give them."""
        __tracebackhide__ = True
        found = [job for job in self.submitted if task is None or job.task == _name(task)]
        if len(found) != times if times is not None else not found:
            whose = "" if task is None else f" for {_name(task)}"
            wanted = "at least 1 job" if times is None else f"{times} job{'s' * (times != 1)}"
            raise AssertionError(f"expected {wanted}{whose}, not {len(found)}. {self._was_submitted()}")
        return found

    def assert_nothing_submitted(self) -> None:
        """Assert that no job was made; that none was asked for in vain, too."""
        __tracebackhide__ = True
        if self.submitted or self._refused():
            raise AssertionError(f"expected no job. {self._was_submitted()}")

    def assert_paid_once(self, result: Any) -> SubmittedJob:
        """Assert that exactly one job was made for one task, and give it."""
        __tracebackhide__ = True
        found = self._of(result)
        if len(found) != 1:
            raise AssertionError(
                f"expected 1 job to be paid for task {_id(result)}, not {len(found)}. {self._was_submitted()}"
            )
        return found[0]

    def job_of(self, result: Any, timeout_s: float = WAIT_S) -> SubmittedJob:
        """The newest job of a task, once a worker has submitted it: a test may finish it then, or fail it.

        Raises: AssertionError when timeout_s passes first.
        """
        __tracebackhide__ = True
        if not self.ledger.wait_until(lambda ledger: _id(result) in ledger.jobs_per_task(), timeout_s):
            raise AssertionError(f"no job for task {_id(result)} within {timeout_s:g} s. {self._was_submitted()}")
        return self._of(result)[-1]

    def _of(self, result: Any) -> list[SubmittedJob]:
        return [job for job in self.submitted if job.task_id == _id(result)]

    def _refused(self) -> list[str]:
        posts = self.ledger.posts()
        return [f"  {post.path}: {post.status} {post.note}" for post in posts if post.status and post.status >= 400]

    def _was_submitted(self) -> str:
        refused = self._refused()
        told = f"What was submitted:\n{listed(self.submitted)}"
        return told + ("\nWhat was refused:\n" + "\n".join(refused) if refused else "")


def _name(task: Any) -> str:
    return str(getattr(task, "name", task))


def _id(result: Any) -> str:
    return str(getattr(result, "id", result))
