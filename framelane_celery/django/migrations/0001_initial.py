"""The room's tables, for a room in Django's own database; and the names of what the admin shows.

The tables are those of ``framelane_celery.room.database``: there is no second list of their columns.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations, models

_VENDORS = ("postgresql", "sqlite")


def make_tables(apps: Any, schema_editor: Any) -> None:
    """Where they can be: with another database, or without SQLAlchemy, the room is elsewhere."""
    for statement in _statements(schema_editor.connection.vendor):
        schema_editor.execute(statement)


def drop_tables(apps: Any, schema_editor: Any) -> None:
    """Not while tasks wait in them: jobs that are paid for would be forgotten."""
    statements = _statements(schema_editor.connection.vendor, drop=True)
    if not statements:
        return
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        if "framelane_records" in connection.introspection.table_names(cursor):
            cursor.execute("SELECT count(*) FROM framelane_records WHERE until <> 'done'")
            (left,) = cursor.fetchone()
            if left:
                raise RuntimeError(
                    f"{left} tasks wait, or are dead letters, in this database: let them end, or cancel and discard"
                    " them (celery -A proj framelane waiting; dead list); then migrate back"
                )
    for statement in statements:
        schema_editor.execute(statement)


def _statements(vendor: str, *, drop: bool = False) -> list[str]:
    if vendor not in _VENDORS:
        return []
    try:
        from framelane_celery.room.database import statements
    except ImportError:  # the extra sql is not installed
        return []
    return statements(vendor, drop=drop)


def _named(name: str, options: dict[str, Any]) -> migrations.CreateModel:
    key = ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"))
    return migrations.CreateModel(
        name=name, fields=[key], options={"managed": False, "default_permissions": ("view",), **options}
    )


class Migration(migrations.Migration):
    initial = True
    dependencies: ClassVar[list[Any]] = []
    operations: ClassVar[list[Any]] = [
        _named(
            "WaitingTask",
            {
                "verbose_name": "waiting task",
                "permissions": (("cancel_waitingtask", "Can cancel waiting task"),),
            },
        ),
        _named(
            "DeadLetter",
            {
                "verbose_name": "dead letter",
                "permissions": (
                    ("replay_deadletter", "Can replay dead letter, and see its arguments"),
                    ("discard_deadletter", "Can discard dead letter"),
                ),
            },
        ),
        _named(
            "HeldAccount",
            {
                "verbose_name": "account on hold",
                "verbose_name_plural": "accounts on hold",
                "permissions": (("release_heldaccount", "Can release held account"),),
            },
        ),
        migrations.RunPython(make_tables, drop_tables, elidable=False),
    ]
