"""Whose a video is: a visitor's session holds the keys of the rows. A site with users would ask `request.user`."""

from django.db.models import QuerySet
from django.http import HttpRequest

from videos.models import Video


def videos_of(request: HttpRequest) -> QuerySet[Video]:
    return Video.objects.filter(pk__in=request.session.get("videos", []))


def remember(request: HttpRequest, video: Video) -> None:
    request.session["videos"] = [*request.session.get("videos", []), video.pk][-100:]


def may_follow(request: HttpRequest, task_id: str) -> bool:
    """Who may read the status URL: ``FRAMELANE_STATUS_PERMISSION``."""
    return videos_of(request).filter(task_id=task_id).exists()
