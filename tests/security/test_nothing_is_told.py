"""No key, no secret of webhooks, no signed URL and no text of a request is told where it may be seen.

The table says where we look, and what may be there by design:

    surface                          may show
    messages' headers                nothing
    messages' bodies                 the arguments of the call, and a finished job as the next step's argument
    dead-letter messages             nothing
    results of success               the finished job, with `output.url` (or what `completed` made of it)
    results of failure and progress  nothing
    events                           nothing: task-sent, -received, -succeeded, -failed, -progress, -revoked
    worker's log, caller's log       nothing, at DEBUG
    inspect                          nothing: active, query_task, conf, stats
    Flower's API and pages, metrics  nothing
    caller's errors                  nothing
    waiting, progress, dead list, …  nothing; each for the eye and with --json
    dead show, the admin's letters   the letter's arguments, for whoever mends them; never a URL's query
    the admin's lists, status view   nothing
    reprs                            nothing: test_reprs.py

A plain task of Celery's own shows its arguments as Celery does where it calls itself again (`retry`), or is a chord's
last member: then its message, and the one of the chord's body, hold the finished job.

To add a surface: put its text into `told` in `full_run.py` under a new name, and the name into SURFACES.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.security.full_run import API_KEY, QUERY, WEBHOOK_SECRET, WORDS, full_run
from tests.security.pages import pages_of

pytestmark = [pytest.mark.worker, pytest.mark.timeout(300)]

KEYS = {"the API key": API_KEY, "the webhook secret": WEBHOOK_SECRET}
BODY = {"a signed URL of the request": QUERY.partition("=")[2], "the text of the request": WORDS[:9]}

OUTPUT = {"the signed URL of an output": "signature=[0-9a-f]{32}"}
SECRETS = {**KEYS, **BODY, **OUTPUT}

ARGUMENTS, LETTER, NOTHING = "arguments", "letter", "nothing"
SURFACES = {
    "messages' headers": NOTHING,
    "messages' bodies": ARGUMENTS,
    "dead-letter messages": NOTHING,
    "results of success": ARGUMENTS,
    "results of failure and progress": NOTHING,
    "events": NOTHING,
    "worker's log": NOTHING,
    "caller's log": NOTHING,
    "inspect": NOTHING,
    "Flower's API": NOTHING,
    "Flower's pages": NOTHING,
    "metrics": NOTHING,
    "caller's errors": NOTHING,
    "the admin's lists": NOTHING,
    "the admin's letters": LETTER,
    "the status view": NOTHING,
    **{
        f"{command}{options}": LETTER if command == "dead show" else NOTHING
        for command in ("waiting", "progress", "dead list", "dead show", "ends", "health", "doctor", "orphans")
        for options in ("", " --json")
    },
}


@pytest.fixture(scope="module", params=["redis", pytest.param("rabbitmq", marks=pytest.mark.slow)])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    request.getfixturevalue("database")
    with full_run(request.param, tmp_path_factory.mktemp(request.param)) as (stack, told, ids):
        told.update(pages_of(stack, ids))
        yield told


@pytest.mark.parametrize("surface", SURFACES)
def test_nothing_is_told(told: dict[str, str], surface: str) -> None:
    allowed = {
        ARGUMENTS: {*BODY, *OUTPUT},
        LETTER: {"the text of the request"},
        NOTHING: set(),
    }[SURFACES[surface]]
    text = told[surface]
    assert text
    leaked = {
        name: text[max(0, found.start() - 300) : found.end() + 100]
        for name, secret in SECRETS.items()
        if name not in allowed and (found := re.search(secret, text))
    }
    assert not leaked


def test_every_surface_was_looked_at(told: dict[str, str]) -> None:
    assert set(told) == set(SURFACES)


def test_the_run_told_what_it_had_to(told: dict[str, str]) -> None:
    """Else the tests above find nothing because nothing was there."""
    types = ("sent", "received", "succeeded", "failed", "progress", "revoked", "retried")
    assert [kind for kind in types if f'"task-{kind}"' not in told["events"]] == []
    for secret in BODY.values():
        assert secret in told["messages' bodies"]
    for secret in OUTPUT.values():
        assert re.search(secret, told["results of success"])
        assert re.search(secret, told["messages' bodies"])
    assert "GET /storage/" in told["worker's log"]
    assert "source_unreachable" in told["dead show"]
    assert "DEBUG" in told["worker's log"]
    assert "framelane_submissions_total" in told["metrics"]
    for flower in ("Flower's API", "Flower's pages"):
        assert "framelane.transcribe" in told[flower]
        assert "source_unreachable" in told[flower]
    for letter in ("dead show", "the admin's letters"):
        assert WORDS[:9] in told[letter]
