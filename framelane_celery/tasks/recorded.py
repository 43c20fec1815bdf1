"""RecordedTask: what all our tasks have in common. The call writes the record and then publishes.

A thin shell. The worker's run is in `run`, what waits is moved on by the watcher (`framelane_celery.watching`), and
what each of them decides is in `framelane_celery.records`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from celery import Task
from celery.utils import uuid
from pydantic import BaseModel

from framelane_celery import wakeups
from framelane_celery.errors import FramelaneError
from framelane_celery.models import JobRequest
from framelane_celery.records import JobKind
from framelane_celery.room import Room, room_of
from framelane_celery.settings import FramelaneSettings, settings_of
from framelane_celery.tasks.calling import calling_run, write_and_publish
from framelane_celery.tasks.choice import OPTION, chosen, chosen_later
from framelane_celery.tasks.gathered import deaf_step, is_marked, mark, passed_on, with_mark
from framelane_celery.tasks.jobs import fresh_url
from framelane_celery.tasks.mending import mend
from framelane_celery.tasks.run import run_of

if TYPE_CHECKING:
    from celery import Celery
    from celery.result import AsyncResult

    from framelane_celery.models import Job

logger = logging.getLogger(__name__)

_OWN_OPTIONS = (
    "queue", "routing_key", "exchange", "priority", "serializer", "compression", "delivery_mode", "expires",
    "time_limit", "soft_time_limit", "ignore_result",
)  # fmt: skip


class RecordedTask(Task):
    """A Celery task with a record: called once, run until it is done, whatever dies."""

    abstract = True
    # Without both, a child or a worker that dies takes a paid job with it (broker_facts.md, "What follows", 1).
    acks_late = True
    reject_on_worker_lost = True
    # STARTED would be stored over PROGRESS, and by a stale message even over the end.
    track_started = False
    # The log and the task-succeeded event show a result's first letters: the job's id, not its signed URL.
    resultrepr_maxsize = 160
    Request = "framelane_celery.watching.request:FramelaneRequest"

    job_kind: ClassVar[JobKind | None] = None
    """"render" or "task": whose limit per minute a submission counts against; None: nothing is submitted."""
    routes: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Rules of its own for what becomes of a failure, before the settings': see `framelane_celery.routing`."""
    framelane_account: ClassVar[str | None] = None
    """The account that it runs on, unless a call names one (``.set(framelane_account="eu")``). None: that of the
    finished job that it gets, else "default"."""

    # --- what a kind of task is made of ----------------------------------------------------------------------------

    def begin_run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run in a worker: the record is begun first."""
        raise NotImplementedError

    def run_in_place(self, args: Sequence[Any], kwargs: Mapping[str, Any], body: Callable[[], Any]) -> Any:
        """Run without a record: eagerly, or called directly."""
        raise NotImplementedError

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise InvalidArguments for what is surely wrong: called in the caller, before anything is written."""

    def fresh_url(self, job: Job | Mapping[str, Any]) -> str:
        """A link to a finished job's artefact, signed just now: asked for with the key of the job's own account.

        Raises: InvalidArguments, if the settings name its account no more; ApiError, TransportError.
        """
        return fresh_url(self.app, job)

    # --- the call ------------------------------------------------------------------------------------------------

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Write the record, then publish the task. Takes what Celery's own ``apply_async`` takes, and
        ``framelane_account``.

        The same ``task_id`` again is the same piece of work: with the same arguments nothing new happens.

        Raises: InvalidArguments, DuplicateTask, RoomError, SettingsError (no such account); inside a running task none
        of them, since the error would be that task's.
        """
        args, kwargs, options = _plain(args or ()), _plain(kwargs or {}), with_mark(options)
        account = chosen(self, options, args, kwargs)
        options.pop(OPTION, None)
        if self.app.conf.task_always_eager:
            options["headers"] = wakeups.header_for(0, options.get("headers"), account)
            return super().apply_async(args, kwargs, task_id, producer, link, link_error, shadow, **options)
        parent = self.app.current_worker_task
        if parent is None:
            self.check_call(args, kwargs)
        task_id = task_id or uuid()
        shadow = shadow or self.shadow_name(args, kwargs, options)
        options = {**own_options(self), **options, "link": link, "link_error": link_error, "shadow": shadow}
        if parent is None:
            named = set(chosen_later(self.app, options)) | ({account} if account is not None else set())
            for one in named:
                self.settings.of(one)
        if (run := calling_run(parent, task_id)) is not None:
            options = run.without_retry_queue(options)
        options = {**wakeups.shown(args, kwargs), **options}
        self._add_origin(options, task_id, parent)
        text = wakeups.call_text_of(self, args, kwargs, options)
        published = write_and_publish(self, task_id, text, {**options, "producer": producer}, parent, account)
        result = published or self.AsyncResult(task_id)
        result.ignored = options.get("ignore_result")
        if parent is not None and options.get("add_to_parent", True):
            parent.add_trail(result)
        return result

    def check_call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise for arguments of another number or names, as Celery does, and for what is surely wrong about them."""
        if self.typing and hasattr(self, "__header__"):
            self.__header__(*args, **kwargs)
        self.check_arguments(args, kwargs)

    def _add_origin(self, options: dict[str, Any], task_id: str, parent: Task | None) -> None:
        """Where the call comes from, as Celery's ``send_task`` would say it: a wake-up comes from elsewhere."""
        options["reply_to"] = options.get("reply_to") or self.app.thread_oid
        if parent is not None:
            options["root_id"] = options.get("root_id") or parent.request.root_id or parent.request.id
            options["parent_id"] = options.get("parent_id") or parent.request.id
            if self.app.conf.task_inherit_parent_priority:
                options.setdefault("priority", (parent.request.delivery_info or {}).get("priority"))

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Any:
        """A signature that says it is one of ours: the worker that publishes it as a chain's next task may not know
        the task, and neither may the one that gets it (`framelane_celery.watching.unknown`)."""
        made = super().signature(args, *starargs, **starkwargs)
        headers = made.options.get("headers")
        account = wakeups.account_in(headers) or self.framelane_account
        made.options["headers"] = wakeups.header_for(0, headers, account)
        return made

    subtask = signature

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call the task once Django's transaction commits; the id is made, and returned, now."""
        return self.apply_async_on_commit(args, kwargs)

    def apply_async_on_commit(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult:
        """As `delay_on_commit`, with options. Arguments are checked now, while the caller can still see the error."""
        on_commit = getattr(self.app.Task, "apply_async_on_commit", None)
        if on_commit is None:
            raise FramelaneError("delay_on_commit needs a Celery app in a Django project (DJANGO_SETTINGS_MODULE)")
        args, kwargs = _plain(args or ()), _plain(kwargs or {})
        self.check_call(args, kwargs)
        if (account := chosen(self, options, args, kwargs)) is not None:
            settings_of(self.app, needs_room=False).of(account)
        task_id = options.setdefault("task_id", uuid())
        on_commit(self, args, kwargs, **options)
        return self.AsyncResult(task_id)

    def apply(self, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        """Run in place, on the account that ``framelane_account`` names."""
        options = with_mark(options)
        if named := options.pop(OPTION, None):
            options["headers"] = wakeups.header_for(0, options.get("headers"), named)
        return super().apply(args, kwargs, *more, **options)

    # --- the run -------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run in a worker; called directly or eagerly, without a record."""
        request = self.request
        if request.called_directly or request.is_eager or run_of(request) is not None:
            if (passed := passed_on(request)) is not None:
                return passed
            body = functools.partial(self.run if request.is_eager else super().__call__, *args, **kwargs)
            return self.run_in_place(args, kwargs, body)
        if wakeups.mends_of(request):
            mend(self, request, args, kwargs)
        return self.begin_run(args, kwargs)

    def on_replace(self, sig: Any) -> Any:
        """``replace()``: the record waits for whoever takes over the id, or the body runs again."""
        run = run_of(self.request)
        if run is None:
            return super().on_replace(sig)
        if is_marked(self.request) and deaf_step(sig) is None:  # else a failure fails the whole, as in any chord
            mark(sig)
        run.start_replacing()
        try:
            return super().on_replace(sig)
        finally:
            run.end_replacing()

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None, **kwargs: Any
    ) -> None:
        """Store a state, unless the task ignores results or the state is IGNORED.

        celery-progress stores IGNORED from ``task_postrun``, over the PROGRESS of a task that waits.
        """
        if state != "IGNORED" and not self.request.ignore_result:
            super().update_state(task_id, state, meta, **kwargs)

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """The end of a run, after its tail, its result and its chord part: only this ends the record."""
        run = run_of(self.request)
        if run is not None:
            run.finish()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A user's own ``after_return`` runs beside ours, called or not: without ours the record would never end."""
        super().__init_subclass__(**kwargs)
        theirs = cls.after_return  # perhaps of a mixin, which is no subclass of ours
        if theirs is not RecordedTask.after_return and not hasattr(theirs, "ends_the_record"):
            cls.after_return = _with_ours(theirs)  # type: ignore[method-assign]

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Binding a task of ours to an app is what installs the watcher in its workers."""
        app.steps["worker"].add("framelane_celery.watching.step:WatcherStep")

    # --- what it stands on -----------------------------------------------------------------------------------------

    @property
    def settings(self) -> FramelaneSettings:
        return settings_of(self.app)

    @property
    def room(self) -> Room:
        return room_of(self.app, self.settings)


def _with_ours(theirs: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(theirs)
    def after_return(self: RecordedTask, *args: Any) -> None:
        try:
            theirs(self, *args)
        finally:
            RecordedTask.after_return(self, *args)

    after_return.ends_the_record = True  # type: ignore[attr-defined]
    return after_return


def _plain(value: Any) -> Any:
    """Arguments as JSON can hold them: request models become the dicts that they were made of."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, JobRequest):
        return value.to_json()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def own_options(task: Task) -> dict[str, Any]:
    """What a task class says of its own messages: calls have it beside their own options."""
    return {name: value for name in _OWN_OPTIONS if (value := getattr(task, name, None)) is not None}
