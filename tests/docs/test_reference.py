"""The reference says what the code says: some of its pages are made from it, the others are held against it."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields
from typing import Any, get_args

import pytest

import framelane_celery
from framelane_celery import errors, models, routing, testing
from framelane_celery.monitoring import progress_meta
from framelane_celery.monitoring.transitions import KNOWN_CODES
from framelane_celery.records import FORMAT, Outcome, Record, Until
from framelane_celery.room import database, redis
from framelane_celery.routing import Failure, Route, decide
from framelane_celery.settings import _ENVIRONMENT, FramelaneSettings, SpendGuard
from scripts import reference
from tests.docs.pages import ROOT

FOLDER = ROOT / "docs" / "reference"
ACTIONS = {"Retry": "retry", "Hold": "hold", "DeadLetter": "dead_letter", "Fail": "fail"}


def page(name: str) -> str:
    return (FOLDER / name).read_text()


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The table below a heading: the cells behind the first one, by the first one's names."""
    table = text.split(f"\n{heading}\n")[1].split("\n#")[0]
    found = {}
    for line in re.findall(r"^\| (`.*) \|$", table, re.MULTILINE):
        first, *others = (cell.strip() for cell in re.split(r"(?<!\\)\|", line))
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", first), others)
    return found


@pytest.mark.parametrize("name", sorted(reference.pages()))
def test_what_is_made_from_the_code_is_as_the_code_is_now(name: str) -> None:
    assert page(name) == reference.pages()[name], "run: make reference"


# --- settings ----------------------------------------------------------------------------------------------------

OF_SETTINGS = {
    **rows(page("settings.md"), "## Who we are"),
    **rows(page("settings.md"), "## Calls to the API"),
    **rows(page("settings.md"), "## How long, and what then"),
    **rows(page("settings.md"), "## Workers"),
}


def test_every_setting_has_its_row_and_no_other() -> None:
    assert OF_SETTINGS.keys() == FramelaneSettings.model_fields.keys()


@pytest.mark.parametrize("key", FramelaneSettings.model_fields)
def test_the_default_of_a_setting(key: str) -> None:
    default = FramelaneSettings.model_fields[key].get_default(call_default_factory=True)
    type_, shown, _ = OF_SETTINGS[key]
    if default in (None, (), {}) or isinstance(default, SpendGuard):
        assert not shown.startswith("`") or shown == "`<namespace>.dead`"  # in words: it is made of something else
    else:
        assert shown == f"`{default}`"
    assert (type_.split(",")[0] == "yes or no") == isinstance(default, bool)
    assert (type_.split(",")[0] == "seconds") == key.endswith("_s")


def test_the_variables_of_the_environment() -> None:
    named = {
        variable: cells[0].split("`")[1]
        for variable, cells in rows(page("settings.md"), "## From the environment").items()
    }
    assert named == {variable: key for key, variable in _ENVIRONMENT.items()}


def test_the_keys_of_a_route_and_with_which_action_they_go() -> None:
    table = rows(page("settings.md"), "## `routes`")
    assert table.keys() == Route.model_fields.keys()
    for key, (_, goes_with, default, _) in table.items():
        assert tuple(re.findall(r"`(\w+)`", goes_with)) == routing._ONLY_WITH.get(key, ())
        known = {
            "max_attempts": routing.MAX_ATTEMPTS,
            "backoff_s": routing.BACKOFF_S,
            "backoff_max_s": routing.BACKOFF_MAX_S,
        }
        if key in known:
            assert float(default) == known[key]
        elif key in ("code", "kind", "task", "account"):
            assert default == f"`{Route.model_fields[key].default}`"


def test_the_caps_of_the_spend_guard() -> None:
    assert rows(page("settings.md"), "## `spend_guard`").keys() == SpendGuard.model_fields.keys()


# --- errors ------------------------------------------------------------------------------------------------------


def action_of(code: str) -> str:
    decision = decide((), Failure(code, "render", "t"), attempts=1, chance=0.5)
    return ACTIONS[type(decision).__name__]


def test_every_code_of_the_api_with_its_class_its_status_and_its_route() -> None:
    table = rows(page("errors.md"), "## Codes of the API")
    assert table.keys() == errors.CODE_TO_ERROR.keys()
    for code, (status, kind, action, _) in table.items():
        known = errors.CODE_TO_ERROR[code]
        assert (kind, action) == (f"`{known.__name__}`", action_of(code))
        by_class = re.match(r"(\d{3})(?:,? or (\d{3}))?:", known.__doc__ or "")
        assert re.findall(r"\d{3}", status) == ([code for code in by_class.groups() if code] if by_class else ["500"])


def test_every_code_of_our_own_with_its_route() -> None:
    table = rows(page("errors.md"), "## Codes of our own")
    assert KNOWN_CODES - errors.CODE_TO_ERROR.keys() <= table.keys()
    for code, (kind, action, _) in table.items():
        assert action == action_of(code)
        assert not kind or issubclass(getattr(errors, kind.strip("`")), errors.FramelaneError)


def test_the_default_routes() -> None:
    table = rows(page("errors.md"), "## The default routes")
    assert {code: cells[0] for code, cells in table.items()} == {
        str(route["code"]): route["action"] for route in routing.DEFAULTS if route["code"] != "*"
    }
    assert "| every other one | dead_letter |" in page("errors.md")
    assert action_of("never seen") == "dead_letter"


def test_every_class_with_its_fields() -> None:
    table = rows(page("errors.md"), "## Classes")
    ours = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
        and issubclass(kind, errors.FramelaneError)
        and kind not in errors.CODE_TO_ERROR.values()
    }
    assert table.keys() == ours.keys()
    for name, (of_row, _) in table.items():
        code = ours[name].__init__.__code__
        names = code.co_varnames[2 : code.co_argcount]
        assert tuple(re.findall(r"`(\w+)`", of_row)) == names


# --- records -----------------------------------------------------------------------------------------------------


def test_every_field_of_a_record_with_its_default() -> None:
    table = rows(page("records.md"), "## Fields")
    assert list(table) == [field.name for field in fields(Record)]
    for field in fields(Record):
        default = "" if field.default is MISSING else f"`{field.default}`"
        assert table[field.name][0] == default, field.name


def test_every_state_and_outcome() -> None:
    assert rows(page("records.md"), "## `until`: what a record waits for").keys() == set(get_args(Until))
    assert re.findall(r"`(\w+)`", rows(page("records.md"), "## Fields")["outcome"][1]) == list(get_args(Outcome))
    assert f"\nFormat {FORMAT}." in page("records.md")


def test_every_key_and_table_of_the_room() -> None:
    used = set(re.findall(r'_key\("(\w+)"', inspect.getsource(redis)))
    assert {key.partition(":")[0] for key in rows(page("records.md"), "## On Redis")} >= used
    assert rows(page("records.md"), "## In SQL").keys() == database.metadata.tables.keys()


def test_the_meta_of_a_task_that_waits() -> None:
    record = Record(id="t1", task="t", call="", digest="")
    assert re.findall(r"`(\w+)`", page("records.md").split("with this meta:")[1]) == list(progress_meta(record))


# --- Python ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [framelane_celery, models, testing], ids=lambda module: module.__name__)
def test_every_public_name_is_on_the_page(module: Any) -> None:
    told = set(re.findall(r"auto\w+:: (?:[\w.]+\.)?(\w+)", page("python.md")))
    told |= set(re.findall(r"\w+", " ".join(re.findall(r":members: (.+)", page("python.md")))))
    bases = {"JobRequest", "MediaRequest", "WireModel"}  # of the requests; nobody makes one
    assert set(module.__all__) - told - bases == set()
