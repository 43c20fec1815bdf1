"""One switch for each thing the documentation leaves open.

Every default is the likelier answer by `framelane_api.md`; a client is right only when its tests pass both ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Switches:
    """How this server answers where the sources are silent or disagree.

    Each field is INFER; the comment beside it says what the sources have.
    """

    has_list: bool = True  # documented; False answers 404, as a gateway without the route would
    list_filters: bool = True  # `type` and `status` are documented for tasks only; False ignores them
    has_wait: bool = True  # `?wait=` is only in the site's llms.txt; False answers at once
    wait_out_of_range: Literal["refuse", "clamp"] = "refuse"  # nothing is said about values beyond 0 to 25
    replay_shows: Literal["current", "original"] = "current"  # "existing job" against "original response"
    body_equality: Literal["canonical", "bytes"] = "canonical"  # the rule for "same body" is not stated
    short_post_body: bool = False  # llms.txt shows {"id", "status"}, the reference page the whole job
    unknown_status: str | None = None  # a status of the future, shown between queued and processing
    cancel_answer: Literal["job", "empty"] = "job"  # 200 with the job, or 204
    cancel_processing: bool = True  # "cancel a queued render" against the diagram; False answers 409
    download_status: Literal[302, 303, 307] = 302  # "redirects", code not stated
    output_url_lives_s: float = 86_400.0  # 24 h in the dropped v0 API; not stated now
    signed_url_lives_s: float = 900.0  # "short-lived"
    retry_after_header: bool = True  # the page is titled "headers" and names none
    quota_status: Literal[429, 402] = 429  # docs against llms.txt
    validation_style: Literal["envelope", "fastapi"] = "envelope"  # 422 by docs; FastAPI's own shape with 400
    usage_spelling: Literal["docs", "console", "both"] = "docs"  # render_minutes against render_minutes_used
    requires_https_sources: bool = True  # production checklist; this server's own storage is always accepted
    replay_counts_against_limit: bool = True  # limiters sit before the handler
    stores_refusals: bool = False  # whether 4xx answers are kept under the key; True replays 402, 422 and quota's 429
    imports_take_keys: bool = True  # §21.11: whether imports honour an Idempotency-Key; False makes a second one
    bare_lists: bool = False  # webhooks, keys, assets and projects: the envelope, or a bare list (§13.1)
    has_preview: bool = True  # only in the site's llms.txt; False answers 404
    preview_body: Literal["fields", "render_request"] = "fields"  # "an inline request": its own fields, or inside one
    preview_refuses_schema: bool = False  # True: violations are for invariants only, what no schema takes is a 422
