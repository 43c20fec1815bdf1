"""docs/guides: every setting is known, every command is there, every file that is shown does what the page says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from celery import Celery
from celery.app.defaults import DEFAULTS
from celery.bin.celery import celery as celery_command

import framelane_celery
from framelane_celery import FramelaneClient, errors, webhooks
from framelane_celery.cli.commands import framelane
from framelane_celery.settings import FramelaneSettings, settings_of
from framelane_celery.testing import FramelaneServer
from framelane_celery.testing.webhooks import signature
from tests.docs_followed.pages import DOCS, ROOT, blocks_of
from tests.docs_followed.reader import Reader

GUIDES = DOCS / "guides"
PAGES = [DOCS / "tutorial.md", *sorted(GUIDES.glob("*.md"))]
GROUP = "celery -A shop framelane"

ENVIRON = {
    "SHOP_REDIS_URL": "redis://localhost:6379/0",
    "SHOP_AMQP_URL": "amqp://shop@localhost/shop",
    "SHOP_DATABASE_URL": "postgresql+psycopg://shop@localhost/shop",
}


def test_all_guides_are_there() -> None:
    assert {page.stem for page in GUIDES.glob("*.md")} == {
        "a_bad_day", "from_self_retry", "kubernetes", "rabbitmq", "redis", "rotate_a_key", "sqs", "test_your_tasks",
        "webhooks_behind_a_proxy",
    }  # fmt: skip


# --- links, settings ---------------------------------------------------------------------------------------------


def anchors_of(page: Path) -> set[str]:
    """As GitHub and myst make them of headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors_of(target), link


def settings_blocks() -> Iterator[Any]:
    """Each Python block that sets what a Celery app reads, on whatever page."""
    for page in sorted(GUIDES.glob("*.md")):
        for block in blocks_of(page):
            if block.language == "python" and re.search(r"(?m)^framelane = ", block.text):
                yield pytest.param(block.text, id=f"{page.stem}:{block.line}")


@pytest.mark.parametrize("text", list(settings_blocks()))
def test_settings_are_known_and_resolve(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    for name in [name for name in os.environ if name.startswith("FRAMELANE_")]:
        monkeypatch.delenv(name, raising=False)
    given: dict[str, Any] = {}
    exec(text, given)
    conf = {name: value for name, value in given.items() if name not in ("os", "__builtins__")}
    unknown = {name for name in conf if name not in DEFAULTS} - {"framelane"}
    assert not unknown
    conf.setdefault("broker_url", ENVIRON["SHOP_REDIS_URL"])  # where the page shows its own part only
    with Celery("shop", set_as_current=False) as app:
        app.config_from_object(conf)
        settings = settings_of(app)
        assert settings.namespace == "shop"
        assert settings.room_url is not None


def test_there_are_settings_to_check() -> None:
    assert [param.id.partition(":")[0] for param in settings_blocks()] == [
        "kubernetes", "rabbitmq", "redis", "rotate_a_key", "sqs",
    ]  # fmt: skip


# --- commands ----------------------------------------------------------------------------------------------------


def parse(group: click.Group, words: list[str], parent: click.Context | None = None) -> None:
    """As the command line does before it runs anything. Raises: click.UsageError."""
    name, *rest = words
    assert name in group.commands, f"there is no command {name!r}"
    command = group.commands[name]
    if isinstance(command, click.Group) and rest:
        parse(command, rest, parent)
    else:
        command.make_context(name, rest, parent=parent)


def commands() -> Iterator[Any]:
    """Everything that stands on a page after `celery -A shop framelane`, in a block or in a line."""
    for page in PAGES:
        spans = re.findall(rf"`{GROUP} ([^`]+)`", page.read_text())
        lines = [
            line.removeprefix(f"$ {GROUP} ")
            for block in blocks_of(page)
            for line in block.text.splitlines()
            if line.startswith(f"$ {GROUP} ")
        ]
        for text in dict.fromkeys(spans + lines):
            yield pytest.param(text, id=f"{page.stem}:{text}")


@pytest.mark.parametrize("text", list(commands()))
def test_commands_are_there(text: str) -> None:
    parse(framelane, shlex.split(text))


def test_a_command_that_is_not_there_is_found() -> None:
    for wrong in (["drain-it"], ["waiting", "--untill", "slot"], ["waiting", "--until", "nothing"], ["dead", "show"]):
        with pytest.raises((click.UsageError, AssertionError)):
            parse(framelane, wrong)


def rows_of_the_bad_day() -> list[list[str]]:
    lines = (GUIDES / "a_bad_day.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return rows[2:]


def test_the_bad_days_commands_are_there() -> None:
    rows = rows_of_the_bad_day()
    assert len(rows) > 15
    for row in rows:
        for text in re.findall(r"`([^`]+)`", row[1]):
            parse(framelane, shlex.split(text))


def test_the_bad_day_shows_what_commands_say() -> None:
    source = "\n".join(path.read_text() for path in Path(framelane_celery.__file__).parent.rglob("*.py"))
    told = [text for row in rows_of_the_bad_day() for text in re.findall(r"`([^`]+)`", row[2])]
    assert len(told) >= 3
    for text in told:
        assert text in source, text


# --- Kubernetes --------------------------------------------------------------------------------------------------


def manifests() -> list[dict[str, Any]]:
    blocks = [block for block in blocks_of(GUIDES / "kubernetes.md") if block.language == "yaml"]
    return [one for block in blocks for one in yaml.safe_load_all(block.text)]


def pod_of(kind: str) -> Any:
    [found] = [one for one in manifests() if one["kind"] == kind]
    return found["spec"]["template"]["spec"]


def check_celery_command(words: list[str]) -> None:
    """That of a container: `celery -A shop …`, with options that Celery and we have."""
    assert words[:3] == ["celery", "-A", "shop"]
    if words[3] == "framelane":
        parse(framelane, words[4:])
    else:
        command = celery_command.commands[words[3]]
        command.make_parser(click.Context(command)).parse_args(list(words[4:]))


def test_kubernetes_runs_commands_that_are_there() -> None:
    [worker], [doctor] = pod_of("Deployment")["containers"], pod_of("Job")["containers"]
    for words in (worker["command"], worker["readinessProbe"]["exec"]["command"], doctor["command"]):
        check_celery_command(words)
    assert "livenessProbe" not in worker
    with pytest.raises(click.UsageError):
        check_celery_command(["celery", "-A", "shop", "worker", "--no-such-option"])


def test_kubernetes_environment_and_ports_are_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    [secret] = [one for one in manifests() if one["kind"] == "Secret"]
    for kind in ("Deployment", "Job"):
        [container] = pod_of(kind)["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]
    for name, value in secret["stringData"].items():
        monkeypatch.setenv(name, value.replace("…", "x"))
    [block] = [block for block in blocks_of(GUIDES / "kubernetes.md") if block.language == "python"]
    given: dict[str, Any] = {}
    exec(block.text, given)
    with Celery("shop", broker="memory://", set_as_current=False) as app:
        app.conf.framelane = given["framelane"]
        settings = settings_of(app)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "fl_live_x"
    assert settings.room_url is not None
    assert settings.room_url.get_secret_value() == secret["stringData"]["FRAMELANE_ROOM_URL"]
    [deployment] = [one for one in manifests() if one["kind"] == "Deployment"]
    port = settings.metrics_port
    assert [one["containerPort"] for one in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]] == [port]
    template = deployment["spec"]["template"]["metadata"]
    assert template["annotations"]["prometheus.io/port"] == str(port)
    assert template["labels"] == deployment["spec"]["selector"]["matchLabels"]
    assert f"{FramelaneSettings.model_fields['lease_s'].default} s" in (GUIDES / "kubernetes.md").read_text()


# --- systemd -----------------------------------------------------------------------------------------------------


def unit_of(page: str) -> str:
    [text] = [block.text for block in blocks_of(GUIDES / page) if block.edit and block.edit.path.endswith(".service")]
    return text


def test_the_unit_is_the_same_in_both_guides_and_systemd_takes_it(tmp_path: Path) -> None:
    text = unit_of("redis.md")
    assert text == unit_of("rabbitmq.md")
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing")
    (tmp_path / "worker.env").write_text("")
    here = {"/srv/shop/env/bin/celery": "/bin/true", "/etc/shop": str(tmp_path), "/srv/shop": str(tmp_path)}
    for name, ours in here.items():
        assert name in text
        text = text.replace(name, ours)
    assert verify(tmp_path, text) == ""
    assert "Unknown" in verify(tmp_path, text.replace("KillMode", "KilMode"))


def verify(folder: Path, text: str) -> str:
    """What systemd says of our unit; others of the machine are not ours."""
    unit = folder / "shop-worker.service"
    unit.write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return "\n".join(line for line in done.stderr.splitlines() if unit.name in line)


# --- keys --------------------------------------------------------------------------------------------------------


def test_rotating_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's snippets in their order, against the local server."""
    page = GUIDES / "rotate_a_key.md"
    snippets = [block.text for block in blocks_of(page) if block.language == "python" and "client" in block.text]
    assert len(snippets) == 4
    kept: list[str] = []
    with FramelaneServer() as server, FramelaneClient(server.api_key, server.base_url) as client:
        old = client.create_api_key("worker, spring")
        webhook = client.create_webhook("https://shop.example.com/framelane/webhook/")
        given = {"client": client, "keep": kept.append, "old_id": old.id, "webhook_id": webhook.id}
        for snippet in snippets:
            exec(snippet, given)
        with FramelaneClient(kept[0], server.base_url) as new:
            assert new.get_usage() is not None
        with FramelaneClient(old.key or "", server.base_url) as revoked, pytest.raises(errors.Unauthorized):
            revoked.get_usage()
        before, after = webhook.secret or "", given["secret"]
    assert "FRAMELANE_WEBHOOK_SECRET=whsec_new,whsec_old" in page.read_text()
    monkeypatch.setenv("FRAMELANE_WEBHOOK_SECRET", f"{after},{before}")
    with Celery("shop", broker="memory://", set_as_current=False) as app:
        app.conf.framelane = {"room_url": "sqlite:///nowhere"}
        secrets = [secret.get_secret_value() for secret in settings_of(app).webhook_secrets]
    for secret in (before, after):
        assert webhooks.prove(signature(b"{}", secret, 1000.0), b"{}", secrets, now=1000.0)
    with pytest.raises(webhooks.WebhookRefused):
        webhooks.prove(signature(b"{}", after, 1000.0), b"{}", [before], now=1000.0)


# --- tests of one's own ------------------------------------------------------------------------------------------


def test_the_test_of_ones_own_passes(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "FRAMELANE"))}
    environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ["PATH"]])
    with Reader(GUIDES / "test_your_tasks.md", tmp_path, environ, {}) as reader:
        reader.others = {"pip install ": lambda command: None}  # this environment has them
        reader.follow("A first test")


# --- Django behind a proxy ---------------------------------------------------------------------------------------

BEHIND_A_PROXY = """
import json, sys
from django.conf import settings
given = {}
exec(sys.argv[1], given)
settings.configure(ROOT_URLCONF="urls", MIDDLEWARE=["django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
    **{name: value for name, value in given.items() if name.isupper()})
import django, types
from celery import Celery
django.setup()
from django.urls import include, path
sys.modules["urls"] = types.ModuleType("urls")
sys.modules["urls"].urlpatterns = [path("framelane/", include("framelane_celery.django.urls"))]
app = Celery("shop", broker="memory://")
app.conf.framelane = {"room_url": "sqlite:///room.db", "webhook_secrets": ["whsec_x"]}
from django.test import Client
from framelane_celery.testing.webhooks import signature
import time
client = Client(HTTP_HOST="shop.example.com", HTTP_X_FORWARDED_PROTO="https", enforce_csrf_checks=True)
body = b'{"id": "render_1"}'
headers = {"Framelane-Signature": signature(body, "whsec_x", time.time())}
paths = ["/framelane/webhook/", "/framelane/webhook"]
print(json.dumps([client.post(path, body, "application/json", headers=headers).status_code for path in paths]))
"""


def test_django_behind_a_proxy_takes_events_and_redirects_without_its_line(tmp_path: Path) -> None:
    page = GUIDES / "webhooks_behind_a_proxy.md"
    [text] = [block.text for block in blocks_of(page) if "SECURE_PROXY_SSL_HEADER" in block.text]
    without = "\n".join(line for line in text.splitlines() if "PROXY" not in line)
    answers = []
    for settings in (text, without):
        done = subprocess.run(
            [sys.executable, "-c", BEHIND_A_PROXY, settings], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        answers.append(json.loads(done.stdout.splitlines()[-1]))
    with_slash, without_slash = 0, 1
    assert answers[0][with_slash] == 200
    assert answers[0][without_slash] != 200
    assert answers[1][with_slash] == 301
