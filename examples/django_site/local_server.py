"""The local stand-in for Framelane's API. Its jobs end as the visitor chose, and take as long as their videos are."""

from __future__ import annotations

from collections import Counter

from framelane_celery.testing import Completed, Failed, FramelaneServer, Outcome, Submission


def local_server(pace: float, port: int) -> FramelaneServer:
    """Stands in for Framelane's API, and tells the site of each job's end, as Framelane's webhooks do."""
    return FramelaneServer(
        duration=lambda submission: pace * submission.output_s,
        outcome=Ends(),
        webhook_url=f"http://127.0.0.1:{port}/framelane/webhook/",
    )


class Ends:
    """How the local server's jobs end: as the visitor chose. What fails, fails once: a second attempt is well."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, submission: Submission) -> Outcome:
        ends, video = submission.metadata.get("ends", ""), submission.metadata.get("video", "")
        self._seen[video] += 1
        if ends in ("internal", "source_not_found") and self._seen[video] == 1:
            return Failed(ends, "The render has failed, as it was asked to.")
        return Completed()
