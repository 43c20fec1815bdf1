"""Where a task waits, where its retries and its letter go, and what a worker serves of that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import celery
import pytest
from celery import Celery
from kombu import Exchange, Queue

from framelane_celery import queues
from framelane_celery.errors import SettingsError
from framelane_celery.routing import Route, parse_routes
from framelane_celery.settings import FramelaneSettings

HOUR_S = 3600.0


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("shop", set_as_current=False, broker="memory://", backend="cache+memory://")
    yield app
    app.close()


def make_settings(**values: Any) -> FramelaneSettings:
    return FramelaneSettings(namespace="shop", **values)


# --- where a task waits ------------------------------------------------------------------------------------------

ROUTES = {
    "shop.promo": {"queue": "promos"},
    "shop.k*": "kilos",
    "shop.topic": {"exchange": "media", "routing_key": "video.long"},
}
QUEUES = [
    Queue("celery", Exchange("celery"), routing_key="celery"),
    Queue("promos", Exchange("promos"), routing_key="promos"),
    Queue("long", Exchange("media", type="direct"), routing_key="video.long"),
    Queue("urgent", Exchange("celery"), routing_key="now"),
]


@pytest.mark.parametrize(
    ("task", "options", "queue"),
    [
        ("shop.other", {}, "celery"),
        ("shop.promo", {}, "promos"),
        ("shop.kilo", {}, "kilos"),
        ("shop.promo", {"queue": "mine"}, "mine"),
        ("shop.promo", {"queue": Queue("mine")}, "mine"),
        ("shop.other", {"queue": "mine", "routing_key": "x"}, "mine"),
        ("shop.other", {"queue": None, "exchange": "", "priority": 3}, "celery"),
        # past the default queue, which Celery's router adds all the same
        ("shop.other", {"exchange": "media", "routing_key": "video.long"}, "long"),
        ("shop.other", {"exchange": Exchange("media"), "routing_key": "video.long"}, "long"),
        ("shop.other", {"routing_key": "now"}, "urgent"),
        ("shop.topic", {}, "long"),
        # bound to nothing that the app knows
        ("shop.other", {"exchange": "media", "routing_key": "video.short"}, "celery"),
        ("shop.promo", {"routing_key": "nowhere"}, "promos"),
    ],
)
def test_the_queue_of_a_task(app: Celery, task: str, options: dict[str, Any], queue: str) -> None:
    app.conf.update(task_routes=ROUTES, task_queues=QUEUES)
    asked = dict(options)
    assert queues.queue_of(app, task, options) == queue
    assert options == asked


def test_the_default_queue_has_the_name_that_the_app_gives_it(app: Celery) -> None:
    app.conf.task_default_queue = "renders"
    assert queues.queue_of(app, "shop.other", {}) == "renders"


# --- where retries and letters go --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "named", "queue"),
    [
        (None, None, "renders.retry"),
        ("retries", None, "retries"),
        (None, "of.the.route", "of.the.route"),
        ("retries", "of.the.route", "of.the.route"),
    ],
)
def test_the_retry_queue(app: Celery, setting: str | None, named: str | None, queue: str) -> None:
    assert queues.retry_queue_of(app, make_settings(retry_queue=setting), "renders", named) == queue


@pytest.mark.parametrize(
    ("setting", "named", "queue"),
    [(None, None, "shop.dead"), ("letters", None, "letters"), (None, "x", "x"), ("letters", "x", "x")],
)
def test_the_dead_letter_queue(setting: str | None, named: str | None, queue: str) -> None:
    assert queues.dead_letter_queue_of(make_settings(dead_letter_queue=setting), named) == queue


def test_a_queue_is_declared_as_celery_would(app: Celery) -> None:
    queue = queues.declared(app, "renders.retry")
    assert (queue.name, queue.durable, queue.auto_delete) == ("renders.retry", True, False)
    assert (queue.exchange.name, queue.routing_key) == ("renders.retry", "renders.retry")
    assert queues.declared(app, "renders.retry") is queue


def test_a_queue_of_the_users_own_stays_as_it_is(app: Celery) -> None:
    app.conf.task_queues = [Queue("renders.retry", Exchange("mine"), routing_key="rk")]
    assert queues.declared(app, "renders.retry").exchange.name == "mine"


def test_a_queue_is_declared_even_where_the_app_makes_none(app: Celery) -> None:
    app.conf.task_create_missing_queues = False
    assert queues.declared(app, "shop.dead").name == "shop.dead"
    assert queues.queue_of(app, "shop.other", {"queue": "unknown"}) == app.conf.task_default_queue


def test_a_router_that_needs_arguments_gets_those_of_the_call(app: Celery) -> None:
    def router(name: str, args: tuple, kwargs: dict, options: dict, task: object = None, **kw: object) -> dict:
        return {"queue": args[0]}

    app.conf.task_routes = (router,)
    assert queues.queue_of(app, "shop.promo", {}, ["eu"], {}) == "eu"
    assert queues.queue_of(app, "shop.promo", {}) == app.conf.task_default_queue  # at start-up there are none


@pytest.mark.skipif(celery.VERSION < (5, 6), reason="Celery 5.5 has no type for missing queues: they are classic")
def test_a_queue_is_a_quorum_queue_where_celery_makes_missing_ones_so(app: Celery) -> None:
    app.conf.update(task_create_missing_queue_type="quorum", task_create_missing_queue_exchange_type="topic")
    queue = queues.declared(app, "shop.dead")
    assert queue.queue_arguments == {"x-queue-type": "quorum"}
    assert (queue.exchange.type, queue.durable) == ("topic", True)


# --- what a worker serves ----------------------------------------------------------------------------------------

RETRY_TO_SLOW = parse_routes([{"code": "internal", "action": "retry", "queue": "slow"}])
LETTERS_TO_X = parse_routes([{"code": "internal", "action": "dead_letter", "queue": "x"}])


@pytest.mark.parametrize(
    ("serves", "setting", "routes", "more"),
    [
        ({"celery"}, None, (), {"celery.retry"}),
        ({"promos", "celery"}, None, (), {"promos.retry", "celery.retry"}),
        # one for all: by who serves a task of ours
        ({"promos"}, "retries", (), {"retries"}),
        ({"celery"}, "retries", (), set()),
        ({"promos", "retries"}, "retries", (), set()),
        # by a route
        ({"promos"}, None, RETRY_TO_SLOW, {"promos.retry", "slow"}),
        ({"promos"}, "retries", RETRY_TO_SLOW, {"retries", "slow"}),
        ({"celery"}, "retries", RETRY_TO_SLOW, set()),
        # letters are nobody's to serve
        ({"promos"}, "retries", LETTERS_TO_X, {"retries"}),
        ({"shop.dead"}, None, (), set()),
        ({"shop.dead", "promos"}, None, (), {"promos.retry"}),
    ],
)
def test_the_retry_queues_that_a_worker_serves(
    app: Celery, serves: set[str], setting: str | None, routes: tuple[Route, ...], more: set[str]
) -> None:
    app.conf.task_routes = ROUTES
    settings = make_settings(retry_queue=setting)
    before = set(serves)
    assert queues.retry_queues_to_serve(app, settings, serves, {"shop.promo": routes}) == more
    assert serves == before


@pytest.mark.parametrize("asked", [None, "promos", "promos,celery"])
def test_a_worker_serves_its_retries_and_nothing_that_is_published_to_later(app: Celery, asked: str | None) -> None:
    """Without -Q, Celery 5.5's ``consume_from`` is every queue that the app has heard of: the letters' too."""
    app.conf.task_routes = ROUTES
    if asked is not None:
        app.amqp.queues.select(asked.split(","))
    serves = set(asked.split(",") if asked else ["celery"])
    queues.serve_retry_queues(app, make_settings(), {"shop.promo": RETRY_TO_SLOW})
    more = {f"{name}.retry" for name in serves} | ({"slow"} if "promos" in serves else set())
    assert set(app.amqp.queues.consume_from) == serves | more
    queues.declared(app, "shop.dead")
    assert "shop.dead" in app.amqp.queues
    assert set(app.amqp.queues.consume_from) == serves | more


@pytest.mark.parametrize("asked", [False, True])
def test_the_dead_letter_queue_is_served_by_who_asks_for_it_alone(app: Celery, asked: bool) -> None:
    """Though it is in ``task_queues``: without -Q, a worker serves all of those."""
    app.conf.task_queues = [Queue("promos"), Queue("shop.dead")]
    if asked:
        app.amqp.queues.select(["shop.dead"])
    queues.serve_retry_queues(app, make_settings(), {})
    assert set(app.amqp.queues.consume_from) == ({"shop.dead"} if asked else {"promos", "promos.retry"})


def test_a_retry_queue_that_is_served_by_name_has_no_retry_queue_of_its_own(app: Celery) -> None:
    served = ["promos", "promos.retry"]
    assert queues.retry_queues_to_serve(app, make_settings(), served, {}) == set()


def test_a_worker_that_serves_retries_already_is_left_alone(app: Celery) -> None:
    app.amqp.queues.select(["celery", "retries"])
    queues.serve_retry_queues(app, make_settings(retry_queue="retries"), {"shop.other": ()})
    assert list(app.amqp.queues.consume_from) == ["celery", "retries"]


# --- queues that nobody knows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("routes", [RETRY_TO_SLOW, LETTERS_TO_X])
def test_an_unknown_queue_is_refused_where_the_app_makes_none(app: Celery, routes: tuple[Route, ...]) -> None:
    app.conf.task_create_missing_queues = False
    name = routes[0].queue
    with pytest.raises(SettingsError) as caught:
        queues.refuse_unknown(app, (*parse_routes([{"code": "x", "action": "fail"}]), *routes), "routes")
    message = f"routes[1].queue: '{name}' is not in task_queues, and task_create_missing_queues is off"
    assert str(caught.value) == message


def test_a_known_queue_is_taken_and_any_where_the_app_makes_them(app: Celery) -> None:
    queues.refuse_unknown(app, RETRY_TO_SLOW, "routes")
    app.conf.update(task_create_missing_queues=False, task_queues=[Queue("celery"), Queue("slow")])
    queues.refuse_unknown(app, RETRY_TO_SLOW, "routes")
    queues.refuse_unknown(app, parse_routes([{"action": "retry"}]), "routes")


# --- priorities --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broker", "priority", "default", "hours"),
    [
        ("amqp://h", 7, None, 7),
        ("pyamqp://h", 200, None, 200),
        ("amqps://h;amqps://i", None, 4, 4),
        (["amqp://h", "amqp://i"], 3, 9, 3),
        ("amqp://h", 0, 5, 0),  # said, not left out
        ("redis://h/0", 0, None, 9),
        ("rediss://h/0", 9, None, 0),
        ("redis://h/0", None, 3, 6),
        ("redis://h/0", None, None, 9),
        ("sqs://", 200, None, 0),
    ],
)
def test_a_head_start_by_celerys_priority(
    app: Celery, broker: str | list[str], priority: int | None, default: int | None, hours: float
) -> None:
    app.conf.update(broker_url=broker, task_default_priority=default)
    options = {} if priority is None else {"priority": priority}
    assert queues.head_start_s(app, options) == hours * HOUR_S


def test_the_broker_that_is_written_to_says_what_a_priority_means(app: Celery) -> None:
    app.conf.update(broker_url="redis://h/0", broker_write_url="amqp://h")
    assert queues.head_start_s(app, {"priority": 2}) == 2 * HOUR_S
