"""Checks of what runs: the broker's queues, the workers, the watcher, what waits in the room. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Final

from framelane_celery.doctor.facts import Facts, NotAsked, QueueFacts, RoomFacts, SettingsFacts
from framelane_celery.doctor.findings import Check, Finding, listed, not_checked, span
from framelane_celery.room import Ends
from framelane_celery.room.inspect import LATE_S, Lane, RoomState

ENDS_JUDGED: Final = 50
"""How many ends tell something of the webhooks."""

FULL_LETTERS: Final = 0.8


def check_broker(facts: Facts) -> Iterator[Finding]:
    """design.md §3, "The room": any of Celery's transports works; while it is away, the room keeps what waits."""
    if isinstance(facts.broker, NotAsked):
        yield Finding(
            "problem",
            "broker",
            f"it cannot be reached: {facts.broker.why}",
            "No task starts; records wait and are sent again.",
            "Start the broker, open the way to it from this host, or set broker_url / CELERY_BROKER_URL.",
        )
        return
    yield Finding("ok", "broker", f"{facts.conf.broker} answers")


# --- queues ------------------------------------------------------------------------------------------------------


def check_queues(facts: Facts) -> Iterator[Finding]:
    """design.md §4, "retry" and "dead_letter"; broker_facts.md, "What follows", 6: nothing of ours reads a queue."""
    if isinstance(facts.settings, NotAsked) or isinstance(facts.broker, NotAsked):
        return
    queues = facts.broker.queues
    if isinstance(queues, NotAsked):
        yield not_checked("queues", queues.why)
        return
    settings = facts.settings
    known = _with_consumers(facts, queues)
    yield from _unserved("task queues", settings.task_queues, known)
    yield from _unserved("retry queues", settings.retry_queues, known)
    yield from _dead_letter_queues(settings, known)


def _with_consumers(facts: Facts, queues: Mapping[str, QueueFacts]) -> dict[str, QueueFacts]:
    """Where the broker does not count consumers, the workers that answer are counted."""
    if isinstance(facts.workers, NotAsked):
        return dict(queues)
    serving = [name for worker in facts.workers for name in worker.queues]
    return {
        name: queue if queue.consumers is not None else queue._replace(consumers=serving.count(name))
        for name, queue in queues.items()
    }


def _unserved(check: str, names: tuple[str, ...], known: Mapping[str, QueueFacts]) -> Iterator[Finding]:
    asked = {name: known[name] for name in names if name in known}
    stuck = {name: queue for name, queue in asked.items() if queue.messages and queue.consumers == 0}
    idle = [name for name, queue in asked.items() if not queue.messages and queue.consumers == 0]
    is_retry = check == "retry queues"
    change = (
        "Start a worker on the tasks' own queue (it serves their retry queue too), or one with -Q {names}."
        if is_retry
        else "Start a worker: celery -A … worker -Q {names}."
    )
    if stuck:
        told = listed([f"{name} ({queue.messages} waiting)" for name, queue in stuck.items()])
        yield Finding(
            "problem",
            check,
            f"messages wait and nobody takes them: {told}",
            "These retries never start." if is_retry else "These tasks never start.",
            change.format(names=",".join(stuck)),
        )
    if idle:
        yield Finding(
            "warning",
            check,
            f"nobody serves {listed(idle)}",
            "A retry would wait there for ever." if is_retry else "A call would wait there for ever.",
            change.format(names=",".join(idle)),
        )
    unknown = [name for name, queue in asked.items() if queue.consumers is None]
    if unknown:
        yield not_checked(check, f"who serves {listed(unknown)}: this broker does not say, nor did the workers")
    if asked and not stuck and not idle and not unknown:
        yield Finding("ok", check, f"served: {listed(list(asked))}")


def _dead_letter_queues(settings: SettingsFacts, known: Mapping[str, QueueFacts]) -> Iterator[Finding]:
    asked = {name: known[name] for name in settings.dead_letter_queues if name in known}
    consumed = [name for name, queue in asked.items() if queue.consumers]
    if consumed:
        yield Finding(
            "warning",
            "dead-letter queue",
            f"somebody consumes {listed(consumed)}",
            "A worker there replays each letter as soon as it comes: what fails for good fails, and is paid, again.",
            "Unless you are replaying on purpose, take the queue out of that worker's -Q.",
        )
    elif asked:
        yield Finding(
            "ok", "dead-letter queue", f"nobody consumes {listed(list(asked))}, so letters wait for an operator"
        )


# --- workers -----------------------------------------------------------------------------------------------------


def check_workers(facts: Facts) -> Iterator[Finding]:
    """design.md §3, "Several workers". Workers of other projects on the same broker are not ours."""
    workers = facts.workers
    if isinstance(workers, NotAsked):
        yield not_checked("workers", workers.why)
        return
    if isinstance(facts.settings, NotAsked):
        return
    ours = facts.our_workers()
    if not ours:
        others = f"; {len(workers)} of other queues do" if workers else ""
        yield Finding(
            "problem",
            "workers",
            f"none that serves {listed(list(facts.settings.task_queues))} answers{others}",
            "Nothing starts and nothing ends. (A solo pool that is busy, and one without remote control, are silent.)",
            f"celery -A … worker -Q {','.join(facts.settings.task_queues)}; keep worker_enable_remote_control on.",
        )
        return
    missing = []
    for worker in ours:
        names = [task.name for task in facts.tasks if task.queue in worker.queues and task.name not in worker.tasks]
        if names and worker.tasks:
            missing.append(f"{worker.node} lacks {listed(names, 2)}")
    if missing:
        yield Finding(
            "problem",
            "workers",
            f"a worker serves a queue but does not know its tasks: {listed(missing, 3)}",
            "It throws their messages away as unregistered; the watcher sends them again, and again.",
            "Deploy the same code to it, or import the tasks' module in its app (imports, autodiscover_tasks).",
        )
    else:
        yield Finding("ok", "workers", f"{len(ours)}: {listed([worker.node for worker in ours])}")


def check_watcher(facts: Facts) -> Iterator[Finding]:
    """broker_facts.md, "What follows", 4 and 11: exactly one is active. The room lets no second one in."""
    state = _state(facts)
    settings = facts.settings
    if state is None or isinstance(settings, NotAsked):
        return
    if state.leader is not None:
        yield Finding("ok", "watcher", f"{state.leader.rpartition('/')[0] or state.leader} leads")
        return
    what = f"nobody leads in namespace {settings.namespace}"
    why = "Jobs are not looked at, nothing that is due is moved on."
    if not settings.watcher:
        change = "watcher is False in these settings: if all workers read them, start one with watcher = True."
        yield Finding("problem", "watcher", f"{what}, and watcher is off", why, change)
    elif facts.our_workers():
        change = (
            "Look in the workers' logs for 'the room is away', compare their namespace, room_url and watcher with"
            " what is set here, and make sure that each imports framelane_celery."
        )
        yield Finding("problem", "watcher", f"{what}, though workers are up", why, change)
    else:
        yield Finding("problem", "watcher", what, why, "Start a worker: each brings a watcher.")


# --- what waits --------------------------------------------------------------------------------------------------


def check_waiting(facts: Facts) -> Iterator[Finding]:
    """design.md, "Rules of the record", 6 and 9: the clock never waits, and resends are few."""
    if isinstance(facts.room, NotAsked) or isinstance(facts.settings, NotAsked):
        return
    state = _state(facts)
    if state is None:
        if isinstance(facts.room.state, NotAsked) and not isinstance(facts.room.store, NotAsked):
            yield not_checked("records", facts.room.state.why)
        return
    clock, looks = state.lanes.get("clock", Lane()), state.lanes.get("look", Lane())
    if clock.overdue:
        yield Finding(
            "problem",
            "records",
            f"{clock.overdue} overdue, the first one by {_overdue(state, clock)}",
            "Nobody moves them on: these tasks stand still.",
            "See 'watcher'. If one leads, look in its log for 'passed over' and 'the clock stumbled'.",
        )
    if looks.overdue:
        yield Finding(
            "warning",
            "records",
            f"{looks.overdue} looked at late, the first one by {_overdue(state, looks)}",
            "These tasks end later than their jobs.",
            "If a watcher leads: see 'api key' for whether the API answers; else raise framelane['reads_per_minute'],"
            " or let webhooks in.",
        )
    for account, count in sorted(facts.room.left_alone.items()):
        yield Finding(
            "problem",
            "records",
            f"{count} of account {account} are left alone: framelane['accounts'] does not name it",
            "Nobody has its key, so nothing of it is submitted or looked at. Nothing of it is lost.",
            f"Name {account} in framelane['accounts'] again, with its key, until they are done.",
        )
    never = list(facts.room.never_begun)
    if never:
        yield Finding(
            "problem",
            "records",
            f"never begun, though sent again and again: {listed(never, 2)}",
            "No worker takes them: their queue is served by nobody, or by a worker that does not know the task.",
            "See 'task queues' and 'workers'; celery -A … framelane waiting shows them.",
        )
    if not (clock.overdue or looks.overdue or never or facts.room.left_alone):
        count = sum(lane.records for name, lane in state.lanes.items() if name in ("clock", "look"))
        yield Finding("ok", "records", f"nothing is overdue; {count} waiting for a job, the clock or a worker")


def check_letters(facts: Facts) -> Iterator[Finding]:
    """Issue 4, "Retention": nothing is dropped silently; a size alarm."""
    state = _state(facts)
    if state is None or isinstance(facts.settings, NotAsked):
        return
    new, told = state.lanes.get("dead:new", Lane()), state.lanes.get("dead", Lane())
    count, alarm = new.records + told.records, facts.settings.dead_letters_alarm
    if count >= alarm:
        yield Finding(
            "problem",
            "dead letters",
            f"{count} waiting for somebody (alarm at {alarm})",
            "Each is a task that failed for good, kept whole in the room.",
            "celery -A … framelane dead list; then replay or discard them, or raise framelane['dead_letters_alarm'].",
        )
    elif count >= alarm * FULL_LETTERS:
        yield Finding(
            "warning",
            "dead letters",
            f"{count} waiting for somebody (alarm at {alarm})",
            "Each is a task that failed for good, kept whole in the room.",
            "celery -A … framelane dead list; then replay or discard them.",
        )
    else:
        yield Finding("ok", "dead letters", f"{count} (alarm at {alarm})")
    if new.overdue:
        yield Finding(
            "warning",
            "dead letters",
            f"{new.overdue} not announced on their queue, the first one for {_overdue(state, new)}",
            "Who counts or alerts on that queue does not see them.",
            "See 'watcher' and 'broker'; with task_create_missing_queues off, add the queue to task_queues.",
        )


def check_holds(facts: Facts) -> Iterator[Finding]:
    """design.md §4, "hold"."""
    state = _state(facts)
    if state is None or not isinstance(facts.room, RoomFacts):
        return
    on = [hold for hold in facts.room.holds if hold.is_on]
    for hold in on:
        ends = "by an operator" if hold.ends_at is None else f"at {_instant(hold.ends_at)}"
        yield Finding(
            "warning",
            "holds",
            f"account {hold.account} is on hold for {hold.code} since {_instant(hold.since)}"
            f" ({span(max(0.0, state.now - hold.since))}): {hold.reason}; it ends {ends}",
            "None of its tasks is submitted meanwhile; jobs already accepted are watched.",
            f"When the reason has gone: celery -A … framelane release {quote(hold.account)}",
        )
    if not on:
        yield Finding("ok", "holds", "none")


def _state(facts: Facts) -> RoomState | None:
    """The room's state, unless it is not known: then `check_waiting` has said so."""
    if isinstance(facts.room, NotAsked) or isinstance(facts.room.state, NotAsked):
        return None
    return facts.room.state


def _overdue(state: RoomState, lane: Lane) -> str:
    return span(max(LATE_S, state.now - (lane.first_due_at or state.now)))


def _instant(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def check_webhooks(facts: Facts) -> Iterator[Finding]:
    """Issue 5: a webhook that is dead is seen."""
    if isinstance(facts.room, NotAsked) or isinstance(facts.settings, NotAsked) or not facts.settings.has_webhooks:
        return
    told = facts.room.ends.get("hint", Ends()).jobs
    count = sum(one.jobs for source, one in facts.room.ends.items() if source != "long_poll")  # that is first anyhow
    if count < ENDS_JUDGED:
        return
    what = f"{told} of {count} ends of jobs were told by webhooks (today and yesterday, long-polls apart)"
    if told * 2 >= count:
        yield Finding("ok", "webhooks", what)
    else:
        yield Finding(
            "warning",
            "webhooks",
            what,
            "A secret is set, so events are expected; without them tasks go on later, for more reads.",
            "Look at the webhook's deliveries in Framelane's console and in the web server's log; celery -A … framelane"
            " ends shows the counts.",
        )


CHECKS: Final[tuple[Check, ...]] = (
    check_broker,
    check_queues,
    check_workers,
    check_watcher,
    check_waiting,
    check_letters,
    check_holds,
    check_webhooks,
)
