"""examples/pipelines as their READMEs say, on Redis and on RabbitMQ, against the local server."""

from __future__ import annotations

import email
import re
from pathlib import Path

import pytest

from framelane_celery.testing import FramelaneServer
from tests.demo.processes import process, said
from tests.examples.project import EXAMPLES, PSYCOPG, Project, bodies, commands, project

pytestmark = [pytest.mark.worker, pytest.mark.celery55, pytest.mark.timeout(300)]


def test_captioned_clip(pipelines: Project) -> None:
    [run] = commands("captioned_clip")
    assert re.fullmatch(r"render_\w+: 2\.0 s\n", pipelines.run(*run))
    transcribed, rendered = bodies(pipelines.server)
    assert transcribed["source_url"] == "https://media.example.com/interview.mp4"
    clip, *captions = rendered["elements"]
    assert (clip["in_point"], clip["out_point"]) == (0.4, 2.4)
    # The transcript says "Made" at 0 to 350 ms, "on" at 400 to 750, and so on; the clip begins at 400 ms.
    words = [[(w["text"], w["start"], w["end"]) for w in line["word_animation"]["words"]] for line in captions]
    assert words == [
        [("on", 0.0, 0.35), ("this", 0.4, 0.75), ("machine", 0.8, 1.15), ("by", 1.2, 1.55)],
        [("the", 1.6, 1.95)],
    ]
    assert [(line["text"], line["time"]) for line in captions] == [("on this machine by", 0.0), ("the", 1.6)]
    assert [line["time"] + line["duration"] for line in captions] == pytest.approx([1.55, 1.95])


def test_product_videos(pipelines: Project) -> None:
    [run] = commands("product_videos")
    boot, sneaker, hat = pipelines.run(*run).splitlines()
    assert re.fullmatch(r"boot: render_\w+", boot)
    assert re.fullmatch(r"sneaker: render_\w+", sneaker)
    assert hat.startswith("hat: invalid_source, replay it with: celery -A celery_app framelane dead replay ")
    shown = pipelines.run("-m", *hat.partition("with: ")[2].replace(" replay ", " show ").split())
    assert "invalid_source" in shown
    assert [body["metadata"]["sku"] for body in bodies(pipelines.server)] == ["boot", "sneaker"]


def test_product_videos_with_results_and_room_in_postgresql(server: FramelaneServer, tmp_path: Path) -> None:
    """There Celery counts no chord: a task of its own looks whether it is complete."""
    [run] = commands("product_videos")
    with project("rabbitmq", tmp_path, server, results=f"db+{PSYCOPG}") as made, made.worker():
        lines = made.run(*run).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["boot", "sneaker", "hat"]
    assert "invalid_source" in lines[2]


def test_deliver(pipelines: Project) -> None:
    mailbox, run = commands("deliver")
    port = int(pipelines.env["MAIL_PORT"])
    assert (mailbox[-1], run[-2:]) == ("1025", ["clip.mp4", "ada@example.com"])
    film = pipelines.folder / "clip.mp4"
    film.write_bytes(b"film" * 1000)
    log = pipelines.folder / "mailbox.log"
    command = pipelines.python(*mailbox[:-1], str(port))
    with process(*command, cwd=pipelines.folder, env=pipelines.env, log=log):
        said(log, f"taken at port {port}")
        first = pipelines.run(*run)
        assert pipelines.run(*run) == first == "mailed to ada@example.com: <order-clip-mail@shop.example>\n"
    [path] = (pipelines.folder / "mails").iterdir()
    mail = email.message_from_bytes(path.read_bytes())
    assert (mail["To"], mail["Message-ID"]) == ("ada@example.com", "<order-clip-mail@shop.example>")
    [_, attached] = mail.get_payload()
    assert attached.get_payload(decode=True) == (pipelines.folder / "films" / "order-clip.mp4").read_bytes()
    entries = pipelines.server.ledger.entries()
    assert [entry.status for entry in entries if entry.path == "/v1/uploads"] == [201]
    [rendered] = bodies(pipelines.server)
    assert rendered["elements"][1]["text"] == "For Ada"


def test_talking_head(pipelines: Project) -> None:
    [run] = commands("talking_head")
    path = Path(pipelines.run(*run).strip())
    assert path == (pipelines.folder / "talking_head.mp4").resolve()
    assert path.stat().st_size > 0
    posts = [post for post in pipelines.server.ledger.posts() if post.is_new_job]
    assert [post.path.rpartition("/")[2] for post in posts] == [
        "gaze-redirect",
        "remove-background",
        "super-resolution",
    ]
    first, second, third = posts
    assert first.job_id in second.json()["source_url"]
    assert second.job_id in third.json()["source_url"]


def test_each_has_a_readme_that_names_a_command_and_is_in_the_list() -> None:
    folders = sorted(path.parent.name for path in EXAMPLES.glob("*/tasks.py"))
    listed = re.findall(r"\]\((\w+)/README\.md\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == folders
    assert all(commands(folder)[-1][:2] == ["-m", f"{folder}.run"] for folder in folders)
    for readme in EXAMPLES.rglob("README.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", readme.read_text()):
            assert (readme.parent / link).exists(), link
