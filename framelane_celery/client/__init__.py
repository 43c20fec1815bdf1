"""The only place that speaks HTTP.

Every call has both timeouts, follows no redirect and raises typed errors. Reads are tried again on the spot; what
creates or cancels is sent exactly once, because when to repeat it, and with which bytes and key, is the record's
decision. The key goes to the API alone: not to the storage host, a log line or an error.
"""

from framelane_celery.client.api import FramelaneClient, Kind, Submitted, Uploaded, shared_client

__all__ = ["FramelaneClient", "Kind", "Submitted", "Uploaded", "shared_client"]
