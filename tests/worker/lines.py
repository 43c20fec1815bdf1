"""What another process writes line by line, each as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def lines_in(path: Path) -> list[dict[str, Any]]:
    """The whole lines, if there is a file yet: a reader may see the first half of one that is just being written."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
