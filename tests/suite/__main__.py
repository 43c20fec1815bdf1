"""``python -m tests.suite FAULT TRANSPORT``: run one fault, or ``all``, and say whether the promises held."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path

from kombu import pools

from tests.suite.faults import FAULTS, TRANSPORTS
from tests.suite.frame import play
from tests.suite.ledger import Ledger

OUTPUT = Path("suite-output")
_COLUMNS = (
    "attempted", "accepted", "lost", "duplicated", "paid", "run_twice", "faults_planned", "faults_hit", "hit_share",
    "seconds", "verdict",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.suite", description=__doc__)
    letters = sorted({name[0] for name in FAULTS} - set(FAULTS))
    titles = "; ".join(f"{name}: {fault.title}" for name, fault in FAULTS.items())
    parser.add_argument("fault", choices=[*FAULTS, *letters, "all"], help=titles)
    parser.add_argument("transport", choices=[*TRANSPORTS, "both"])
    parser.add_argument("--short", action="store_true", help="the short form, which `make test` plays too")
    parser.add_argument("--resume", action="store_true", help="leave out the rounds that the output has already")
    parser.add_argument("--out", type=Path, help="where to write; one fault on one transport only")
    asked = parser.parse_args()
    names = [name for name in FAULTS if asked.fault in ("all", name, name[0])]
    transports = TRANSPORTS if asked.transport == "both" else (asked.transport,)
    if asked.out and len(names) * len(transports) > 1:
        parser.error("--out takes one fault on one transport")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that workers and servers of ours are taken along
    logging.getLogger("framelane_celery").setLevel(logging.CRITICAL)  # of this process: calls without a broker
    ledgers: dict[tuple[str, str], Ledger] = {}
    for transport in transports:
        for name in names:
            print(f"== {name} on {transport}: {FAULTS[name].title}", flush=True)
            form = "short" if asked.short else "full"
            out = asked.out or OUTPUT / f"{name}-{transport}{'-short' if asked.short else ''}.json"
            ledgers[name, transport] = play(
                name, FAULTS[name], transport, form, out, is_resumed=asked.resume,
                tell=lambda line: print(f"   {line}", flush=True),
            )  # fmt: skip
            pools.reset()
    _show(ledgers)
    return 0 if all(ledger.verdict == "pass" for ledger in ledgers.values()) else 1


def _show(ledgers: dict[tuple[str, str], Ledger]) -> None:
    rows = [["fault", "transport", *_COLUMNS]]
    for (name, transport), ledger in ledgers.items():
        shown = ledger.show()
        rows.append([name, transport, *("-" if shown[column] is None else str(shown[column]) for column in _COLUMNS)])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for (name, transport), ledger in ledgers.items():
        for label, value in ledger.figures.items():
            print(f"{name} on {transport}: {label} {value:g}")
        for what in ledger.broken:
            print(f"{name} on {transport}: BROKEN: {what}")


if __name__ == "__main__":
    sys.exit(main())
