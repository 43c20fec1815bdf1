"""What comes after a task of ours is published without the job's signed URL where it is shown."""

from __future__ import annotations

from typing import Any

from celery import Celery, chain, chord, group, signature
from celery.app.task import Context
from kombu.utils.json import dumps, loads

from framelane_celery.tasks.tail import show_no_result

JOB = {"id": "render_1", "status": "completed", "output": {"url": "https://files.example/a.mp4?signature=s3cr3t"}}
SHOWN = "(<job render_1>)"

app = Celery("tail", set_as_current=False)


def sig(name: str = "publish", *args: Any, **options: Any) -> Any:
    return signature(name, args=args, app=app, **options)


def shown(canvas: Any) -> Any:
    """What a message would bring of it, after a run that ended with JOB."""
    received = loads(dumps(canvas))
    request = Context(callbacks=[received], chain=None, chord=None)
    show_no_result(request, JOB)
    return received


def argsrepr(signature: Any) -> str | None:
    return signature["options"].get("argsrepr")  # type: ignore[no-any-return]


def test_a_link_and_its_own_arguments() -> None:
    assert argsrepr(shown(sig())) == SHOWN
    assert argsrepr(shown(sig("publish", 7, {"text": "hush"}))) == "(<job render_1>, 7, <text>)"


def test_who_gets_no_result_shows_its_own_arguments() -> None:
    assert argsrepr(shown(sig("publish", 7, immutable=True))) is None


def test_only_the_first_of_a_chain_gets_it() -> None:
    first, second = shown(chain(sig("a"), sig("b")))["kwargs"]["tasks"]
    assert (argsrepr(first), argsrepr(second)) == (SHOWN, None)


def test_every_member_of_a_group_gets_it() -> None:
    members = shown(group(sig("a"), chain(sig("b"), sig("c")), sig("d", 1)))["kwargs"]["tasks"]
    inner = members[1]["kwargs"]["tasks"]
    assert [argsrepr(one) for one in (members[0], *inner, members[2])] == [SHOWN, SHOWN, None, "(<job render_1>, 1)"]


def test_a_chords_members_get_it_and_its_body_does_not() -> None:
    inner = shown(chord([sig("a"), sig("b")], sig("c")))["kwargs"]
    header = inner["header"]
    members = header["kwargs"]["tasks"] if isinstance(header, dict) else header
    assert [argsrepr(one) for one in members] == [SHOWN, SHOWN]
    assert argsrepr(inner["body"]) is None


def test_the_next_of_a_chain_and_the_body_of_its_chord() -> None:
    later, following, body = (loads(dumps(sig(name))) for name in ("later", "next", "body"))
    request = Context(callbacks=None, chain=[later, following], chord=body)
    show_no_result(request, JOB)
    assert [argsrepr(one) for one in (later, following, body)] == [None, SHOWN, "(<results>)"]


def test_a_result_of_the_tasks_own() -> None:
    received = loads(dumps(sig()))
    show_no_result(Context(callbacks=[received]), "https://files.example/a.mp4?signature=s3cr3t")
    assert argsrepr(received) == "('https://files.example/a.mp4?…')"


def test_a_run_without_a_tail() -> None:
    show_no_result(Context(), JOB)
