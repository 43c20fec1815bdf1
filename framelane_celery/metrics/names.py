"""Every metric there is: its name, what it says, its labels. None is an id, and none of any text that an API sends.

Each has the label ``room_namespace`` in front. (Not ``namespace``: Kubernetes' own label has that name.)
"""

from __future__ import annotations

from typing import Final, NamedTuple

NAMESPACE: Final = "room_namespace"


class Metric(NamedTuple):
    help: str
    labels: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    """Values of its one label that are told at 0 too: of what begins at 1, Prometheus sees no increase."""

    @property
    def at_zero(self) -> dict[tuple[str, ...], float]:
        return {(value,): 0.0 for value in self.always} if self.labels else {(): 0.0}


SOURCES: Final = ("hint", "long_poll", "sweep", "read", "deadline", "repair")
"""What tells of a job's end: `watching.plan.Source`."""

WHY: Final = ("adopted", "no_record", "ended", "other_attempt", "outcome_unknown", "not_found")
"""`orphans.finding.WHY`, and what was brought back."""

GAUGES: Final = {
    "tasks_waiting": Metric(
        "Tasks that are not over, by what they wait for ('running': nothing), the queue that they run from, and the "
        "code of the failure that made them wait.",
        ("until", "queue", "code", "account"),
    ),
    "dead_letters": Metric("Dead letters that wait for somebody.", ("code", "account")),
    "oldest_letter_seconds": Metric("Age of the oldest dead letter."),
    "holds": Metric("Accounts whose submissions are on hold: 1 for each that is.", ("code", "account")),
    "watcher_leads": Metric("1 while a watcher leads, 0 while nobody moves anything on."),
    "overdue": Metric("Records that are due for more than a minute.", ("lane",)),
    "oldest_due_seconds": Metric("How long the first record of a lane is overdue.", ("lane",)),
    "census_age_seconds": Metric("How old the numbers of waiting tasks and dead letters are."),
    "up": Metric("1 if the room could be asked, else 0."),
}

COUNTERS: Final = {
    "submissions": Metric("Jobs that Framelane has accepted.", ("kind", "account")),
    "job_outcomes": Metric("Ends of jobs, by what became of them.", ("kind", "outcome", "code")),
    "job_ends": Metric("Ends of jobs, by what told of them ('hint': a webhook).", ("source",), SOURCES),
    "routes": Metric("Failures, by their code and what the route table made of them.", ("code", "action")),
    "tasks_ended": Metric("Tasks that are over.", ("task", "outcome")),
    "resends": Metric("Wake-ups that were not answered and sent again."),
    "lost_runs": Metric("Runs that died, or lost their lease."),
    "drops": Metric("Messages that were dropped: late, doubled, or sent back to wait."),
    "looks": Metric("Looks at jobs, by their way.", ("way",), ("long_poll", "read", "list")),
    "http_requests": Metric("Calls to the API by workers ('none': not answered).", ("method", "endpoint", "status")),
    "orphans": Metric("Jobs that no record awaited, as the watcher found them: adopted, or why not.", ("why",), WHY),
}

HISTOGRAMS: Final = {
    "job_seconds": Metric("From a job's acceptance to its end being seen.", ("kind",)),
    "job_end_seen_seconds": Metric("From a job's end, as the API dates it, to its being seen.", ("source",)),
    "resume_seconds": Metric("From a job's end, as the API dates it, to the run that takes it up.", ("kind",)),
    "http_request_seconds": Metric("Calls to the API; long-polls are held on purpose.", ("method", "endpoint")),
}
