"""Webhooks: proof that bytes come from Framelane, then a hint to the room. For any framework; no worker is needed.

A hint says when to look, never what happened: the envelope of the events is documented nowhere (framelane_api.md §13),
so nothing is read of it but ids, and the watcher asks the API what became of the job. A hint that is doubled, late,
out of order or replayed costs one look at most; one that is lost costs the time until the next look.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery import current_app

from framelane_celery import records
from framelane_celery.errors import FramelaneError, SettingsError
from framelane_celery.records import ForeignRecord
from framelane_celery.room import Room, move, room_of
from framelane_celery.settings import settings_of

if TYPE_CHECKING:
    from celery import Celery

    from framelane_celery.records import Record

logger = logging.getLogger(__name__)

TOLERANCE_S: Final = 300
"""How far the signature's time may be from ours, both ways (framelane_api.md §13.4)."""

MAX_BODY_BYTES: Final = 1024 * 1024
"""What is longer is refused before it is hashed: one job's event is a few kilobytes, and anybody may send."""

_MAX_HEADER: Final = 4096
_TELL_EVERY_S: Final = 1.0
_MAX_DEPTH: Final = 6
_MAX_VALUES: Final = 2000
_MAX_IDS: Final = 16

Headers = Mapping[Any, Any] | Iterable[tuple[Any, Any]]
"""Name and value of each header, as text or bytes; a WSGI environ will do."""


class WebhookRefused(FramelaneError):
    """The request is not proven to be Framelane's: answer 400. Why is only in the log."""

    def __init__(self, message: str = "not a webhook of Framelane's") -> None:
        super().__init__(message)


class Received(NamedTuple):
    """What became of a webhook that is proven to be Framelane's. Whatever it is, answer 200."""

    job_id: str | None
    """The job that it tells of; None: it names none. Of an unknown job it is the likeliest id in the body."""
    task_id: str | None
    """The task that waits for the job."""
    is_known: bool
    """Whether a task of this app waits for the job. Others of your workspace have jobs too."""
    is_new: bool
    """Whether this call left a hint: not for an unknown job, nor for a replay of what this process has seen."""


def receive(headers: Headers, body: bytes, *, app: Celery | None = None) -> Received:
    """Take one webhook: prove its bytes, then leave a hint for each job in it that a task waits for.

    ``headers`` may be those of any framework, ``body`` is what came over the wire, before any decoding or parsing.
    Raises: WebhookRefused (answer 400); RoomError (answer 5xx: Framelane sends it again); SettingsError, if no secret
            is set; TypeError, if the body is not bytes.
    Resend: safe.
    """
    if not isinstance(body, bytes):
        raise TypeError(f"body must be the bytes as they were received, not {type(body).__name__}: request.body or so")
    app = current_app if app is None else app
    settings = settings_of(app)
    if not settings.all_webhook_secrets:
        raise SettingsError(
            "webhook_secrets: none is set; set framelane['webhook_secrets'] or FRAMELANE_WEBHOOK_SECRET"
            " to the signing secret that Framelane showed for the webhook (whsec_…)"
        )
    secrets = [secret.get_secret_value() for secret in settings.all_webhook_secrets]
    signed_at = prove(_signature_of(headers), body, secrets, now=time.time())
    # A delivery is its time and its bytes. Not its bytes alone: it may be that they name the job and nothing else.
    mark = hashlib.sha256(b"%d." % signed_at + body).digest()
    return _hint(room_of(app, settings), job_ids_in(body), mark)


# --- the proof ---------------------------------------------------------------------------------------------------

# A part is the time, a signature, or something of a scheme to come, which is passed over. No time but the one that is
# written into the signed bytes: no sign, no leading zero, and ASCII digits only (int() takes others too).
_PART: Final = re.compile(
    r"t=(?P<t>[1-9][0-9]{0,10}) | v1=(?P<v1>[0-9a-f]{64}) | (?!t=|v1=) [A-Za-z0-9_]+ = [!-+\-.-~]*", re.VERBOSE
)


def prove(header: str | None, body: bytes, secrets: Iterable[str], *, now: float) -> int:
    """Prove that the bytes were signed with one of the secrets, and lately; returns when.

    Every secret is tried on every signature, without stopping at the first that fits.
    Source: docs.framelane.io/webhooks/signature-verification: HMAC-SHA256 over "<t>.<body>", in hex.
    Raises: WebhookRefused.
    """
    if len(body) > MAX_BODY_BYTES:
        raise _refused("its body is too long")
    if header is None or len(header) > _MAX_HEADER:
        raise _refused("it has no Framelane-Signature, or more than one, or one that is too long")
    parts = [_PART.fullmatch(part) for part in header.split(",")]
    times = [part["t"] for part in parts if part and part["t"]]
    signatures = [part["v1"].encode() for part in parts if part and part["v1"]]
    if None in parts or len(times) != 1 or not signatures:
        raise _refused("its Framelane-Signature is malformed")
    signed = times[0].encode() + b"." + body
    ours = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode() for secret in secrets]
    fits = [hmac.compare_digest(one, other) for one in ours for other in signatures]
    if not any(fits):
        raise _refused("it is signed with no secret of ours")
    if abs(now - int(times[0])) > TOLERANCE_S:
        raise _refused(f"it was not signed within {TOLERANCE_S} s of this host's clock")
    return int(times[0])


class _Refusals:
    """Tells the operator, and nobody else, why; anybody may send, so not of each one in a flood."""

    def __init__(self) -> None:
        self._told_at, self._untold = -_TELL_EVERY_S, 0

    def tell(self, reason: str) -> None:
        now = time.monotonic()
        if now - self._told_at < _TELL_EVERY_S:
            self._untold += 1
            return
        more = f" (and {self._untold} more since the last line)" if self._untold else ""
        logger.warning("a webhook was refused: %s%s", reason, more)
        self._told_at, self._untold = now, 0


_refusals = _Refusals()


def _refused(reason: str) -> WebhookRefused:
    _refusals.tell(reason)
    return WebhookRefused()


def _signature_of(headers: Headers) -> str | None:
    """The one Framelane-Signature, whatever the spelling of names. None: there is none, or there are several."""
    pairs: Iterable[tuple[Any, Any]] = headers.items() if hasattr(headers, "items") else headers
    found: list[Any] = []
    for name, value in pairs:
        if _text(name).lower() in ("framelane-signature", "http_framelane_signature"):
            found += value if isinstance(value, (list, tuple)) else [value]
    return _text(found[0]) if len(found) == 1 else None


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


# --- what it tells -----------------------------------------------------------------------------------------------

_JOB_WORDS: Final = ("job", "render", "task")
_ID: Final = re.compile(r"[!-~]{1,200}")  # opaque, but something that every store can look up


def job_ids_in(body: bytes) -> list[str]:
    """Every string in the body that may be a job's id, the likeliest first. Nothing else is read of it."""
    try:
        event = json.loads(body, parse_int=_no_number, parse_float=_no_number)
    except (ValueError, RecursionError):
        return []
    found = sorted(_ids(event), key=lambda pair: pair[0])
    return list(dict.fromkeys(id for _, id in found))[:_MAX_IDS]


def _no_number(text: str) -> None:
    """Numbers are not read, however long."""


def _ids(event: Any) -> Iterator[tuple[int, str]]:
    """Candidates with their rank; breadth first, as far as a sane event goes."""
    left: deque[tuple[Any, str, str, int]] = deque([(event, "", "", 0)])
    for _ in range(_MAX_VALUES):
        if not left:
            return
        value, key, parent, depth = left.popleft()
        if isinstance(value, str):
            rank = _rank(key, parent)
            if rank is not None and _ID.fullmatch(value):
                yield rank, value
        elif depth < _MAX_DEPTH and isinstance(value, dict):
            # `metadata` is the user's own. ("jobId" is read as "job_id".)
            inner = [(re.sub("Id$", "_id", name).lower(), one) for name, one in value.items() if name != "metadata"]
            left.extend((one, name, key, depth + 1) for name, one in inner)
        elif depth < _MAX_DEPTH and isinstance(value, list):
            left.extend((one, key, parent, depth + 1) for one in value)


def _rank(key: str, parent: str) -> int | None:
    """How likely a string is a job's id, by its name: 0 is best. None: not at all."""
    if key in _JOB_WORDS or key.removesuffix("_id") in _JOB_WORDS or (key == "id" and parent in _JOB_WORDS):
        return 0
    if key == "id":
        return 1 if parent else 2  # outside may be the event's own
    return 3 if key.endswith("_id") else None


# --- the hint ----------------------------------------------------------------------------------------------------


def _hint(room: Room, job_ids: Sequence[str], mark: bytes) -> Received:
    """Leave a hint with every record that waits for one of the jobs.

    A job that no record waits for (it may be anybody's) needs none, and a record that is about to wait for it neither:
    the first look is due at once when a job is accepted (`records.accept`).
    """
    is_replay = _seen.has(room.namespace, mark)
    known = [(job_id, task_id) for job_id in job_ids if (task_id := room.task_of(job_id)) is not None]
    hinted = [task_id for _, task_id in known if not is_replay and _look_now(room, task_id)]
    if hinted:
        _seen.add(room.namespace, mark)
    if known:
        return Received(*known[0], is_known=True, is_new=bool(hinted))
    return Received(job_ids[0] if job_ids else None, None, is_known=False, is_new=False)


def _look_now(room: Room, task_id: str) -> bool:
    try:
        return move(room, task_id, _hinted) is not None
    except ForeignRecord as error:
        logger.warning("%s: no hint: %s", task_id, error)
        return False


def _hinted(record: Record, now: float) -> Record | None:
    return records.hinted(record, now=now)


class _Seen:
    """The marks of the last hints that this process has left: between ``size`` and twice as many.

    No lock: two threads that meet here forget some marks too early, and a hint too many does no harm.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._new: set[tuple[str, bytes]] = set()
        self._old: set[tuple[str, bytes]] = set()

    def has(self, namespace: str, mark: bytes) -> bool:
        return (namespace, mark) in self._new or (namespace, mark) in self._old

    def add(self, namespace: str, mark: bytes) -> None:
        if len(self._new) >= self._size:
            self._old, self._new = self._new, set()
        self._new.add((namespace, mark))


_seen = _Seen(5000)
