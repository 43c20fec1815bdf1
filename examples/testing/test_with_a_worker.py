"""With a worker in a thread and a clock that the test moves: what happens while a job runs, and when it fails?

Each starts a worker, which takes Celery some seconds; an hour, or a month, takes none.
"""

import pytest
import shop

from framelane_celery import JobFailed, JobTimedOut, dead_letters
from framelane_celery.testing import assert_dead_letter, assert_waiting

pytestmark = pytest.mark.usefixtures("celery_app", "celery_worker")


@pytest.mark.framelane_server(job_seconds=3600)
def test_an_hour_of_rendering_holds_no_worker(framelane_server):
    result = shop.promo.delay("sneaker")
    assert assert_waiting(result)["percent"] == 0
    assert shop.publish.delay({"kind": "render", "status": "completed"}, "hat").get(timeout=10) == "hat"

    framelane_server.clock.advance(3600)
    assert result.get(timeout=10)["status"] == "completed"
    framelane_server.assert_paid_once(result)


@pytest.mark.framelane_server(job_seconds=3600)
def test_each_job_can_be_ended_by_hand(framelane_server):
    first, second = shop.promo.delay("sneaker"), shop.promo.delay("hat")
    framelane_server.finish(framelane_server.job_of(first), duration=4.0)
    framelane_server.fail(framelane_server.job_of(second), "source_unreachable")
    assert first.get(timeout=10)["output"]["duration"] == 4.0
    with pytest.raises(JobFailed):
        second.get(timeout=10)


def test_an_internal_error_is_tried_again(framelane_server):
    framelane_server.fail_next("internal")
    result = shop.promo.delay("sneaker")
    assert_waiting(result, until="instant")

    framelane_server.clock.advance(600)
    result.get(timeout=10)
    framelane_server.assert_submitted(shop.promo, times=2)


@pytest.mark.framelane_server(job_seconds=30 * 86400)
def test_a_job_that_hangs_is_given_up(framelane_server, celery_app):
    result = shop.promo.delay("sneaker")
    assert_waiting(result)
    framelane_server.clock.advance(6 * 3600)
    with pytest.raises(JobTimedOut):
        result.get(timeout=10)
    assert_dead_letter(celery_app, "timed_out")


@pytest.mark.framelane_server(quota_renders=1)
def test_a_spent_quota_holds_what_comes_next_until_the_month_ends(framelane_server):
    shop.promo.delay("sneaker").get(timeout=10)
    held = shop.promo.delay("hat")
    assert_waiting(held, until="release")
    framelane_server.clock.advance(31 * 86400)
    assert held.get(timeout=10)["status"] == "completed"


def test_a_film_that_failed_is_told_and_can_be_run_again(framelane_server, celery_app):
    framelane_server.fail_next("source_unreachable")
    result = shop.submit("sneaker")
    letter = assert_dead_letter(celery_app, "source_unreachable", shop.promo)
    assert result.parent.parent.state == "FAILURE"

    again = dead_letters.replay(celery_app, letter.id)
    assert celery_app.AsyncResult(again.task_id).get(timeout=10)["status"] == "completed"
    assert shop.told[0] == "sneaker is not published: source_unreachable"
