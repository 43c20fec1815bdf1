"""A transport that has what SQS has: queues, no broadcast, no counting of consumers. Messages are files."""

from __future__ import annotations

from framelane_celery.demo import files


class Transport(files.Transport):
    """Of the demo's, for kombu's own loses a message now and then."""

    implements = files.Transport.implements.extend(exchange_type=frozenset(["direct"]))
