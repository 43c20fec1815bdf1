"""The Django part: checks, the webhook and status URLs, a progress bar, and pages of the admin.

    INSTALLED_APPS = [..., "framelane_celery.django"]

Everything here stands on what the command line uses too: nothing is decided twice.
"""

from framelane_celery.django.database import room_url

__all__ = ["room_url"]
