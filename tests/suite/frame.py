"""A fault, and how it is run: round after round, each written down when it is over."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.suite.ledger import Ledger, read_ledger, together

Form = Literal["full", "short"]
Round = Callable[[str, Path], Ledger]
"""Plays one round on a transport, in a folder of its own."""


class Fault(NamedTuple):
    """``rounds`` makes the rounds of each form, by their labels. A round needs nothing of the one before it."""

    title: str
    rounds: Callable[[Form], Mapping[str, Round]]


def play(
    name: str,
    fault: Fault,
    transport: str,
    form: Form,
    out: Path,
    *,
    is_resumed: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Ledger:
    """Play a fault's rounds, but for those that ``out`` has already, if resumed. Nothing is played again."""
    done = _done(out, form) if is_resumed else {}
    for label, round_ in fault.rounds(form).items():
        if label in done:
            tell(f"{label}: done before")
            continue
        folder = Path(tempfile.mkdtemp(prefix=f"suite-{name}-"))
        done[label] = _played(round_, transport, folder)
        tell(f"{label}: {json.dumps(done[label].show())}")
        if done[label].verdict == "pass":
            shutil.rmtree(folder, ignore_errors=True)
        else:
            tell(f"{label}: what is left of it is in {folder}")
        _write(out, name, fault, transport, form, done)
    return together(done)


def _played(round_: Round, transport: str, folder: Path) -> Ledger:
    """A round that breaks off has failed; the rounds after it are played all the same."""
    try:
        return round_(transport, folder)
    except Exception as error:  # noqa: BLE001 - one round never stops the others, and is told
        return Ledger(broken=[f"broke off: {type(error).__name__}: {str(error)[:2000]}"])


def _done(out: Path, form: Form) -> dict[str, Ledger]:
    if not out.exists():
        return {}
    written = json.loads(out.read_text())
    rounds: dict[str, Any] = written["rounds"] if written["form"] == form else {}
    return {label: read_ledger(shown) for label, shown in rounds.items()}


def _write(out: Path, name: str, fault: Fault, transport: str, form: Form, done: Mapping[str, Ledger]) -> None:
    """Whole or not at all."""
    head = {"fault": name, "title": fault.title, "transport": transport, "form": form}
    rounds = {label: one.show() for label, one in done.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_suffix(".draft")
    draft.write_text(json.dumps({**head, **together(dict(done)).show(), "rounds": rounds}, indent=1) + "\n")
    draft.replace(out)
