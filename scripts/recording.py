"""Record the demo as it shows in a terminal: ``python -m scripts.recording``. Made of it is docs/pictures/demo.svg.

The demo runs in a pseudo-terminal of its own. What is on its screen becomes a picture that moves (SMIL): each line is
there from when it was seen until another one took its place. Where nothing moves, the last screen is shown.
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import pyte

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "demo.svg"
COLUMNS, LINES = 84, 30
COMMAND = [sys.executable, "-c", "from framelane_celery.cli import main; main()", "demo"]

STILL_S = 0.25
"""How long a screen has to stand to be seen: what passes faster is left out."""
END_S = 6.0
"""How long the last one stands before it begins anew."""

CHAR_PX, LINE_PX, MARGIN_PX = 8.4, 18, 16
COLOURS = {"default": "#d0d7de", "green": "#56d364"}

Line = tuple[tuple[int, str, str, bool], ...]
"""Its pieces: column, text, colour, whether it is bold."""


class Shown(NamedTuple):
    """A line of the screen, from one second to another; None: to the end."""

    row: int
    line: Line
    from_s: float
    to_s: float | None


def main() -> None:
    screens = list(record())
    PICTURE.write_text(picture(spans(screens), screens[-1][0] + END_S))
    print(PICTURE)


def record() -> Iterator[tuple[float, list[Line]]]:
    """Run the demo; tell what is on its screen whenever it has stood still for a moment: seconds, lines."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    seen: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        terminal, started = _start(folder), time.monotonic()
        told_at = -STILL_S
        while chunk := _read(terminal):
            stream.feed(chunk)
            now = time.monotonic() - started
            lines = [_line(screen, row) for row in range(LINES)]
            if lines != seen and now - told_at > STILL_S:
                yield now, lines
                seen, told_at = lines, now
        yield time.monotonic() - started, [_line(screen, row) for row in range(LINES)]


def _start(folder: str) -> int:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.environ["TERM"] = "xterm-256color"
        os.execv(COMMAND[0], COMMAND)  # noqa: S606 - the interpreter that runs this
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    return terminal


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: the process has ended
        return b""


def _line(screen: pyte.Screen, row: int) -> Line:
    cells = [(column, screen.buffer[row][column]) for column in range(COLUMNS)]
    pieces = []
    for (colour, bold), group in groupby(cells, lambda cell: (cell[1].fg, cell[1].bold)):
        run = list(group)
        text = "".join(char.data for _, char in run)
        if text.strip():
            pieces.append((run[0][0] + len(text) - len(text.lstrip()), text.strip(), colour, bold))
    return tuple(pieces)


def spans(screens: list[tuple[float, list[Line]]]) -> list[Shown]:
    """From when to when each line stood where it stood."""
    found = []
    for row in range(LINES):
        history = [(at, lines[row]) for at, lines in screens]
        changes = [entry for at, entry in enumerate(history) if at == 0 or entry[1] != history[at - 1][1]]
        ends = [at for at, _ in changes[1:]] + [None]
        found += [Shown(row, line, at, end) for (at, line), end in zip(changes, ends, strict=True) if line]
    return found


def picture(shown: list[Shown], length_s: float) -> str:
    """The whole SVG."""
    width, height = COLUMNS * CHAR_PX + 2 * MARGIN_PX, (max(one.row for one in shown) + 2) * LINE_PX + 2 * MARGIN_PX
    lines = "\n".join(_group(one) for one in shown)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">
<title>make demo: a chain and a chord of renders, and what they cost</title>
<style>text {{ font: 14px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre; }}</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117">
<animate id="t" attributeName="ry" from="8" to="8" begin="0s;t.end" dur="{length_s:.1f}s"/></rect>
<text x="{MARGIN_PX}" y="{MARGIN_PX + 12}" fill="#8b949e">$ make demo</text>
{lines}
</svg>
"""


def _group(shown: Shown) -> str:
    y = MARGIN_PX + 12 + (shown.row + 1) * LINE_PX
    texts = "".join(_text(*piece, y) for piece in shown.line)
    if shown.to_s is None:
        when = f'<set attributeName="visibility" to="hidden" begin="t.begin" dur="{max(shown.from_s, 0.01):.2f}s"/>'
        return f"<g>{when}{texts}</g>"
    dur_s = shown.to_s - shown.from_s
    when = f'<set attributeName="visibility" to="visible" begin="t.begin+{shown.from_s:.2f}s" dur="{dur_s:.2f}s"/>'
    return f'<g visibility="hidden">{when}{texts}</g>'


def _text(column: int, text: str, colour: str, bold: bool, y: int) -> str:
    x, width = MARGIN_PX + column * CHAR_PX, len(text) * CHAR_PX
    fill = COLOURS.get(colour, f"#{colour}" if len(colour) == 6 else COLOURS["default"])
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y}" textLength="{width:.1f}" fill="{fill}"{weight}>{escape(text)}</text>'


if __name__ == "__main__":
    main()
