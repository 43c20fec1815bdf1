"""Uploads, and the assets that media becomes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from framelane_celery.models.answer import Answer, Instant, Number, Text, Whole


class Upload(Answer):
    """A place for one file: PUT it to `upload_url`, then use `source_url` in any element or media task.

    `upload_url` is signed, and good for an hour: not in the repr, and not to be stored.

    Shape:  {"upload_url": "https://…", "source_url": "https://…", "expires_at"}
    Source: docs.framelane.io/introduction/uploads.
    """

    upload_url: Annotated[str, Field(min_length=1, repr=False)]
    source_url: Annotated[str, Field(min_length=1)]
    expires_at: Instant = None


class Asset(Answer):
    """Video or audio that is ready in the workspace.

    Units:  width and height in pixels, duration in seconds.
    Source: GET /v1/workspace/assets, site src/lib/api.ts.
    """

    id: Annotated[str, Field(min_length=1)]
    source_url: Text = None
    kind: Text = None
    duration: Number = None
    width: Whole = None
    height: Whole = None
    created_at: Instant = None
