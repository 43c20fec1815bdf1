"""Django's system checks. They connect to nothing: `celery -A proj framelane doctor` does.

What is wrong with a configuration the doctor's checks know; here each gets the id by which Django can silence it.
What may be meant stays for ``check --deploy``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.urls import get_resolver

from framelane_celery.django import permission, project
from framelane_celery.errors import SettingsError
from framelane_celery.settings import settings_of

if TYPE_CHECKING:
    from celery import Celery

    from framelane_celery.doctor import Finding
    from framelane_celery.doctor.facts import Facts

_NUMBERS: Final = {
    "settings": "002",
    "api key": "003",
    "api address": "004",
    "acks": "005",
    "states": "006",
    "serializers": "007",
    "versions": "008",
    "environment": "009",
    "results": "010",
    "visibility_timeout": "011",
    "time limits": "012",
    "quorum queues": "013",
    "app": "014",
}
"""By what a finding looked at: the digits of its id. 001 and from 020 on are Django's own."""


@register("framelane")
def check_configuration(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """What stops work, or loses it."""
    try:
        app = project.celery_app()
    except SettingsError as error:
        return [Error(str(error), hint="Nothing else of framelane was checked.", id="framelane.E001")]
    return [_message(finding) for finding in _findings(app) if finding.level == "problem"]


@register("framelane", deploy=True)
def check_deployment(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """What may be meant in development."""
    try:
        app = project.celery_app()
    except SettingsError:
        return []
    return [_message(finding) for finding in _findings(app) if finding.level == "warning"]


def _findings(app: Celery) -> Iterator[Finding]:
    from framelane_celery.doctor import configuration, visit  # only here: a web process needs neither HTTP nor these

    facts = _whole(app, visit.read(app, loads=False))
    for check in configuration.CHECKS:
        for finding in check(facts):
            asked_api = finding.check == "api key" and finding.level != "problem"  # nobody has asked it
            if finding.check in _NUMBERS and not asked_api:
                yield finding


def _whole(app: Celery, facts: Facts) -> Facts:
    """With the settings' error as it is: the doctor's table has room for the beginning only."""
    try:
        settings_of(app)
    except SettingsError as error:
        from framelane_celery.doctor.facts import NotAsked

        return replace(facts, settings=NotAsked(str(error)))
    return facts


def _message(finding: Finding) -> CheckMessage:
    """A finding as Django tells it. The key is no error: a process that calls tasks, or takes webhooks, needs none."""
    is_error = finding.level == "problem" and finding.check != "api key"
    kind, letter = (Error, "E") if is_error else (Warning, "W")
    text = finding.what if finding.check in finding.what else f"{finding.check}: {finding.what}"
    hint = " ".join(part for part in (finding.why, finding.change) if part)
    return kind(text, hint=hint or None, id=f"framelane.{letter}{_NUMBERS[finding.check]}")


# --- what is mounted ---------------------------------------------------------------------------------------------


@register("framelane")
def check_urls(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """What the URLs of this app need, where they are mounted."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return []
    mounted = {getattr(view, "framelane_name", None) for view in _views(get_resolver().url_patterns)}
    found: list[CheckMessage] = []
    if "webhook" in mounted:
        found += _check_secrets()
    if "status" in mounted:
        found += _check_permission()
    return found


def _views(patterns: Sequence[Any]) -> Iterator[Any]:
    for pattern in patterns:
        if hasattr(pattern, "url_patterns"):
            yield from _views(pattern.url_patterns)
        else:
            yield pattern.callback


def _check_secrets() -> list[CheckMessage]:
    try:
        resolved = settings_of(project.celery_app())
    except SettingsError:  # told by the others
        return []
    if resolved.all_webhook_secrets:
        return []
    return [
        Warning(  # no error: that would keep a site from starting whose tasks go on without webhooks, a little later
            "the webhook URL is mounted, but no webhook secret is set: every webhook is answered with 503",
            hint="Set CELERY_FRAMELANE['webhook_secrets'] or FRAMELANE_WEBHOOK_SECRET to the signing secret that"
            " Framelane showed for the webhook (whsec_…). While you use no webhooks, silence this.",
            id="framelane.W020",
        )
    ]


def _check_permission() -> list[CheckMessage]:
    try:
        asked = permission.configured()
    except SettingsError as error:
        return [Error(str(error), hint="Until then nobody may read a status.", id="framelane.E021")]
    if asked is None and not any("AuthenticationMiddleware" in name for name in settings.MIDDLEWARE):
        return [
            Warning(
                "the status URL answers logged-in users only, and no AuthenticationMiddleware says who is logged in",
                hint="Set FRAMELANE_STATUS_PERMISSION to the dotted path of a callable(request, task_id) -> bool, or"
                " add the middleware.",
                id="framelane.W022",
            )
        ]
    return []
