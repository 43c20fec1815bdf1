"""The faults, by their letters."""

from __future__ import annotations

from typing import Final

from tests.suite import api, clocks, connections, hooks, kills, services, soak, stops
from tests.suite.frame import Fault

TRANSPORTS: Final = ("redis", "rabbitmq")

FAULTS: Final[dict[str, Fault]] = {
    "a": kills.WORKERS,
    "b": kills.HAND_OVERS,
    "c": api.ANSWERS,
    "d": services.SERVICES,
    "e-cut": connections.CUT,
    "e-hole": connections.HOLE,
    "f": stops.STOPPED,
    "g": api.DOWN,
    "h": hooks.WEBHOOKS,
    "i": services.BACKEND,
    "j": services.EMPTY_ROOM,
    "k": clocks.CLOCK,
    "l": soak.SOAK,
}
