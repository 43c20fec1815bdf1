"""The endpoints of webhooks. The bodies of POST and DELETE are on no page: what is chosen is INFER."""

from __future__ import annotations

from werkzeug.wrappers import Response

from framelane_celery.testing.api import Api
from framelane_celery.testing.calls import Call, answer_json
from framelane_celery.testing.paging import page_of
from framelane_celery.testing.receivers import EVENTS, Receiver
from framelane_celery.testing.refusals import Problem, Refusal, refuse_invalid
from framelane_celery.testing.workspace import make_id


def create_webhook(api: Api, call: Call) -> Response:
    """Tell a URL of the workspace's events: 201 with the secret.

    Shape:  {"url", "events"?: […]} -> Webhook with "secret"
    Source: "secret returned at creation", docs.framelane.io/webhooks/signature-verification.
    """
    body, problems = call.json_object(), []
    url, events = body.get("url"), body.get("events", list(EVENTS))
    if not isinstance(url, str) or not _may_be_told(url):
        problems.append(Problem(("url",), "must be a public https:// URL"))
    if not isinstance(events, list) or not events or not all(isinstance(event, str) for event in events):
        problems.append(Problem(("events",), "must be a list of event names"))
    if problems:
        raise refuse_invalid(problems, api.switches)
    now = api.clock.now()
    receiver = Receiver(make_id("wh", now), str(url), tuple(events), now)
    api.receivers.add(receiver)
    return answer_json({**receiver.view(), "secret": api.receivers.secret}, 201)


def _may_be_told(url: str) -> bool:
    """HTTPS, says the production checklist; beside it this machine, where this server's events can be received."""
    return url.startswith(("https://", "http://127.0.0.1:", "http://localhost:"))


def list_webhooks(api: Api, call: Call) -> Response:
    """List the endpoints: an envelope or a bare list, see the switch `bare_lists`."""
    return answer_json(page_of([receiver.view() for receiver in api.receivers.all()], call, api.switches))


def delete_webhook(api: Api, call: Call, webhook_id: str) -> Response:
    """Forget an endpoint: 204."""
    if not api.receivers.remove(webhook_id):
        raise Refusal(404, "not_found", "Webhook not found.")
    return Response(status=204)


def rotate_secret(api: Api, call: Call, webhook_id: str) -> Response:
    """Make a new secret, which signs for every endpoint at once.

    Source: docs.framelane.io/api-reference/webhooks/rotate-signing-secret.
    """
    _find(api, webhook_id)
    return answer_json({"secret": api.receivers.rotate()})


def list_deliveries(api: Api, call: Call, webhook_id: str) -> Response:
    """List the attempts: docs.framelane.io/api-reference/webhooks/list-delivery-attempts."""
    _find(api, webhook_id)
    return answer_json(page_of(api.receivers.attempts(webhook_id), call, api.switches))


def _find(api: Api, webhook_id: str) -> Receiver:
    receiver = api.receivers.find(webhook_id)
    if receiver is None:
        raise Refusal(404, "not_found", "Webhook not found.")
    return receiver
