"""Order a video, see it grow, see it; and what has failed."""

from celery.result import AsyncResult
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from videosite import celery_app

from framelane_celery import FramelaneClient, dead_letters
from framelane_celery.errors import FramelaneError
from framelane_celery.settings import settings_of
from videos.forms import VideoForm
from videos.models import Video
from videos.tasks import make_video
from videos.visitors import remember, videos_of


class OrderTakenBack(Exception):
    """Something went wrong after the task was called, and before the transaction was committed."""


@never_cache
def order(request: HttpRequest) -> HttpResponse:
    """The form, and its order: a row, and the task that is called once the row is committed."""
    form = VideoForm(request.POST or None)
    status = 200
    if request.method == "POST":
        status = 422
        if form.is_valid():
            try:
                return redirect(place(request, form))
            except OrderTakenBack:
                messages.warning(request, "The order was taken back: nothing was saved, nothing was submitted.")
                return redirect("order")
    for one in videos_of(request).filter(state=Video.State.MAKING)[:20]:
        catch_up(one)
    return render(request, "videos/order.html", {"form": form, "videos": videos_of(request)[:10]}, status=status)


@transaction.atomic
def place(request: HttpRequest, form: VideoForm) -> Video:
    """The id of the task is made now; the task is called when, and if, this transaction is committed."""
    video = form.save()
    video.task_id = make_video.delay_on_commit(video.pk).id
    video.save(update_fields=["task_id"])
    if video.ends == "rolled back":
        raise OrderTakenBack
    remember(request, video)
    return video


def catch_up(video: Video) -> None:
    """A task that was cancelled runs no code that could tell the row: the result backend knows."""
    if video.state == Video.State.MAKING and AsyncResult(video.task_id).state == "REVOKED":
        video.state = Video.State.CANCELLED
        video.save(update_fields=["state"])


@require_safe
@never_cache
def video(request: HttpRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(videos_of(request), pk=pk)
    catch_up(found)
    return render(request, "videos/video.html", {"video": found})


@require_safe
@never_cache
def file(request: HttpRequest, pk: int) -> HttpResponse:
    """To the file itself: the API's links are short-lived, so a fresh one is asked for, and none is stored."""
    found = get_object_or_404(videos_of(request), pk=pk, state=Video.State.READY)
    with FramelaneClient.from_settings(settings_of(celery_app)) as client:
        return redirect(client.download_url("render", found.job_id))


@require_safe
@never_cache
def failures(request: HttpRequest) -> HttpResponse:
    """What has failed of this visitor's videos."""
    failed = videos_of(request).filter(state=Video.State.FAILED)
    return render(request, "videos/failures.html", {"videos": failed})


@require_POST
def again(request: HttpRequest, pk: int) -> HttpResponse:
    """Replay the dead letter: as a new task, which is paid for like any other."""
    failed = get_object_or_404(videos_of(request), pk=pk)
    try:
        replay = dead_letters.replay(celery_app, failed.task_id)
    except FramelaneError as error:
        messages.error(request, str(error))
        return redirect("failures")
    # Only while it is the failed one: the replay may have been quicker than we are.
    making = {"state": Video.State.MAKING, "task_id": replay.task_id, "code": ""}
    videos_of(request).filter(pk=pk, state=Video.State.FAILED).update(**making)
    return redirect(failed)
