"""Checks of what is configured: tasks, settings, environment, result backend, versions. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from framelane_celery.doctor.facts import ApiFacts, ConfFacts, Facts, NotAsked, TaskFacts
from framelane_celery.doctor.findings import Check, Finding, Level, listed, not_checked, span
from framelane_celery.room import TOMBSTONE_S
from framelane_celery.settings import FramelaneSettings

LIVE_URL: Final = str(FramelaneSettings.model_fields["base_url"].default)

VISIBILITY_S: Final = 3600.0
"""kombu's default: kombu/transport/redis.py."""

SHORT_RESULT_S: Final = 3600.0
"""The watcher writes results that wait again three times in their life; less than this leaves it no time."""

SUPPORTED: Final[Mapping[str, tuple[str, str | None]]] = {
    "celery": ("5.5", "6"),
    "kombu": ("5.5", None),
    "pydantic": ("2.13", None),
    "redis": ("5.0", None),
    "sqlalchemy": ("2.0", None),
}
"""From (included) and to (excluded), as in pyproject.toml."""

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def check_settings(facts: Facts) -> Iterator[Finding]:
    """design.md §6, "config". celery_facts.md, "Config": an upper-case name without a namespace isn't seen."""
    for name in facts.conf.misplaced:
        yield Finding(
            "problem",
            "settings",
            f"{name} is set, but the app does not read it",
            "Whatever stands there has no effect.",
            "Django: name it CELERY_FRAMELANE and write app.config_from_object('django.conf:settings',"
            " namespace='CELERY'). Else: app.conf.framelane = {…}, in lower case.",
        )
    if isinstance(facts.settings, NotAsked):
        yield Finding(
            "problem",
            "settings",
            facts.settings.why,
            "Workers do not start and calls raise this very error.",
            "Set what the message names; everything below that needs it was not checked.",
        )
    elif not facts.conf.misplaced:
        yield Finding("ok", "settings", f"they resolve; namespace {facts.settings.namespace}")
    for what in facts.unread:
        yield not_checked("app", what)
    if facts.conf.always_eager:
        yield Finding(
            "warning",
            "settings",
            "task_always_eager is on",
            "Every call submits and waits in place: no record, no retry after a crash.",
            "Unset task_always_eager outside tests.",
        )


def check_environment(facts: Facts) -> Iterator[Finding]:
    """The environment and the configuration contradict each other: one of them is not what its author thinks."""
    for variable, setting, by_environment in facts.overrides:
        wins, loses = (variable, setting) if by_environment else (setting, variable)
        yield Finding(
            "warning",
            "environment",
            f"{variable} and {setting} differ: {wins} wins",
            f"Whoever set {loses} believes it to be in force.",
            f"Remove {loses}, or give both the same value.",
        )
    if not facts.overrides:
        yield Finding("ok", "environment", "no variable contradicts the configuration")


def check_key(facts: Facts) -> Iterator[Finding]:
    """Issue 4, "a wrong key must not burn a night of jobs". The key itself is never shown."""
    settings = facts.settings
    if isinstance(settings, NotAsked):
        return
    set_it = "Set framelane['api_key'] or FRAMELANE_API_KEY; the API's console shows the keys."
    if settings.has_key:
        yield from _of_url(settings.base_url)
        yield from _of_key(facts.api, settings.base_url, set_it)
    elif settings.accounts:
        why = "A task that names no account cannot be submitted."
        yield Finding("warning", "api key", "account default has none: only named accounts have keys", why, set_it)
    else:
        yield Finding("problem", "api key", "no key is set", "No job can be submitted.", set_it)
    for name, base_url in settings.accounts.items():
        if base_url != settings.base_url:
            yield from (found._replace(what=f"account {name}: {found.what}") for found in _of_url(base_url))
        api = facts.account_apis.get(name, NotAsked("not asked"))
        set_it = f"Set framelane['accounts']['{name}']['api_key']; the API's console shows the workspace's keys."
        for found in _of_key(api, base_url, set_it):
            yield found._replace(what=f"account {name}: {found.what}")


def _of_key(api: ApiFacts | NotAsked, base_url: str, set_it: str) -> Iterator[Finding]:
    """What the API said of one key."""
    if isinstance(api, NotAsked):
        yield Finding("warning", "api key", f"not checked: {api.why}", "A wrong key is found out by a job only.")
        return
    status, message = api
    if status == 200:
        yield Finding("ok", "api key", f"{base_url} accepts it")
    elif status == 401:
        yield Finding(
            "problem", "api key", f"the API refuses the key (401): {message}", "Every submission fails.", set_it
        )
    elif status == 403:
        yield Finding(
            "problem",
            "api key",
            f"the API knows the key but permits nothing (403): {message}",
            "Every submission fails.",
            "Verify the workspace's e-mail address and the key's rights in the console.",
        )
    elif status == 404:
        yield Finding(
            "warning",
            "api key",
            f"{base_url} has no /v1/workspace/usage (404), so the key is not checked",
            "The address may be another service's, or an old API's.",
            "Check framelane['base_url'] / FRAMELANE_BASE_URL.",
        )
    else:
        yield Finding(
            "warning",
            "api key",
            f"not checked: {message}",
            "Jobs are submitted only while the API can be reached.",
            f"Open the way from this host to {base_url} (proxy, firewall, DNS), or wait.",
        )


def _of_url(base_url: str) -> Iterator[Finding]:
    parts = urlsplit(base_url)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        yield Finding(
            "problem",
            "api address",
            f"{base_url} is not encrypted",
            "The key crosses the network in clear text.",
            "Write https:// in framelane['base_url'] / FRAMELANE_BASE_URL.",
        )
    elif base_url != LIVE_URL:
        yield Finding(
            "warning",
            "api address",
            f"jobs go to {base_url}, not to the live host",
            "Right for tests and development; in production nothing would be rendered.",
            f"For production unset framelane['base_url'] and FRAMELANE_BASE_URL (default {LIVE_URL}).",
        )
    else:
        yield Finding("ok", "api address", f"{base_url}: the live host, jobs are paid")


# --- tasks -------------------------------------------------------------------------------------------------------


def check_acks(facts: Facts) -> Iterator[Finding]:
    """broker_facts.md, "What follows", 1; celery_facts.md, rows 4 and 5: default acks lose paid jobs."""
    wrong = False
    for flag in ("acks_late", "reject_on_worker_lost"):
        names = [task.name for task in facts.tasks if not getattr(task, flag)]
        if names:
            wrong = True
            yield Finding(
                "problem",
                "acks",
                f"{flag} is off on {listed(names)}",
                "A child or a worker that dies takes the message with it: the task comes back late, or not at all.",
                f"Remove {flag} from the task's decorator or class, and from task_annotations: the base sets it.",
            )
    names = [task.name for task in facts.tasks if not task.acks_failures]
    if names:
        wrong = True
        yield Finding(
            "warning",
            "acks",
            f"failed runs are rejected, not acknowledged: {listed(names)}",
            "A run that hits its time limit comes back for nothing; a failed one goes where RabbitMQ dead-letters to.",
            "Unset task_acks_on_failure_or_timeout (and task_acks_on_failure, task_acks_on_timeout); routes do this.",
        )
    names = [task.name for task in facts.tasks if task.retry_on_worker_lost]
    if names:
        wrong = True
        yield Finding(
            "warning",
            "acks",
            f"retry_on_worker_lost is on: {listed(names)}",
            "The record brings a lost run back by itself; Celery's retry is a second message beside it.",
            "Unset task_retry_on_worker_lost, or set retry_on_worker_lost = False on these tasks.",
        )
    if not facts.tasks:
        yield Finding(
            "warning",
            "acks",
            "the app has no Framelane task",
            "No worker of this app starts a watcher.",
            "Import framelane_celery in a module that the app loads (imports, autodiscover_tasks).",
        )
    elif not wrong:
        yield Finding("ok", "acks", f"late, on all {len(facts.tasks)} Framelane tasks")


def check_states(facts: Facts) -> Iterator[Finding]:
    """celery_facts.md, rows 2 and 12, "celery-progress" and rule 2 of the record (the request of ours)."""
    found = [
        _tasks_with(
            [task for task in facts.tasks if task.track_started],
            "warning",
            "track_started is on",
            "STARTED is stored over PROGRESS, and by a late message over the end.",
            "Set track_started = False on these tasks; task_track_started may stay on for others.",
        ),
        _tasks_with(
            [task for task in facts.tasks if task.ignore_result],
            "warning",
            "ignore_result is on",
            "No PROGRESS and no result is stored, so a chord with one of them never ends.",
            "Remove ignore_result (task_ignore_result) for Framelane tasks whose results somebody reads.",
        ),
        _tasks_with(
            [task for task in facts.tasks if not task.has_our_request],
            "problem",
            "Request is overridden by a class that is not FramelaneRequest",
            "A run that dies or hits its hard time limit is noticed late, or runs and pays again.",
            "Derive it from framelane_celery.watching.request.FramelaneRequest, or remove it.",
        ),
    ]
    yield from (finding for finding in found if finding is not None)
    if not any(found) and facts.tasks:
        yield Finding("ok", "states", "PROGRESS and results are stored")


def check_time_limits(facts: Facts) -> Iterator[Finding]:
    """celery_facts.md, row 6: a time limit inside the POST."""
    if isinstance(facts.settings, NotAsked):
        return
    post_s = facts.settings.connect_timeout_s + facts.settings.read_timeout_s
    short = [task for task in facts.tasks if task.time_limit_s is not None and task.time_limit_s < post_s]
    if short:
        yield Finding(
            "warning",
            "time limits",
            f"shorter than one POST may take ({span(post_s)}): {listed([task.name for task in short])}",
            "A slow answer ends the run in its POST; after a few such runs the task is a dead letter.",
            f"Raise time_limit and soft_time_limit above {post_s:.0f} s, or lower framelane['read_timeout_s'].",
        )


def _tasks_with(tasks: list[TaskFacts], level: Level, what: str, why: str, change: str) -> Finding | None:
    if not tasks:
        return None
    return Finding(level, "states", f"{what}: {listed([task.name for task in tasks])}", why, change)


# --- the broker's and the result backend's settings --------------------------------------------------------------


def check_visibility(facts: Facts) -> Iterator[Finding]:
    """broker_facts.md, "What follows", 2; design.md, "Rules of the record", 13."""
    if facts.conf.broker not in ("redis", "rediss", "sentinel", "redis+socket", "unix"):
        return
    given = facts.conf.broker_options.get("visibility_timeout")
    visibility_s = VISIBILITY_S if given is None else float(given)
    longest_s = facts.conf.longest_time_limit_s
    if visibility_s >= TOMBSTONE_S:
        yield Finding(
            "problem",
            "visibility_timeout",
            f"{span(visibility_s)}: longer than a finished record is remembered ({span(TOMBSTONE_S)})",
            "A message that comes back later than that is taken for a new task: its job is paid twice.",
            "broker_transport_options = {'visibility_timeout': 900}, at most 86400.",
        )
    elif longest_s is not None and visibility_s < longest_s:
        yield Finding(
            "problem",
            "visibility_timeout",
            f"{span(visibility_s)}: shorter than the longest time limit of a task ({span(longest_s)})",
            "A late-acknowledged task that still runs is delivered to a second worker.",
            f"broker_transport_options = {{'visibility_timeout': {int(longest_s * 1.5)}}}, or a shorter time limit.",
        )
    elif visibility_s >= VISIBILITY_S:
        told = span(visibility_s) + (" (the default)" if given is None else "")
        yield Finding(
            "warning",
            "visibility_timeout",
            f"what a killed worker held comes back after {told}",
            "Plain tasks are late by that much; Framelane tasks are brought back by their records.",
            "broker_transport_options = {'visibility_timeout': 900}: longer than your longest plain task, no more.",
        )
    else:
        yield Finding("ok", "visibility_timeout", span(visibility_s))


def check_confirms(facts: Facts) -> Iterator[Finding]:
    """broker_facts.md, "What follows", 5."""
    if not _is_rabbitmq(facts.conf):
        return
    if facts.conf.broker_options.get("confirm_publish"):
        yield Finding("ok", "publisher confirms", "on")
    else:
        yield Finding(
            "ok",
            "publisher confirms",
            "off (Celery's default)",
            "Framelane tasks are sent again if a message is lost; a plain task in their tail is not.",
            "To have plain tasks confirmed: broker_transport_options = {'confirm_publish': True}.",
        )


def check_quorum(facts: Facts) -> Iterator[Finding]:
    """celery_facts.md, row 9: countdowns on quorum queues with a direct exchange hold up what is behind them."""
    if not _is_rabbitmq(facts.conf):
        return
    direct = [queue.name for queue in facts.conf.queues if queue.is_quorum and queue.exchange_type == "direct"]
    if direct:
        yield Finding(
            "warning",
            "quorum queues",
            f"with a direct exchange: {listed(direct)}",
            "Plain tasks with countdown, eta or retry() wait in the worker and hold up the queue; ours do not.",
            "task_default_exchange_type = 'topic' (or exchange type topic in task_queues), and declare them anew.",
        )
    elif any(queue.is_quorum for queue in facts.conf.queues):
        yield Finding("ok", "quorum queues", "native delayed delivery works: no direct exchange")


def _is_rabbitmq(conf: ConfFacts) -> bool:
    return conf.broker in ("amqp", "amqps", "pyamqp", "librabbitmq")


def check_results(facts: Facts) -> Iterator[Finding]:
    """celery_facts.md, row 7, and "Backends"."""
    conf, settings = facts.conf, facts.settings
    if conf.backend in ("", "disabled"):
        yield Finding(
            "warning",
            "results",
            "there is no result backend",
            "Renders run, but nobody can read PROGRESS or results, and chords are refused.",
            "Set result_backend to Redis, a database or django-db, unless only webhooks and signals are used.",
        )
        return
    if conf.backend == "rpc":
        yield Finding(
            "warning",
            "results",
            "result_backend is rpc://",
            "Chords are refused, and only the process that called a task can read its result.",
            "Set result_backend to Redis or a database.",
        )
        return
    waits_s = 0.0 if isinstance(settings, NotAsked) else max(settings.deadline_s, settings.hold_max_s)
    spans = {"result_expires": conf.result_expires_s, "result_chord_expires": conf.result_chord_expires_s}
    short = {name: s for name, s in spans.items() if s is not None and 0 < s < SHORT_RESULT_S}
    for name, seconds in short.items():
        yield Finding(
            "warning",
            "results",
            f"{name} is {span(seconds)}",
            "The watcher keeps what waits alive, three times in a result's life: this leaves it no time.",
            f"{name} = 86400 (Celery's default is a day).",
        )
    shorter = {name: s for name, s in spans.items() if s and SHORT_RESULT_S <= s < waits_s}
    if shorter:
        told = ", ".join(f"{name} {span(seconds)}" for name, seconds in shorter.items())
        yield Finding(
            "ok",
            "results",
            f"{told}; tasks may wait for {span(waits_s)}",
            "The watcher keeps results and chords of what waits alive; without one for that long they fade.",
        )
    elif not short:
        yield Finding("ok", "results", "they live longer than tasks wait")


def check_json(facts: Facts) -> Iterator[Finding]:
    """design.md §6 "errors" and house style: JSON only, both ways."""
    conf = facts.conf
    if not conf.accepts_json or conf.task_serializer != "json":
        yield Finding(
            "problem" if not conf.accepts_json else "warning",
            "serializers",
            "accept_content has no json" if not conf.accepts_json else f"task_serializer is {conf.task_serializer}",
            "Wake-ups are JSON: a worker that does not accept it refuses them."
            if not conf.accepts_json
            else "Framelane tasks need JSON only, and what else is accepted can be attacked.",
            "accept_content = ['json', …]" if not conf.accepts_json else "task_serializer = 'json'",
        )
    if not conf.accepts_json_results:
        yield Finding(
            "problem",
            "serializers",
            "result_accept_content has no json",
            "Finished jobs are stored as JSON: nobody can read them.",
            "result_accept_content = ['json', …], or unset it.",
        )
    if conf.accepts_json and conf.accepts_json_results and conf.task_serializer == "json":
        yield Finding("ok", "serializers", "json, both ways")


# --- versions ----------------------------------------------------------------------------------------------------


def check_versions(facts: Facts) -> Iterator[Finding]:
    """pyproject.toml. (A range of the metadata may have been overridden by a pin.)"""
    wrong = False
    for name, (lowest, end) in SUPPORTED.items():
        version = facts.versions.get(name)
        if version is None:
            continue
        if _numbers(version) < _numbers(lowest) or (end is not None and _numbers(version) >= _numbers(end)):
            wrong = True
            wanted = f"{name}>={lowest}" + (f",<{end}" if end else "")
            yield Finding(
                "problem",
                "versions",
                f"{name} {version} is outside the supported range",
                "Nothing here was ever run with it.",
                f"pip install '{wanted}'",
            )
    if not wrong:
        told = ", ".join(f"{name} {facts.versions[name]}" for name in SUPPORTED if facts.versions.get(name))
        yield Finding("ok", "versions", told or "unknown")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:2])


CHECKS: Final[tuple[Check, ...]] = (
    check_settings,
    check_environment,
    check_key,
    check_acks,
    check_states,
    check_time_limits,
    check_visibility,
    check_confirms,
    check_quorum,
    check_results,
    check_json,
    check_versions,
)
