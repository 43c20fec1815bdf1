"""Which URL opens which store, and what the refusals say. No server is needed."""

from __future__ import annotations

import builtins
import ssl
import sys
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from framelane_celery.errors import SettingsError
from framelane_celery.room import database, open_room
from framelane_celery.room.redis import RedisRoom


def connection_of(room: Any) -> dict[str, Any]:
    assert isinstance(room, RedisRoom)
    return dict(room._client.connection_pool.connection_kwargs)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a module look as if it were not installed."""

    def hide(name: str) -> None:
        for module in [m for m in sys.modules if m == name or m.startswith((f"{name}.", "framelane_celery.room."))]:
            monkeypatch.delitem(sys.modules, module)
        real = builtins.__import__

        def fail(module: str, *args: Any, **kwargs: Any) -> Any:
            if module == name or module.startswith(f"{name}."):
                raise ModuleNotFoundError(f"No module named {module!r}", name=module)
            return real(module, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", fail)

    return hide


@pytest.mark.parametrize(
    ("driver", "url", "extra"),
    [
        ("redis", "redis://localhost/0", "framelane-celery[redis]"),
        ("sqlalchemy", "sqlite:///x.db", "framelane-celery[sql]"),
        ("psycopg", "postgresql+psycopg://localhost/x", "framelane-celery[postgresql]"),
    ],
)
def test_a_missing_driver_is_named_with_what_to_install(without: Any, driver: str, url: str, extra: str) -> None:
    without(driver)
    with pytest.raises(SettingsError) as caught:
        open_room(url, "n")
    assert extra in caught.value.message


@pytest.mark.parametrize("url", ["amqp://localhost", "mysql://localhost/x", "", "sqlite://", "sqlite:///:memory:"])
def test_what_cannot_keep_records_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="room_url"):
        open_room(url, "n")


@pytest.mark.parametrize("url", ["postgresql://user:s3cret@host:port/x", "redis://:s3cret@host:port/0"])
def test_a_broken_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        open_room(url, "n")
    assert "s3cret" not in caught.value.message


def test_both_timeouts_are_on_every_redis_connection() -> None:
    kwargs = connection_of(open_room("redis://:pw@host:6390/3", "n"))
    assert (kwargs["host"], kwargs["port"], kwargs["db"], kwargs["password"]) == ("host", 6390, 3, "pw")
    assert (kwargs["socket_timeout"], kwargs["socket_connect_timeout"]) == (5.0, 5.0)
    assert kwargs["health_check_interval"] > 0


def test_celerys_way_to_write_tls_is_understood() -> None:
    kwargs = connection_of(open_room("rediss://host/0?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=/ca.pem", "n"))
    assert (kwargs["ssl_cert_reqs"], kwargs["ssl_ca_certs"]) == ("required", "/ca.pem")
    use_ssl = {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_ca_certs": "/ca.pem", "keyfile": "amqp's"}
    kwargs = connection_of(open_room("rediss://host/0", "n", options={"ssl": use_ssl}))
    assert (kwargs["ssl_cert_reqs"], kwargs["ssl_ca_certs"]) == (ssl.CERT_NONE, "/ca.pem")
    assert "keyfile" not in kwargs
    assert "ssl_ca_certs" not in connection_of(open_room("redis://host/0", "n", options={"ssl": use_ssl}))


SENTINEL = "sentinel://user:p%40ss@h1:26379;sentinel://h2:26380/2"


@pytest.mark.parametrize(
    ("url", "options"), [(SENTINEL, {"master_name": "main"}), (f"{SENTINEL}?master_name=main", {})]
)
def test_sentinels_are_asked_for_the_master(url: str, options: dict[str, Any]) -> None:
    room = open_room(url, "n", options=options)
    assert isinstance(room, RedisRoom)
    pool: Any = room._client.connection_pool
    assert pool.service_name == "main"
    asked = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    assert [(s["host"], s["port"]) for s in asked] == [("h1", 26379), ("h2", 26380)]
    assert all(s["socket_timeout"] and s.get("password") is None for s in asked)
    kwargs = connection_of(room)
    assert (kwargs["username"], kwargs["password"], kwargs["db"]) == ("user", "p@ss", 2)
    assert kwargs["socket_timeout"] == 5.0


def test_sentinel_without_the_masters_name_is_refused() -> None:
    with pytest.raises(SettingsError, match="master_name"):
        open_room(SENTINEL, "n")


def test_sentinels_may_have_a_password_of_their_own() -> None:
    options = {"master_name": "main", "sentinel_kwargs": {"password": "other"}}
    room: Any = open_room(SENTINEL, "n", options=options)
    assert room._client.connection_pool.sentinel_manager.sentinels[0].connection_pool.connection_kwargs["password"]


def test_the_users_key_prefix_goes_in_front_of_our_keys() -> None:
    room: Any = open_room("redis://host/0", "n", options={"global_keyprefix": "app1:"})
    assert room._key("record", "x") == "app1:{framelane:n}:record:x"


@pytest.mark.parametrize(
    ("installed", "url", "driver"),
    [
        ({"psycopg", "psycopg2"}, "postgresql://h/x", "postgresql+psycopg"),
        ({"psycopg2"}, "postgresql://h/x", "postgresql+psycopg2"),
        (set(), "postgresql://h/x", "postgresql+psycopg"),
        ({"psycopg"}, "postgresql+psycopg2://h/x", "postgresql+psycopg2"),
    ],
)
def test_plain_postgresql_means_psycopg_3_unless_only_psycopg2_is_there(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], url: str, driver: str
) -> None:
    monkeypatch.setattr(database, "find_spec", lambda name: name in installed or None)
    assert database._with_driver(make_url(url)).drivername == driver


def test_nothing_is_connected_before_it_is_needed() -> None:
    for url in ("redis://127.0.0.1:1/0", "postgresql://u@127.0.0.1:1/x", "sqlite:////nowhere/at/all.db"):
        open_room(url, "n").close()
