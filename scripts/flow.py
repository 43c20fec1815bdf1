"""Draw how one render flows, docs/pictures/flow.svg: ``python -m scripts.flow``."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

PICTURE: Final = Path(__file__).parents[1] / "docs" / "pictures" / "flow.svg"

LANES: Final = (
    ("your code", "a web view"),
    ("the room", "Redis or SQL"),
    ("a worker", "and its watcher"),
    ("Framelane", ""),
)
LANE_PX: Final = 158  # a phone shows the whole of it, and its words have to be read there
LINE_PX: Final = 17
STEP_PX: Final = 52
TOP_PX: Final = 76


class Step(NamedTuple):
    """An arrow from one lane to another; ``message``: it is a Celery message, which may be lost."""

    start: int
    end: int
    text: str
    message: bool = False


class Pause(NamedTuple):
    """While nothing runs."""

    text: str


CODE, ROOM, WORKER, FRAMELANE = range(4)
STEPS: Final[tuple[Step | Pause, ...]] = (
    Step(CODE, ROOM, "render.delay(…):\nthe record"),
    Step(CODE, WORKER, "a message, by any Celery broker", message=True),
    Step(WORKER, ROOM, "first run:\nthe bytes to send"),
    Step(WORKER, FRAMELANE, "POST +\nidempotency key"),
    Step(FRAMELANE, WORKER, "accepted"),
    Step(WORKER, ROOM, "until: the job"),
    Pause("the run is over: nothing is held while the job runs"),
    Step(WORKER, FRAMELANE, "the watcher looks"),
    Step(FRAMELANE, WORKER, "ended"),
    Step(WORKER, ROOM, "the outcome"),
    Step(ROOM, WORKER, "a message:\nsecond run", message=True),
    Step(WORKER, CODE, "the job, or its error: chain, callbacks, result"),
    Step(WORKER, ROOM, "done"),
)


def main() -> None:
    PICTURE.write_text(picture())
    print(PICTURE)


def picture() -> str:
    """The whole SVG."""
    width, height = LANE_PX * len(LANES), TOP_PX + STEP_PX * len(STEPS) + 20
    lanes = "\n".join(_lane(number, height) for number in range(len(LANES)))
    steps = "\n".join(_step(step, TOP_PX + STEP_PX * (at + 0.75)) for at, step in enumerate(STEPS))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>One render, from the call to its end: your code, the room, a worker, Framelane</title>
<style>
text {{ font: 14px system-ui, "DejaVu Sans", sans-serif; text-anchor: middle; fill: #1f2328; }}
.lane {{ font-weight: 600; font-size: 16px; }}
.note {{ fill: #59636e; }}
line {{ stroke: #1f2328; stroke-width: 1.5; marker-end: url(#head); }}
.life {{ stroke: #d1d9e0; marker-end: none; }}
.message {{ stroke-dasharray: 6 4; }}
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0L8 4L0 8z" fill="#1f2328"/></marker></defs>
<rect width="100%" height="100%" rx="8" fill="#ffffff"/>
{lanes}
{steps}
</svg>
"""


def _x(lane: int) -> float:
    return LANE_PX * (lane + 0.5)


def _lane(number: int, height: int) -> str:
    x, (name, note) = _x(number), LANES[number]
    return (
        f'<text class="lane" x="{x}" y="30">{escape(name)}</text>'
        f'<text class="note" x="{x}" y="50">{escape(note)}</text>'
        f'<line class="life" x1="{x}" y1="62" x2="{x}" y2="{height - 16}"/>'
    )


def _step(step: Step | Pause, y: float) -> str:
    if isinstance(step, Pause):
        middle, width = _x(0) + (_x(3) - _x(0)) / 2, LANE_PX * 3.3
        box = f'<rect x="{middle - width / 2}" y="{y - 26}" width="{width}" height="32" rx="6" fill="#ddf4ff"/>'
        return f'{box}<text x="{middle}" y="{y - 5}">{escape(step.text)}</text>'
    start, end = _x(step.start), _x(step.end)
    inset = 4 if end > start else -4
    kind = ' class="message"' if step.message else ""
    arrow = f'<line{kind} x1="{start + inset}" y1="{y}" x2="{end - inset}" y2="{y}"/>'
    lines, middle = step.text.split("\n"), (start + end) / 2
    tops = [y - 8 - LINE_PX * (len(lines) - 1 - at) for at in range(len(lines))]
    said = "".join(f'<text x="{middle}" y="{top}">{escape(line)}</text>' for line, top in zip(lines, tops, strict=True))
    if abs(step.end - step.start) == 1:
        return said + arrow
    width = 7.2 * len(step.text)  # over the line of a lane that it passes
    back = f'<rect x="{middle - width / 2:.1f}" y="{y - 21}" width="{width:.1f}" height="{LINE_PX}" fill="#ffffff"/>'
    return back + said + arrow


if __name__ == "__main__":
    main()
