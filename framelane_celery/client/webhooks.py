"""Webhook endpoints: where the workspace's events are sent, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from framelane_celery.client.resource import Calls, item_path, iter_pages
from framelane_celery.models import DeliveryAttempt, Webhook, WebhookSecret

_WEBHOOKS = "/v1/webhooks"


class WebhookCalls(Calls):
    """Webhooks."""

    def create_webhook(self, url: str, events: Sequence[str] | None = None) -> Webhook:
        """Have the workspace's events sent to a URL: HTTPS, public, answering within 10 s. Keep the `secret`.

        Shape:  {"url", "events"?} -> Webhook with its "secret" (INFER: no page shows the body).
        Raises: InvalidRequest, ApiError, TransportError.
        Resend: makes a second endpoint, and each event comes twice.
        Source: POST /v1/webhooks, framelane_api.md §13.1. A job's own `webhook_url` replaces these for that job.
        """
        return self._send(Webhook, "POST", _WEBHOOKS, {"url": url, **({"events": list(events)} if events else {})})

    def iter_webhooks(self, *, limit: int | None = None) -> Iterator[Webhook]:
        """Read the endpoints; `limit` is the size of a page.

        Source: GET /v1/webhooks, an envelope or a bare list (the console takes both).
        """
        return iter_pages(lambda cursor: self._page(Webhook, _WEBHOOKS, limit=limit, cursor=cursor))

    def delete_webhook(self, webhook_id: str) -> None:
        """Send nothing more there.

        Raises: NotFound, ApiError, TransportError.
        Source: DELETE /v1/webhooks/{id} is INFER, of the other resources.
        """
        self._delete(item_path(_WEBHOOKS, webhook_id))

    def rotate_webhook_secret(self, webhook_id: str) -> str:
        """Make a new signing secret and return it. The old one stops at once, for every endpoint of the workspace.

        Raises: NotFound, ApiError, TransportError.
        Resend: makes another one; what an unanswered call has made is not known, so call again.
        Source: POST /v1/webhooks/{id}/rotate-secret, docs.framelane.io/api-reference/webhooks/rotate-signing-secret.
        """
        return self._send(WebhookSecret, "POST", item_path(_WEBHOOKS, webhook_id, "/rotate-secret")).secret

    def iter_deliveries(self, webhook_id: str, *, limit: int | None = None) -> Iterator[DeliveryAttempt]:
        """Read the attempts to deliver to one endpoint; `limit` is the size of a page (50 unless given).

        Raises: NotFound, ApiError, TransportError.
        Source: GET /v1/webhooks/{id}/deliveries, docs.framelane.io/api-reference/webhooks/list-delivery-attempts.
        """
        path = item_path(_WEBHOOKS, webhook_id, "/deliveries")
        return iter_pages(lambda cursor: self._page(DeliveryAttempt, path, limit=limit, cursor=cursor))
