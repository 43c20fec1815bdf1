"""Without a worker: does the shop ask for the right jobs? Milliseconds each."""

import pytest
import shop

from framelane_celery import InvalidArguments, JobFailed

pytestmark = pytest.mark.usefixtures("in_place")


def test_a_promo_says_what_is_new(framelane_server):
    shop.promo.delay("sneaker")
    [job] = framelane_server.assert_submitted(shop.promo, times=1)
    assert job.request.elements[0].text == "New: sneaker"
    assert (job.request.width, job.request.height) == (1080, 1920)


def test_the_film_is_transcribed_and_published(framelane_server):
    assert shop.submit("sneaker").get() == "sneaker"
    assert [job.operation for job in framelane_server.submitted] == ["render", "transcribe"]
    assert shop.told == ["sneaker is published: task completed"]


def test_a_composition_that_the_api_would_refuse_is_not_paid_for(framelane_server):
    with pytest.raises(InvalidArguments, match="duration"):
        shop.framelane.render({"elements": [{"type": "text", "text": "endless"}]})
    framelane_server.assert_nothing_submitted()


def test_a_failed_job_is_an_error(framelane_server):
    framelane_server.fail_next("source_unreachable")
    with pytest.raises(JobFailed) as caught:
        shop.promo("sneaker")
    assert caught.value.code == "source_unreachable"
