"""Where settings come from, what is refused, and that no secret is ever quoted."""

from __future__ import annotations

import subprocess
import sys

import pytest
from celery import Celery
from pydantic import ValidationError

import framelane_celery
from framelane_celery.errors import SettingsError
from framelane_celery.settings import FramelaneSettings, resolve, settings_of

SECRET = "hunter2"  # the value that no error, repr or dump may hold
VARIABLES = ("FRAMELANE_API_KEY", "FRAMELANE_BASE_URL", "FRAMELANE_WEBHOOK_SECRET", "FRAMELANE_ROOM_URL")


def make_settings(conf=None, **given):
    values = {"environ": {}, "app_name": "shop", "broker_url": "redis://localhost/0", "result_backend": None} | given
    return resolve(conf, **values)


def refusal(conf=None, **given) -> str:
    with pytest.raises(SettingsError) as caught:
        make_settings(conf, **given)
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


def room_of(**given) -> str:
    room_url = make_settings(**given).room_url
    assert room_url is not None
    return room_url.get_secret_value()


def test_defaults():
    settings = make_settings()
    assert settings.model_dump(exclude={"room_url"}) == {
        "api_key": None,
        "base_url": "https://api.framelane.io",
        "webhook_secrets": (),
        "accounts": {},
        "namespace": "shop",
        "connect_timeout_s": 5,
        "read_timeout_s": 30,
        "deadline_s": 21600,
        "hold_max_s": 35 * 86400,
        "cancel_on_timeout": True,
        "cancel_on_revoke": True,
        "routes": (),
        "retry_queue": None,
        "dead_letter_queue": None,
        "dead_letters_alarm": 1000,
        "spend_guard": {"max_attempts": None, "submissions_per_day": None, "minutes_per_day": None},
        "renders_per_minute": 120,
        "media_tasks_per_minute": 300,
        "reads_per_minute": 600,
        "long_polls": 40,
        "watcher": True,
        "metrics_port": None,
        "metrics_host": "127.0.0.1",
        "allow_live_eager": False,
        "lease_s": 60,
        "resend_after_s": 60,
        "max_lost_runs": 5,
    }


def test_the_dict_wins_over_the_environment_and_what_is_empty_is_not_given():
    environ = {
        "FRAMELANE_API_KEY": "fl_environment",
        "FRAMELANE_BASE_URL": "http://localhost:8080/v1/",
        "FRAMELANE_WEBHOOK_SECRET": "whsec_new, whsec_old",
        "FRAMELANE_ROOM_URL": "sqlite:///room.db",
    }
    settings = make_settings({"api_key": "fl_dict"}, environ=environ)
    assert settings.api_key.get_secret_value() == "fl_dict"
    assert settings.base_url == "http://localhost:8080"
    assert [secret.get_secret_value() for secret in settings.webhook_secrets] == ["whsec_new", "whsec_old"]
    assert settings.room_url.get_secret_value() == "sqlite:///room.db"
    for nothing in (None, ""):
        assert make_settings({"api_key": nothing}, environ=environ).api_key.get_secret_value() == "fl_environment"


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        make_settings().watcher = False


def test_no_secret_is_shown():
    settings = make_settings(
        {"api_key": SECRET, "webhook_secrets": [SECRET], "room_url": f"redis://:{SECRET}@localhost/0"}
    )
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json() + str(settings.model_dump())


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("api_keys", "framelane: unknown key 'api_keys'; did you mean 'api_key'?"),
        ("API_KEY", "framelane: unknown key 'API_KEY'; did you mean 'api_key'?"),
        ("deadline", "did you mean 'deadline_s'?"),
        ("colour", "the keys are api_key, base_url"),
        (7, "framelane: unknown key '7'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(key, said):
    assert said in refusal({key: SECRET})


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        ({"lease_s": 14}, "lease_s: "),
        ({"resend_after_s": 1}, "resend_after_s: "),
        ({"deadline_s": 0}, "deadline_s: "),
        ({"read_timeout_s": float("inf")}, "read_timeout_s: "),
        ({"connect_timeout_s": 0}, "connect_timeout_s: "),
        ({"renders_per_minute": 0}, "renders_per_minute: "),
        ({"max_lost_runs": 0}, "max_lost_runs: "),
        ({"long_polls": -1}, "long_polls: "),
        ({"watcher": "perhaps"}, "watcher: "),
        ({"api_key": f"{SECRET}\nX-Evil: 1"}, "api_key: must be printable ASCII"),
        ({"api_key": [SECRET]}, "api_key: "),
        ({"webhook_secrets": [""]}, "webhook_secrets: holds an empty secret"),
        ({"webhook_secrets": 7}, "webhook_secrets: "),
        ({"base_url": "api.framelane.io"}, "base_url: must look like https://api.framelane.io"),
        ({"base_url": f"https://u:{SECRET}@x.io"}, "base_url: must look like"),
        ({"namespace": "my shop"}, "namespace: may hold only letters"),
        ({"namespace": "shop\n"}, "namespace: may hold only letters"),
    ],
)
def test_a_bad_value_is_refused_by_name(conf, said):
    assert said in refusal(conf)


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        ({"routes": {"code": "*"}}, "routes must be a list of rules, not dict"),
        ({"routes": [{"action": "drop"}]}, "routes[0].action: Input should be"),
        ({"routes": [{"action": "fail"}, {"action": "retry"}]}, "routes[1] is never reached"),
        (
            {"routes": [{"action": "retry", "max_attempt": 3}]},
            "unknown key 'max_attempt'; did you mean 'max_attempts'?",
        ),
        ({"retry_queue": " q"}, "retry_queue: ' q' is no name for a queue"),
        ({"retry_queue": 7}, "retry_queue: Input should be a valid string"),
        ({"dead_letter_queue": "q\n"}, "dead_letter_queue: 'q\\n' is no name for a queue"),
        ({"dead_letter_queue": "q" * 201}, "dead_letter_queue: "),
        ({"hold_max_s": 0}, "hold_max_s: Input should be greater than 0"),
        ({"hold_max_s": float("nan")}, "hold_max_s: Input should be a finite number"),
        ({"dead_letters_alarm": 0}, "dead_letters_alarm: Input should be greater than or equal to 1"),
        ({"dead_letters_alarm": 1.5}, "dead_letters_alarm: Input should be a valid integer"),
        ({"spend_guard": 7}, "spend_guard: "),
        ({"spend_guard": {"max_attempts": 0}}, "spend_guard.max_attempts: "),
        ({"spend_guard": {"submissions_per_day": -1}}, "spend_guard.submissions_per_day: "),
        ({"spend_guard": {"minutes_per_day": 0}}, "spend_guard.minutes_per_day: "),
        ({"spend_guard": {"minutes_per_day": float("inf")}}, "spend_guard.minutes_per_day: "),
        ({"spend_guard": {"minutes": 5}}, "spend_guard.minutes: "),
        ({"spend_guard": {"minutes": SECRET}}, "spend_guard.minutes: "),
        ({"spend_guard": {"max_attempts": [SECRET]}}, "spend_guard.max_attempts: "),
        ({"hold_max_s": SECRET}, "hold_max_s: "),
        ({"dead_letter": "q"}, "unknown key 'dead_letter'; did you mean"),
    ],
)
def test_what_is_wrong_about_failures_is_refused_by_name(conf, said):
    assert said in refusal(conf)


def test_what_becomes_of_failures_may_be_set():
    settings = make_settings(
        {
            "routes": [{"code": "internal", "action": "retry", "max_attempts": 2}, {"action": "fail"}],
            "retry_queue": "retries",
            "dead_letter_queue": "shop letters",
            "hold_max_s": 3600,
            "dead_letters_alarm": 5,
            "spend_guard": {"max_attempts": 3, "minutes_per_day": 90},
        }
    )
    assert [route.action for route in settings.routes] == ["retry", "fail"]
    assert (settings.retry_queue, settings.dead_letter_queue) == ("retries", "shop letters")
    assert (settings.hold_max_s, settings.dead_letters_alarm) == (3600, 5)
    assert (settings.spend_guard.max_attempts, settings.spend_guard.minutes_per_day) == (3, 90)


@pytest.mark.parametrize(
    ("guard", "counts"),
    [({}, False), ({"max_attempts": 3}, False), ({"submissions_per_day": 9}, True), ({"minutes_per_day": 0.5}, True)],
)
def test_only_caps_of_a_day_are_counted(guard, counts):
    assert make_settings({"spend_guard": guard}).spend_guard.counts is counts


def test_what_is_no_dict_is_refused():
    assert refusal([("api_key", SECRET)]) == "framelane must be a dict of settings, not list"


def test_a_key_from_a_secrets_file_loses_its_newline():
    assert make_settings({"api_key": "fl_1\n"}).api_key.get_secret_value() == "fl_1"


def test_one_webhook_secret_may_be_given_alone():
    assert len(make_settings({"webhook_secrets": "whsec_1"}).webhook_secrets) == 1


@pytest.mark.parametrize("name", [None, "__main__"])
def test_an_app_without_a_name_must_be_given_one(name):
    message = refusal(app_name=name)
    assert message.startswith("namespace: ")
    assert "framelane['namespace']" in message
    assert make_settings({"namespace": "shop:eu"}, app_name=name).namespace == "shop:eu"


@pytest.mark.parametrize(
    ("given", "room"),
    [
        ({"broker_url": "redis://b/0", "result_backend": "redis://r/1"}, "redis://b/0"),
        ({"broker_url": "rediss://b/0"}, "rediss://b/0"),
        ({"broker_url": "sentinel://a:26379;sentinel://b"}, "sentinel://a:26379;sentinel://b"),
        ({"broker_url": ["sentinel://a", "sentinel://b"]}, "sentinel://a;sentinel://b"),
        ({"broker_url": "amqp://b", "result_backend": "redis://r/1"}, "redis://r/1"),
        ({"broker_url": None, "result_backend": "redis://r/1"}, "redis://r/1"),
        ({"broker_url": "amqp://b", "result_backend": "db+postgresql://u:p@h/d"}, "postgresql://u:p@h/d"),
        ({"broker_url": "sqs://", "result_backend": "db+postgresql+psycopg://h/d"}, "postgresql+psycopg://h/d"),
        ({"broker_url": "sqs://", "result_backend": "database+sqlite:///r.db"}, "sqlite:///r.db"),
        ({"broker_url": "redis://a;redis://b", "result_backend": "db+sqlite:///r.db"}, "sqlite:///r.db"),
        ({"broker_url": "sqlite:///broker.db", "result_backend": "redis://r"}, "redis://r"),
    ],
)
def test_the_room_defaults_to_the_broker_then_the_result_backend(given, room):
    assert room_of(**given) == room


@pytest.mark.parametrize(
    ("broker", "backend", "said"),
    [
        (f"amqp://u:{SECRET}@h", None, "broker (amqp) and the result backend (none)"),
        (None, "rpc://", "broker (none) and the result backend (rpc)"),
        ("amqp://h", "django-db", "result backend (django-db)"),
        ("amqp://h", f"db+mysql://u:{SECRET}@h/d", "result backend (db+mysql)"),
        (f"redis://:{SECRET}@a;redis://b", None, "broker (redis)"),
        ("redis+cluster://h", None, "broker (redis+cluster)"),
    ],
)
def test_without_a_room_one_error_says_what_to_set(broker, backend, said):
    message = refusal(broker_url=broker, result_backend=backend)
    assert message.startswith("room_url: ")
    assert said in message
    assert "set framelane['room_url'] or FRAMELANE_ROOM_URL" in message


def test_calls_in_place_need_no_room():
    assert make_settings(broker_url="memory://", needs_room=False).room_url is None
    assert make_settings(needs_room=False).room_url.get_secret_value() == "redis://localhost/0"


@pytest.mark.parametrize("url", ["redis://h/0", "rediss://h", "sentinel://a;sentinel://b", "sqlite:///room.db"])
def test_rooms_that_are_taken_as_they_are(url):
    assert room_of(conf={"room_url": url}) == url


@pytest.mark.parametrize(
    "url",
    [
        f"redis+cluster://:{SECRET}@h",
        f"mysql://u:{SECRET}@h/d",
        f"amqp://u:{SECRET}@h",
        SECRET,
        f"redis:{SECRET}",
        f"redis://:{SECRET}@a;redis://b",
        "sqlite://",
        "sqlite:///:memory:",
        "redis+psycopg://h",
    ],
)
def test_rooms_that_are_refused(url):
    assert refusal({"room_url": url}).startswith("room_url: ")


# -- settings_of


@pytest.fixture
def app(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    app = Celery("shop", broker="redis://localhost/0", set_as_current=False)
    app.conf.framelane = {"api_key": "fl_1"}
    return app


def test_settings_of_an_app_are_built_once(app):
    settings = settings_of(app)
    assert (settings.namespace, settings.api_key.get_secret_value()) == ("shop", "fl_1")
    assert settings_of(app) is settings


def test_a_changed_configuration_is_seen(app, monkeypatch):
    settings = settings_of(app)
    app.conf.framelane["api_key"] = "fl_2"  # in place
    assert settings_of(app).api_key.get_secret_value() == "fl_2"
    app.conf.framelane = {"api_key": "fl_1"}
    assert settings_of(app) == settings
    app.conf.framelane["routes"] = [{"action": "fail"}]
    assert settings_of(app).routes[0].action == "fail"
    app.conf.framelane["routes"][0]["action"] = "dead_letter"  # deep in place
    assert settings_of(app).routes[0].action == "dead_letter"
    del app.conf.framelane["routes"]
    monkeypatch.setenv("FRAMELANE_BASE_URL", "http://localhost:1")
    assert settings_of(app).base_url == "http://localhost:1"
    app.conf.broker_url = "redis://other/0"
    assert settings_of(app).room_url.get_secret_value() == "redis://other/0"


def test_the_write_broker_comes_first(app):
    app.conf.broker_write_url = "redis://writes/0"
    assert settings_of(app).room_url.get_secret_value() == "redis://writes/0"


def test_the_bare_word_database_is_read_from_its_own_setting(app):
    app.conf.update(broker_url="amqp://h", result_backend="database", database_url="sqlite:///r.db")
    assert settings_of(app).room_url.get_secret_value() == "sqlite:///r.db"


def test_an_app_without_settings_takes_the_environment(monkeypatch):
    monkeypatch.setenv("FRAMELANE_API_KEY", "fl_environment")
    app = Celery("shop", broker="redis://localhost/0", set_as_current=False)
    assert settings_of(app).api_key.get_secret_value() == "fl_environment"


def test_two_needs_are_two_answers(app):
    app.conf.broker_url = "memory://"
    assert settings_of(app, needs_room=False).room_url is None
    with pytest.raises(SettingsError):
        settings_of(app)


def test_settings_and_client_do_not_import_celery():
    """The package imports Celery; so put an empty one in its place."""
    code = (
        "import sys, types; package = types.ModuleType('framelane_celery'); sys.modules['framelane_celery'] = package\n"
        f"package.__path__ = {list(framelane_celery.__path__)!r}\n"
        "import framelane_celery.settings, framelane_celery.client; print('celery' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_equal_settings_are_equal_keys():
    assert hash(make_settings({"api_key": "fl_1"})) == hash(make_settings({"api_key": "fl_1"}))
    assert FramelaneSettings() == FramelaneSettings()
    routes = {"routes": [{"action": "fail"}], "spend_guard": {"max_attempts": 2}}
    assert hash(make_settings(routes)) == hash(make_settings(routes))


def test_settings_built_by_hand_quote_no_value_either():
    with pytest.raises(ValidationError) as caught:
        FramelaneSettings(room_url=f"amqp://u:{SECRET}@h", api_key=[SECRET])
    assert SECRET not in str(caught.value)
