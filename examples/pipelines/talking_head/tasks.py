"""A talking head is cleaned up: eyes to the camera, background away, more pixels."""

from celery import chain

import framelane_celery as framelane


def pipeline(source_url: str, path: str):
    """The canvas. Each step takes the finished job before it as its source, and fetches a fresh link to its file."""
    return chain(
        framelane.gaze_redirect.s(source_url),
        framelane.remove_background.s(),
        framelane.super_resolution.s(),
        framelane.download.s(path),
    )
