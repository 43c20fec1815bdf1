"""Pages of a small list, for the endpoints whose lists are not of jobs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from framelane_celery.testing.calls import Call
from framelane_celery.testing.refusals import Problem, refuse_invalid
from framelane_celery.testing.switches import Switches

DEFAULT_LIMIT, MAX_LIMIT = 50, 100  # 50 is the deliveries' (framelane_api.md §13.5), 100 what the console asks for


def page_of(items: Sequence[dict[str, Any]], call: Call, switches: Switches) -> Any:
    """One page in the documented envelope, or all of it as a bare list (§13.1: the console takes both).

    Shape:  {"data": […], "next_cursor": string | null, "has_more": bool}
    """
    if switches.bare_lists:
        return list(items)
    limit, start = call.query.get("limit", str(DEFAULT_LIMIT)), 0
    problems = []
    if not (limit.isdecimal() and 1 <= int(limit) <= MAX_LIMIT):
        problems.append(Problem(("limit",), f"must be 1 to {MAX_LIMIT}"))
    try:
        cursor = call.query.get("cursor")
        start = int(base64.urlsafe_b64decode(cursor)) if cursor else 0
    except ValueError:
        problems.append(Problem(("cursor",), "is not a cursor of this list"))
    if problems:
        raise refuse_invalid(problems, switches)
    end = start + int(limit)
    has_more = end < len(items)
    cursor = base64.urlsafe_b64encode(str(end).encode()).decode() if has_more else None
    return {"data": list(items[start:end]), "next_cursor": cursor, "has_more": has_more}
