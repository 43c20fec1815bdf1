"""The Django project of its tests, for what is sent to and shown by its pages."""

from tests.django.conftest import app, database, room

__all__ = ["app", "database", "room"]
