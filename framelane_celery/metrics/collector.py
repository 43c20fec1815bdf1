"""A collector for prometheus_client: each scrape asks the room, so it is right for any pool and any number of hosts."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from framelane_celery.counting import BUCKETS
from framelane_celery.errors import RoomError, SettingsError
from framelane_celery.metrics.census import Census, Names, Numbers
from framelane_celery.metrics.names import COUNTERS, GAUGES, HISTOGRAMS, NAMESPACE
from framelane_celery.monitoring.transitions import code_label
from framelane_celery.queues import queue_of
from framelane_celery.room import room_of
from framelane_celery.room.inspect import RoomState, Store, open_store, options_of
from framelane_celery.settings import settings_of

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector as Base
except ImportError as error:
    raise SettingsError("metrics need prometheus_client: pip install 'framelane-celery[metrics]'") from error

__all__ = ["Collector", "CollectorRegistry", "families_of"]

if TYPE_CHECKING:
    from celery import Celery

    from framelane_celery.records import Record

logger = logging.getLogger(__name__)

PREFIX: Final = "framelane_"
_BOUNDS: Final = (*map(str, BUCKETS), "+Inf")


class Collector(Base):
    """The metrics of one app, for any registry. A room that is away is ``framelane_up 0``, never an error.

    Raises: SettingsError.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._namespace = settings_of(app).namespace or ""
        self._queues: dict[str, str] = {}
        self._census = Census(lambda: room_of(app, settings_of(app)), self._queue_of)
        self._accounts = Names()
        self._store: Store | None = None

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry would ask the room for the names, which may be away."""
        return []

    def close(self) -> None:
        """Let go of the room's store. (The next scrape would open it again.)"""
        if self._store is not None:
            self._store.close()
            self._store = None

    def collect(self) -> Iterator[Metric]:
        settings = settings_of(self._app)
        gauges: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in GAUGES}
        counts: Mapping[str, float] = {}
        try:
            room = room_of(self._app, settings)
            counts, (holds, now) = room.counts(), room.holds()
            self._add_state(gauges, self._state())
            for hold in holds:
                if hold.is_on:
                    gauges["holds"][code_label(hold.code), self._accounts.label(hold.account)] = 1.0
            self._add_numbers(gauges, self._census.latest(), now)
            gauges["up"][()] = 1.0
        except RoomError as error:
            logger.warning("the room is away, there are no metrics: %s", error)
            gauges, counts = {"up": {(): 0.0}}, {}
        yield from self._gauges(gauges)
        yield from families_of(counts, self._namespace)

    def _state(self) -> RoomState:
        if self._store is None:
            settings = settings_of(self._app)
            url = settings.room_url.get_secret_value() if settings.room_url else ""
            accounts = tuple(settings.accounts)
            self._store = open_store(url, self._namespace, options=options_of(self._app), accounts=accounts)
        return self._store.state()

    def _add_state(self, gauges: dict[str, dict[tuple[str, ...], float]], state: RoomState) -> None:
        gauges["watcher_leads"][()] = float(state.leader is not None)
        for name, lane in state.lanes.items():
            if not name.startswith("dead"):
                gauges["overdue"][(name,)] = float(lane.overdue)
                late_s = 0.0 if lane.first_due_at is None else state.now - lane.first_due_at
                gauges["oldest_due_seconds"][(name,)] = max(0.0, late_s)

    def _add_numbers(
        self, gauges: dict[str, dict[tuple[str, ...], float]], numbers: Numbers | None, now: float
    ) -> None:
        if numbers is None:
            return
        gauges["tasks_waiting"].update({labels: float(n) for labels, n in numbers.waiting.items()})
        gauges["dead_letters"].update({labels: float(n) for labels, n in numbers.letters.items()})
        oldest_at = numbers.oldest_letter_at
        gauges["oldest_letter_seconds"][()] = 0.0 if oldest_at is None else max(0.0, now - oldest_at)
        gauges["census_age_seconds"][()] = time.monotonic() - numbers.made_at

    def _gauges(self, values: Mapping[str, Mapping[tuple[str, ...], float]]) -> Iterator[Metric]:
        for name, samples in values.items():
            metric = GAUGES[name]
            family = GaugeMetricFamily(PREFIX + name, metric.help, labels=[NAMESPACE, *metric.labels])
            for labels, value in sorted(samples.items()):
                family.add_metric([self._namespace, *labels], value)
            yield family

    def _queue_of(self, record: Record) -> str:
        """The queue that a record's next message goes to. Where it was not called with one, its task's: a router that
        looks at arguments is asked without them."""
        named = record.retry_queue or record.queue
        if named is not None:
            return named
        if record.task not in self._queues:
            self._queues[record.task] = queue_of(self._app, record.task, {})
        return self._queues[record.task]


def families_of(counts: Mapping[str, float], namespace: str) -> Iterator[Metric]:
    """What processes have counted, as metrics; what another version has counted under other labels is left away."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for key, number in counts.items():
        name, *labels = json.loads(key)
        found.setdefault(name, {})[tuple(labels)] = number
    for name, metric in COUNTERS.items():
        family = CounterMetricFamily(PREFIX + name, metric.help, labels=[NAMESPACE, *metric.labels])
        for labels, number in sorted({**metric.at_zero, **found.get(name, {})}.items()):
            if len(labels) == len(metric.labels):
                family.add_metric([namespace, *labels], number)
        yield family
    for name, metric in HISTOGRAMS.items():
        histogram = HistogramMetricFamily(PREFIX + name, metric.help, labels=[NAMESPACE, *metric.labels])
        sums = found.get(f"{name}_sum", {})
        for labels in sorted(sums):
            if len(labels) == len(metric.labels):
                buckets = _cumulated(found.get(f"{name}_bucket", {}), labels)
                histogram.add_metric([namespace, *labels], buckets, sums[labels])
        yield histogram


def _cumulated(buckets: Mapping[tuple[str, ...], float], labels: tuple[str, ...]) -> list[Any]:
    """Prometheus' buckets hold all that is smaller."""
    total, cumulated = 0.0, []
    for bound in _BOUNDS:
        total += buckets.get((*labels, bound), 0.0)
        cumulated.append([bound, total])
    return cumulated
