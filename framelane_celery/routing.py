"""Routes: what becomes of a failure, by its code. Pure: plain values in, a decision out.

Source: design.md §4. The first rule that matches decides; a rule that is spent (its attempts, its time on hold) lets
the next one decide, or the action that its ``then`` names. The defaults come after a user's own rules, so that every
code has an end.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from framelane_celery.errors import SettingsError
from framelane_celery.pacing import full_jitter_s

Action = Literal["retry", "hold", "dead_letter", "fail"]

MAX_ATTEMPTS: Final = 4
BACKOFF_S: Final = 10.0
BACKOFF_MAX_S: Final = 600.0

# Which keys only make sense with which actions.
_ONLY_WITH: Mapping[str, tuple[Action, ...]] = {
    "max_attempts": ("retry",),
    "backoff_s": ("retry",),
    "backoff_max_s": ("retry",),
    "queue": ("retry", "dead_letter"),
    "hold_max_s": ("hold",),
    "keep_waiting": ("dead_letter",),
    "then": ("retry", "hold"),
}

_Span = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Route(BaseModel):
    """One rule. ``code``, ``kind``, ``task`` and ``account`` are shell-style patterns; all four must match.

    Units: spans are seconds. ``max_attempts`` counts the first one too; ``backoff_s`` is the longest wait before the
    second attempt, doubled before each further one up to ``backoff_max_s`` (full jitter).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, strict=True, defer_build=True)

    action: Action
    code: str = "*"
    kind: str = "*"
    task: str = "*"
    account: str = "*"
    max_attempts: Annotated[int, Field(ge=2)] | None = None
    backoff_s: _Span | None = None
    backoff_max_s: _Span | None = None
    queue: str | None = None
    hold_max_s: _Span | None = None
    keep_waiting: bool | None = None
    then: Literal["hold", "dead_letter", "fail"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            raise ValueError(f'must be a dict such as {{"code": "internal", "action": "retry"}}, not {given!r:.60}')
        known = list(cls.model_fields)
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(str(key).lower(), known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"the keys are {', '.join(known)}"
                raise ValueError(f"unknown key '{key}'; {hint}")
        if "action" not in given:
            raise ValueError("has no 'action': use retry, hold, dead_letter or fail")
        return dict(given)

    @field_validator("code", "kind", "task", "account")
    @classmethod
    def _is_a_pattern(cls, pattern: str) -> str:
        if not pattern or pattern != pattern.strip():
            raise ValueError(f"{pattern!r} matches nothing; use a name, or a pattern such as 'source_*'")
        if "[" in pattern and "]" not in pattern[pattern.index("[") + 2 :]:
            raise ValueError(f"{pattern!r} opens a '[' that it does not close")
        return pattern

    @field_validator("kind")
    @classmethod
    def _is_a_kind(cls, pattern: str) -> str:
        if not any(fnmatchcase(kind, pattern) for kind in ("render", "task", "import")):
            raise ValueError(f"{pattern!r} matches no kind of job; the kinds are render, task and import")
        return pattern

    @field_validator("queue")
    @classmethod
    def _is_a_queue(cls, name: str | None) -> str | None:
        return None if name is None else queue_name(name)

    @model_validator(mode="after")
    def _keys_fit_the_action(self) -> Route:
        for key, actions in _ONLY_WITH.items():
            if getattr(self, key) is not None and self.action not in actions:
                raise ValueError(f"'{key}' goes with action {' or '.join(actions)}, not with {self.action}")
        if None not in (self.backoff_s, self.backoff_max_s) and self.backoff_max_s < self.backoff_s:  # type: ignore[operator]
            raise ValueError("'backoff_max_s' must not be less than 'backoff_s'")
        if self.then == self.action:
            raise ValueError(f"'then' must be another action than {self.action}")
        return self

    def matches(self, failure: Failure) -> bool:
        return (
            fnmatchcase(failure.code, self.code)
            and fnmatchcase(failure.kind, self.kind)
            and fnmatchcase(failure.task, self.task)
            and fnmatchcase(failure.account, self.account)
        )

    def to_json(self) -> dict[str, Any]:
        """The rule as its author wrote it: what a letter says of the route that sent it."""
        return self.model_dump(exclude_none=True, exclude_unset=True)


class Failure(NamedTuple):
    """What went wrong, in the words that rules match."""

    code: str
    kind: str
    task: str
    account: str = "default"


class Retry(NamedTuple):
    """A new attempt after a while; its wake-up goes to the retry queue. ``queue`` None: the task queue's own."""

    wait_s: float
    queue: str | None


class Hold(NamedTuple):
    """No submission of the account until the hold ends; at most ``max_s`` for one task, None: the setting's."""

    max_s: float | None


class DeadLetter(NamedTuple):
    """Kept with all that is needed to run it again. ``queue`` None: the setting's."""

    queue: str | None
    keep_waiting: bool
    route: Mapping[str, Any]


class Fail(NamedTuple):
    """The task fails, and that is all."""


Decision = Retry | Hold | DeadLetter | Fail


def queue_name(name: str) -> str:
    """Check a queue's name. Raises: ValueError."""
    if not name or name != name.strip() or not name.isprintable() or len(name.encode()) > 200:
        raise ValueError(f"{name!r:.60} is no name for a queue")
    return name


DEFAULTS: Final[tuple[Mapping[str, Any], ...]] = (
    {"code": "internal", "action": "retry"},
    {"code": "quota_exceeded", "action": "hold"},
    {"code": "spend_guard", "action": "hold"},
    {"code": "operator", "action": "hold"},
    {"code": "cancelled", "action": "fail"},
    {"code": "*", "action": "dead_letter"},
)
"""What a careful engineer would choose. Whatever needs a human (a source, a codec, a key, an unknown code, a lost
worker) is a dead letter: nothing of it is gone."""


def parse_routes(rules: Any, where: str = "routes") -> tuple[Route, ...]:
    """Read rules as users write them.

    Raises: SettingsError, one line that names the entry and the key.
    """
    if not isinstance(rules, (list, tuple)):
        raise SettingsError(f"{where} must be a list of rules, not {type(rules).__name__}")
    routes: list[Route] = []
    for at, rule in enumerate(rules):
        try:
            route = rule if isinstance(rule, Route) else Route.model_validate(rule)
        except ValidationError as error:
            raise SettingsError("; ".join(_lines(f"{where}[{at}]", error))) from None
        _refuse_unreachable(routes, at, where)
        routes.append(route)
    return tuple(routes)


def _lines(entry: str, error: ValidationError) -> Iterator[str]:
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        path = "".join(f".{part}" for part in detail["loc"])
        yield f"{entry}{path}: {detail['msg'].removeprefix('Value error, ')}"


def _refuse_unreachable(before: Sequence[Route], at: int, where: str) -> None:
    for earlier, route in enumerate(before):
        takes_all = (route.code, route.kind, route.task, route.account) == ("*", "*", "*", "*")
        if takes_all and route.action in ("dead_letter", "fail"):
            raise SettingsError(f"{where}[{at}] is never reached: {where}[{earlier}] takes everything before it")


_defaults: list[Route] = []


def default_routes() -> tuple[Route, ...]:
    """`DEFAULTS`, parsed when first asked for."""
    if not _defaults:
        _defaults[:] = parse_routes(DEFAULTS, "default routes")
    return tuple(_defaults)


def decide(
    routes: Iterable[Route],
    failure: Failure,
    *,
    attempts: int,
    chance: float,
    max_attempts: int | None = None,
    may_hold: bool = True,
) -> Decision:
    """Find what becomes of a failure.

    ``attempts`` are those made so far, this one too; ``max_attempts`` caps every rule's own (the spend guard).
    ``may_hold`` False: the task has been on hold for as long as it may. Units: ``chance`` is uniform in 0 to 1.
    A default retries no more what a rule of the user's own has retried enough, and so with holds.
    """
    spent: set[Action] = set()
    own = tuple(routes)
    for at, route in enumerate((*own, *default_routes())):
        if not route.matches(failure) or (at >= len(own) and route.action in spent):
            continue
        if route.action == "retry":
            allowed = min(route.max_attempts or MAX_ATTEMPTS, max_attempts or 10**9)
            if attempts < allowed:
                return Retry(_wait_s(route, attempts, chance), route.queue)
        elif route.action == "hold":
            if may_hold:
                return Hold(route.hold_max_s)
        elif route.action == "dead_letter":
            return DeadLetter(route.queue, bool(route.keep_waiting), route.to_json())
        else:
            return Fail()
        spent.add(route.action)
        if route.then is not None:
            then = decide(
                [Route(action=route.then)], failure, attempts=attempts, chance=chance, max_attempts=1, may_hold=may_hold
            )
            return then._replace(route=route.to_json()) if isinstance(then, DeadLetter) else then
    raise AssertionError("the default routes match every code")


def _wait_s(route: Route, attempts: int, chance: float) -> float:
    first_s = route.backoff_s or BACKOFF_S
    return full_jitter_s(
        attempts, chance=chance, first_s=first_s, max_s=route.backoff_max_s or max(first_s, BACKOFF_MAX_S)
    )
