"""docs/django.md: a project is made of its snippets, in a process of its own; and the wheel has what it needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from framelane_celery.django import acts, checks
from tests.docs.pages import blocks

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "django.md").read_text()

# What surrounds the snippets in any project.
BEFORE = {
    "shop/settings.py": """
import os
from framelane_celery.django import room_url
SECRET_KEY, USE_TZ, ROOT_URLCONF, STATIC_URL = "x", True, "shop.urls", "/static/"
BASE = os.environ["FOLDER"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{BASE}/db.sqlite3"}}
INSTALLED_APPS = ["django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes",
    "django.contrib.sessions", "django.contrib.messages", "django.contrib.staticfiles", "shop"]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware", "django.contrib.messages.middleware.MessageMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [f"{BASE}/templates"],
    "APP_DIRS": True, "OPTIONS": {"context_processors": ["django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth", "django.contrib.messages.context_processors.messages"]}}]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
""",
    "shop/celery.py": "import os\nfrom celery import Celery\n",
    "shop/__init__.py": "",
    "shop/urls.py": """
from django.contrib import admin
from django.urls import include, path
from shop.views import make_video
urlpatterns = [path("admin/", admin.site.urls), path("make/", make_video)]
""",
    "shop/views.py": """
import framelane_celery as framelane
from django.db import transaction
from django.shortcuts import render
from shop.models import Order
""",
    "shop/permissions.py": "",
    "templates/video.html": "",
}

STORY = """
import json, sys
import django
django.setup()
from django.core.management import call_command
from django.test import Client
call_command("migrate", run_syncdb=True, verbosity=0)
call_command("check", fail_level="WARNING")
from framelane_celery.operations import find, room_for
from framelane_celery.testing.webhooks import signature
from shop import celery_app
client, stranger = Client(HTTP_HOST="localhost"), Client(HTTP_HOST="localhost")
page = client.post("/make/")
(task_id,) = client.session["videos"]
status = f"/framelane/status/{task_id}/"
record = find(celery_app, task_id)
celery_app.backend.store_result(task_id, {"output": {"url": "https://x/y"}}, "SUCCESS")
body = b'{"id": "render_1"}'
import time
signed = {"Framelane-Signature": signature(body, "whsec_docs", time.time())}
pool = __import__("concurrent.futures").futures.ThreadPoolExecutor(1)  # as a server's threads, which find the app too
hook = lambda headers: stranger.post("/framelane/webhook/", body, "application/json", headers=headers).status_code
print(json.dumps({
    "bar": status in page.content.decode(),
    "label": 'aria-label="Your video"' in page.content.decode(),
    "until": record.until,
    "room": celery_app.conf.framelane["room_url"].startswith("sqlite:///"),
    "mine": client.get(status + "?result=1").json()["result"],
    "theirs": stranger.get(status).status_code,
    "hooks": list(pool.map(hook, [signed, {}])),
}))
room_for(celery_app).close()
"""


def snippets() -> list[tuple[str, str]]:
    """Each code block of the page: the file that it is of, and its text."""
    code = [block.text for block in blocks("docs/django.md") if block.language in ("python", "html")]
    found = [re.fullmatch(r"(?:# |<!-- )([\w/.]+)(?: -->)?\n(.*)", text, re.DOTALL) for text in code]
    return [(match[1], match[2]) for match in found if match] if all(found) else []


def test_the_project_of_the_docs_works(tmp_path: Path) -> None:
    files = dict(BEFORE)
    for name, text in snippets():
        files[name] += text
    files["shop/models.py"] = "from django.db import models\nclass Order(models.Model):\n    pass\n"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("FRAMELANE", "DJANGO"))}
    environ |= {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "FOLDER": str(tmp_path),
        "BROKER_URL": "memory://",
        "RESULT_BACKEND": "cache+memory://",
        "FRAMELANE_API_KEY": "fl_test_key",
        "FRAMELANE_WEBHOOK_SECRET": "whsec_docs",
    }
    done = subprocess.run(
        [sys.executable, "-c", STORY], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "bar": True,
        "label": True,
        "until": "start",
        "room": True,
        "mine": {"output": {"url": "https://x/y"}},
        "theirs": 404,
        "hooks": [200, 400],
    }


def test_set_up_is_ten_lines_or_so() -> None:
    setup = [text for _, text in snippets()][:4]
    assert sum(len(text.splitlines()) for text in setup) <= 10


def test_the_page_names_what_there_is() -> None:
    for act in (acts.REPLAY, acts.DISCARD, acts.CANCEL, acts.RELEASE):
        assert f"`{act.permission}`" in PAGE
    source = Path(checks.__file__).read_text()
    for id in ("E001", "W020", "E021", "W022"):
        assert f"framelane.{id}" in source
        assert id in PAGE
