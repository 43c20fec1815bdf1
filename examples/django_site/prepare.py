"""Make the database, and a member of staff with the password in SITE_STAFF_PASSWORD: `prepare.py NAME`."""

import os
import sys

import django
from django.core.management import call_command

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "videosite.settings")
django.setup()
call_command("migrate", verbosity=0)

from django.contrib.auth.models import User  # noqa: E402 - only now it can be imported

staff, _ = User.objects.get_or_create(username=sys.argv[1], defaults={"is_staff": True, "is_superuser": True})
staff.set_password(os.environ["SITE_STAFF_PASSWORD"])
staff.save()
