"""Django's own database as the room: its URL out of ``DATABASES``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from framelane_celery.errors import SettingsError

_SCHEMES: Final = {
    "django.db.backends.postgresql": "postgresql",
    "django.contrib.gis.db.backends.postgis": "postgresql",
    "django.db.backends.sqlite3": "sqlite",
}

_PASSED_ON: Final = (
    "sslmode",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "connect_timeout",
    "application_name",
    "target_session_attrs",
    "options",
)
"""Of ``OPTIONS``: what libpq knows. The others are Django's or the driver's own."""


_NAME: Final = re.compile(r"[^\s?#%@/:;&\[\]]+")


def room_url(alias: str = "default", databases: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The URL of a room in the database ``DATABASES[alias]``: PostgreSQL or a SQLite file.

    In settings.py itself Django's settings are not there yet: give it ``databases=DATABASES``.
    Raises: SettingsError, which names the alias and what to write instead, and no password.
    """
    if databases is None:
        from django.conf import settings  # in settings.py itself, this would be in the middle of its own import

        databases = settings.DATABASES
    if alias not in databases:
        raise SettingsError(f"room_url: DATABASES has no {alias!r}; it has {', '.join(map(repr, databases)) or 'none'}")
    database = databases[alias]
    engine = str(database.get("ENGINE", ""))
    scheme = _SCHEMES.get(engine)
    if scheme is None:
        raise SettingsError(
            f"room_url: DATABASES[{alias!r}] is {engine or 'empty'}, which cannot keep the records: use a PostgreSQL or"
            " SQLite database, or set CELERY_FRAMELANE['room_url'] to a redis:// URL"
        )
    return _sqlite(alias, database) if scheme == "sqlite" else _postgresql(alias, database)


def _sqlite(alias: str, database: Mapping[str, Any]) -> str:
    name = str(database.get("NAME") or "")
    if not name or ":memory:" in name or name.startswith("file:"):
        raise SettingsError(
            f"room_url: DATABASES[{alias!r}] is SQLite in memory, which workers do not share: name a file"
        )
    return f"sqlite:///{Path(name).as_posix()}"


def _postgresql(alias: str, database: Mapping[str, Any]) -> str:
    """Without a host libpq takes its socket, and without a port its default, as Django lets it."""
    options = database.get("OPTIONS") or {}
    name = str(database.get("NAME") or "")
    if options.get("service") or not _NAME.fullmatch(name):  # SQLAlchemy 2.0 and 2.1 quote odd names differently
        raise SettingsError(
            f"room_url: DATABASES[{alias!r}] has no NAME, an odd one, or a service file names it: write the URL"
            " postgresql://user:password@host/name into CELERY_FRAMELANE['room_url']"
        )
    host, port = str(database.get("HOST") or ""), str(database.get("PORT") or "")
    query = {name: str(options[name]) for name in _PASSED_ON if name in options}
    if host.startswith("/"):
        query, host = {"host": host, **({"port": port} if port else {}), **query}, ""
    user, password = (quote(str(database.get(key) or ""), safe="") for key in ("USER", "PASSWORD"))
    who = user + (f":{password}" if password else "")
    where = (f"[{host}]" if ":" in host else host) + (f":{port}" if port and host else "")
    return f"postgresql://{who}@{where}/{name}".replace("//@", "//") + (f"?{urlencode(query)}" if query else "")
