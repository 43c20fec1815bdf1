"""What Django's pages show of a run: the admin to an operator with every right, the status to whoever is logged in."""

from __future__ import annotations

from celery import _state
from django.test import Client

from tests.django.test_admin import EVERYTHING, LISTS, Operator, link
from tests.worker.stacks import Stack


def pages_of(stack: Stack, ids: dict[str, str]) -> dict[str, str]:
    before = _state._tls.current_app
    stack.app.set_current()
    try:
        operator = Operator(*EVERYTHING)
        lists = [operator.get(f"{model}/") for model in LISTS.values()]
        waiting = [operator.get(link("waitingtask", ids["never"]))]
        letters = [operator.get(link("deadletter", ids[name])) for name in ("dead", "kept", "wrong")]
        statuses = [_status(operator.client, task_id) for task_id in ids.values()]
    finally:
        _state._set_current_app(before)
    return {
        "the admin's lists": "\n".join(lists + waiting),
        "the admin's letters": "\n".join(letters),
        "the status view": "\n".join(statuses),
    }


def _status(client: Client, task_id: str) -> str:
    answer = client.get(f"/framelane/status/{task_id}/?result=1")
    assert answer.status_code == 200, task_id
    return str(answer.content.decode())
