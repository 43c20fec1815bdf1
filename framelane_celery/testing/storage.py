"""Signed URLs on the storage host, and what is said to those who come without a good one."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping

from framelane_celery.testing.clock import Clock
from framelane_celery.testing.refusals import Refusal


class Storage:
    """Signs and checks URLs.

    The storage host has another name than the API's, as the real one has (`cdn-user.framelane.io`), so that a client
    which forwards the account's key is noticed: it is refused, as Google's signed URLs do (INFER).
    """

    def __init__(self, clock: Clock) -> None:
        self.base_url = ""
        self._clock = clock
        self._secret = secrets.token_bytes(16)

    def sign(self, job_id: str, extension: str, expires_at: float) -> str:
        """Make the URL of a job's file."""
        path = f"/storage/{job_id}/output.{extension}"
        expires = str(int(expires_at))
        return f"{self.base_url}{path}?expires={expires}&signature={self._signature(path, expires)}"

    def sign_put(self, path: str, expires_at: float) -> str:
        """Make the URL to which one file may be put: a signature for reading does not do."""
        expires = str(int(expires_at))
        return f"{self.base_url}{path}?expires={expires}&signature={self._signature(f'PUT {path}', expires)}"

    def check(self, path: str, query: Mapping[str, str], has_authorization: bool, method: str = "GET") -> None:
        """Refuse a request that must not get the file.

        Raises: Refusal 400 when the account's key came along, 403 for a wrong or expired signature.
        """
        if has_authorization:
            raise Refusal(400, "invalid_request", "A signed URL takes no Authorization header: the key has leaked.")
        expires = query.get("expires", "")
        given = query.get("signature", "").encode()
        signed = path if method == "GET" else f"{method} {path}"
        if not hmac.compare_digest(self._signature(signed, expires).encode(), given):
            raise Refusal(403, "forbidden", "The signature does not match.")
        if self._clock.now() >= float(expires):
            raise Refusal(403, "forbidden", "The signed URL has expired.")

    def owns(self, url: str) -> bool:
        """Say whether a URL is a file of this server."""
        return url.startswith(f"{self.base_url}/storage/")

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()
