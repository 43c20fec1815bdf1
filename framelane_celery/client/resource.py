"""What the endpoints of one resource stand on: the client's one funnel. Each resource is a mixin of `FramelaneClient`.

Mixins, and not objects such as ``client.uploads``: a method's name is the verb and noun of its endpoint, so it needs no
second word before it, and what was there (``client.get_render``) keeps its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import requests

from framelane_celery.client.answers import AnswerT, Page, page_of, parsed
from framelane_celery.models.request import canonical

JSON: Mapping[str, str] = {"Content-Type": "application/json"}


class Calls:
    """One resource's calls."""

    _connect_timeout_s: float
    _read_timeout_s: float

    def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        read_timeout_s: float | None = None,
        stream: bool = False,
    ) -> requests.Response:
        raise NotImplementedError

    def _get(self, model: type[AnswerT], path: str, **params: str | int | None) -> AnswerT:
        return parsed(model, self._request("GET", path, params=_given(params)))

    def _send(self, model: type[AnswerT], method: str, path: str, body: Mapping[str, Any] | None = None) -> AnswerT:
        return parsed(model, self._request(method, path, body=canonical(body or {}), headers=JSON))

    def _delete(self, path: str) -> None:
        self._request("DELETE", path).close()

    def _page(self, model: type[AnswerT], path: str, **params: str | int | None) -> Page[AnswerT]:
        return page_of(model, self._request("GET", path, params=_given(params)))


def iter_pages(read: Callable[[str | None], Page[AnswerT]]) -> Iterator[AnswerT]:
    """Read all pages, one at a time; ``read`` gets the cursor. A list that ignores the cursor must not loop us."""
    cursor, seen = None, set()
    while True:
        page = read(cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None or not page.items or cursor in seen:
            return
        seen.add(cursor)


def item_path(collection: str, item_id: str, rest: str = "") -> str:
    """The path of one item. Raises: ValueError for an id that would name something else."""
    if item_id in ("", ".", ".."):  # dots would be taken out of the path, and name the list
        raise ValueError(f"an id is needed: {collection}/…")
    return f"{collection}/{quote(item_id, safe='')}{rest}"


def _given(params: Mapping[str, str | int | None]) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}
