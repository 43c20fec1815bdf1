"""Webhook endpoints of the workspace, and what was delivered to them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from framelane_celery.models.answer import Answer, Instant, Text, Whole


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


class Webhook(Answer):
    """One endpoint. `secret` (`whsec_…`) is there in the answer to its creation only, and not in the repr.

    Source: fields from site src/lib/api.ts; the secret from docs.framelane.io/webhooks/signature-verification.
    """

    id: Annotated[str, Field(min_length=1)]
    url: Text = None
    events: Annotated[list[str], BeforeValidator(_texts)] = Field(default_factory=list)
    enabled: Annotated[bool, BeforeValidator(lambda value: value is not False)] = True
    created_at: Instant = None
    last_delivery_at: Instant = None
    secret: Text = Field(default=None, repr=False)


class WebhookSecret(Answer):
    """The new signing secret; the old one stops at once. One per workspace, by the reference (§13.4)."""

    secret: Annotated[str, Field(min_length=1, repr=False)]


class DeliveryAttempt(Answer):
    """One attempt at one delivery; a delivery has several. What statuses there are is on no page.

    Source: docs.framelane.io/api-reference/webhooks/list-delivery-attempts.
    """

    id: Annotated[str, Field(min_length=1)]
    delivery_id: Text = None
    webhook_id: Text = None
    event_type: Text = None
    attempt_number: Whole = None
    status: Text = None
    created_at: Instant = None
    job_id: Text = None
    status_code: Whole = None
    response_body: Text = Field(default=None, repr=False)
    attempted_at: Instant = None
    next_retry_at: Instant = None
