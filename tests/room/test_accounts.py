"""What every store must do for accounts: stop their submissions, and keep them within a budget."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from framelane_celery.records import Record
from framelane_celery.room import SPENT_S, Hold, Place, Room, SlotClaim, SpendClaim, stored
from framelane_celery.room.inspect import open_store
from framelane_celery.room.rules import Spent, dump_hold, load_hold
from tests.room.steps import Make, Open, in_parallel, put

ACCOUNTS = ("default", "eu:1", "eu:1:2", "a", "ab", "a%b", "a_b", "axb", "ünï", "{x} \\ '\"", "")

RENDER = SlotClaim("render", 3, from_queue=False, account="eu")
NO_CAP = SpendClaim("eu", 1.0, None, None)


def hold_of(room: Room, account: str) -> Hold | None:
    return next((hold for hold in room.holds()[0] if hold.account == account), None)


def spend(room: Room, record: Record, claim: SpendClaim) -> str:
    """Save the record as it is, as often as one likes."""
    read = room.read(record.id)[0]
    assert read is not None
    answer = room.save(read, read, claim=claim)
    after = room.read(record.id)[0]
    assert after == (stored(read, read) if answer == "saved" else read)
    return answer


# --- holds ---


@pytest.mark.parametrize("account", ACCOUNTS)
def test_an_account_on_hold_gets_no_slot_and_all_others_do(room: Room, make_record: Make, account: str) -> None:
    assert SlotClaim("render", 3, from_queue=False).account == "default"
    room.hold(account, "quota_exceeded", "the month's minutes are spent")
    claim = SlotClaim("render", 100, from_queue=False)
    for other in ACCOUNTS:
        old = put(room, make_record(other or "none"))
        answer = room.save(old, replace(old, step=1), claim=claim._replace(account=other))
        assert answer == ("held" if other == account else "saved")
        assert room.read(old.id)[0] == (old if other == account else stored(old, replace(old, step=1)))
    assert [hold.account for hold in room.holds()[0]] == [account]
    assert room.slots_free("render", 100) == 100 - len(ACCOUNTS) + 1  # who is held takes none


def test_a_hold_is_looked_at_before_the_slots_and_after_the_version(room: Room, make_record: Make) -> None:
    old = put(room, make_record())
    room.hold("eu", "operator", "stop")
    room.brake("render", 60)
    assert room.save(old, old, claim=RENDER) == "held"
    assert room.save(old, old, claim=RENDER, token=1) == "not_leader"
    assert room.save(replace(old, version=7), old, claim=RENDER) == "conflict"
    assert room.save(old, old, claim=NO_CAP) == "saved"  # it stops submissions, and nothing else
    assert room.save(stored(old, old), old) == "saved"


def test_a_hold_that_comes_between_read_and_save_is_seen_and_its_end_too(
    room: Room, open_again: Open, make_record: Make
) -> None:
    put(room, make_record())
    read, other = room.read("task-1")[0], open_again()
    assert read is not None
    other.hold("eu", "unauthorized", "no such key")
    assert room.save(read, read, claim=RENDER) == "held"
    assert other.release("eu")
    assert room.save(read, read, claim=RENDER) == "saved"
    other.drop_hold("eu")
    read = stored(read, read)
    assert room.save(read, read, claim=RENDER) == "saved"


def test_a_hold_that_is_on_stays_but_learns_when_it_ends(room: Room, open_again: Open) -> None:
    first = room.hold("eu", "quota_exceeded", "ünï 🎬 \"'\\ %s", None)
    assert first == hold_of(open_again(), "eu") == Hold("eu", "quota_exceeded", "ünï 🎬 \"'\\ %s", first.since, None)
    assert first.is_on
    assert 0 <= room.read("x")[1] - first.since < 60
    assert room.hold("eu", "quota_exceeded", "again") == first
    assert room.hold("eu", "unauthorized", "another", 1e9) == first  # its end is not the first one's
    known = room.hold("eu", "quota_exceeded", "again", 1_900_000_000.123456)
    assert known == first._replace(ends_at=1_900_000_000.123456)
    assert room.hold("eu", "quota_exceeded", "again", None) == known
    later = room.hold("eu", "quota_exceeded", "again", 2e9)
    assert later == first._replace(ends_at=2e9) == hold_of(room, "eu")


@pytest.mark.parametrize("ends_at", [None, 2e9])
def test_an_operators_hold_takes_the_place_of_any_other_and_gives_way_to_none(
    room: Room, ends_at: float | None
) -> None:
    first = room.hold("eu", "quota_exceeded", "spent", 1.9e9)
    mine = room.hold("eu", "operator", "wait for me", ends_at)
    assert mine == Hold("eu", "operator", "wait for me", mine.since, ends_at) == hold_of(room, "eu")
    assert not room.release("eu", since=first.since)  # who saw the first does not end this one
    assert room.hold("eu", "quota_exceeded", "spent", 1.9e9) == mine
    assert room.hold("eu", "operator", "again") == mine
    assert room.hold("eu", "operator", "again", 3e9) == mine._replace(ends_at=3e9)


def test_a_released_hold_stays_to_be_seen_until_it_is_dropped_or_replaced(room: Room) -> None:
    first = room.hold("eu", "quota_exceeded", "spent", 1.9e9)
    room.drop_hold("eu")  # it is on
    assert hold_of(room, "eu") == first
    assert room.release("eu")
    released = hold_of(room, "eu")
    assert released is not None
    assert not released.is_on
    assert released.released_at is not None
    assert released == first._replace(released_at=released.released_at)
    assert first.since <= released.released_at <= room.read("x")[1]
    assert not room.release("eu")  # it is over already
    assert hold_of(room, "eu") == released
    second = room.hold("eu", "quota_exceeded", "spent again")
    assert second == hold_of(room, "eu") == Hold("eu", "quota_exceeded", "spent again", second.since, None)
    assert second.since > first.since
    assert room.release("eu")
    room.drop_hold("eu")
    room.drop_hold("eu")
    assert room.holds()[0] == []
    assert not room.release("eu")
    assert room.holds()[0] == []


def test_who_saw_another_hold_does_not_release_this_one(room: Room) -> None:
    first = room.hold("eu", "quota_exceeded", "spent")
    room.release("eu")
    second = room.hold("eu", "spend_guard", "too much")
    assert not room.release("eu", since=first.since)
    assert hold_of(room, "eu") == second
    assert room.release("eu", since=second.since)
    assert not room.release("eu", since=second.since)


def test_holds_are_sorted_and_come_with_the_clock(room: Room) -> None:
    made = [room.hold(account, "operator", account) for account in ACCOUNTS]
    assert room.release("ab")
    holds, now = room.holds()
    assert [hold.account for hold in holds] == sorted(ACCOUNTS)
    assert {hold._replace(released_at=None) for hold in holds} == set(made)
    assert [hold.account for hold in holds if not hold.is_on] == ["ab"]
    assert 0 <= now - made[-1].since < 60
    assert room.purge() == 0
    assert room.holds()[0] == holds
    for account in ACCOUNTS:
        room.drop_hold(account)
    assert [hold.account for hold in room.holds()[0]] == sorted({*ACCOUNTS} - {"ab"})


def test_of_many_at_once_one_holds_and_one_releases(room: Room, open_again: Open) -> None:
    rooms = [room, open_again()]
    holds = in_parallel(8, lambda n: rooms[n % 2].hold("eu", f"code {n}", "r"))
    assert set(holds) == {hold_of(room, "eu")}
    released = in_parallel(8, lambda n: rooms[n % 2].release("eu", since=holds[0].since))
    assert sorted(released) == [False] * 7 + [True]


def test_a_new_hold_is_never_lost_to_one_who_drops_the_old(room: Room, open_again: Open, make_record: Make) -> None:
    rooms = [room, open_again()]
    old = put(room, make_record())
    for round_ in range(10):
        room.hold("eu", "first", "r")
        room.release("eu")
        in_parallel(2, lambda n, c=f"second {round_}": rooms[0].hold("eu", c, "r") if n else rooms[1].drop_hold("eu"))  # type: ignore[misc]
        hold = hold_of(room, "eu")
        assert hold is not None
        assert (hold.code, hold.is_on) == (f"second {round_}", True)
        assert room.save(old, old, claim=RENDER) == "held"
        room.release("eu")
        room.drop_hold("eu")


def test_a_reason_with_half_a_character_stops_nobody_for_ever(room: Room, make_record: Make) -> None:
    old = put(room, make_record())
    room.hold("eu", "c\ud83c", "half \ud83c and \x00")
    assert room.save(old, old, claim=RENDER) == "held"
    assert room.holds()[0][0].reason == "half ? and \x00"
    assert room.release("eu")
    assert room.save(old, old, claim=RENDER) == "saved"


def test_a_hold_that_a_newer_release_has_written_can_be_read(
    room: Room, store: Any, namespace: str, make_record: Make
) -> None:
    old = put(room, make_record())
    hold = room.hold("eu", "operator", "r")
    store.put_hold(namespace, "eu", dump_hold(hold).replace("{", '{"by": {"name": "x"}, ', 1))
    assert hold_of(room, "eu") == hold
    assert room.save(old, old, claim=RENDER) == "held"
    assert load_hold("eu", '{"code": "c", "reason": "r", "since": 1.5}') == Hold("eu", "c", "r", 1.5, None)


# --- budgets ---


def test_no_more_submissions_than_the_cap(room: Room, make_record: Make) -> None:
    record = put(room, make_record())
    claim = SpendClaim("eu", 0.25, 3, None)
    assert room.spent("eu") == (0, 0.0)
    assert [spend(room, record, claim) for _ in range(5)] == ["saved"] * 3 + ["over_budget"] * 2
    assert room.spent("eu") == (3, 0.75)
    assert spend(room, record, claim._replace(submissions_per_day=4)) == "saved"  # the cap was raised
    assert spend(room, record, claim._replace(submissions_per_day=None)) == "saved"
    assert spend(room, record, claim._replace(submissions_per_day=0)) == "over_budget"
    assert room.spent("eu") == (5, 1.25)


def test_no_more_minutes_than_the_cap(room: Room, make_record: Make) -> None:
    record = put(room, make_record())
    assert spend(room, record, SpendClaim("eu", 10.01, None, 10.0)) == "over_budget"  # alone more than a day's
    assert room.spent("eu") == (0, 0.0)
    assert spend(room, record, SpendClaim("eu", 9.0, None, 10.0)) == "saved"
    assert spend(room, record, SpendClaim("eu", 1.01, None, 10.0)) == "over_budget"
    assert spend(room, record, SpendClaim("eu", 1.0, None, 10.0)) == "saved"  # a smaller one still fits
    assert spend(room, record, SpendClaim("eu", 0.001, None, 10.0)) == "over_budget"
    assert spend(room, record, SpendClaim("eu", 0.0, None, 10.0)) == "saved"
    assert spend(room, record, SpendClaim("eu", 100.0, None, None)) == "saved"
    assert room.spent("eu") == (4, 110.0)


@pytest.mark.parametrize(
    ("minutes", "count", "cap"), [(0.1, 10, 1.0), (1 / 3, 3, 1.0), (1 / 60, 60, 1.0), (1.1, 3, 3.3)]
)
def test_what_fits_on_paper_fits(room: Room, make_record: Make, minutes: float, count: int, cap: float) -> None:
    record = put(room, make_record())
    answers = [spend(room, record, SpendClaim("eu", minutes, None, cap)) for _ in range(count + 1)]
    assert answers == ["saved"] * count + ["over_budget"]
    expected = Spent()
    for _ in range(count):
        expected = Spent(expected.submissions + 1, expected.minutes + minutes)
    assert room.spent("eu") == expected  # to the last digit, in every store


def test_what_is_not_written_is_not_counted(room: Room, make_record: Make) -> None:
    old = put(room, make_record())
    assert room.save(replace(old, version=7), old, claim=NO_CAP) == "conflict"
    assert room.save(old, old, claim=NO_CAP, token=1) == "not_leader"
    ghost = make_record("ghost")
    assert room.save(ghost, ghost, claim=NO_CAP) == "conflict"
    assert room.save(old, old, claim=RENDER) == "saved"  # a slot is no submission yet
    assert room.spent("eu") == (0, 0.0)
    assert room.slots_free("render", 3) == 2


def test_the_last_unit_of_a_budget_is_given_once(room: Room, open_again: Open, make_record: Make) -> None:
    rooms = [room, open_again()]
    for account, claim in (("s", SpendClaim("s", 1.0, 3, None)), ("m", SpendClaim("m", 1.0, None, 3.5))):
        mine = [put(room, make_record(f"{account}{n}")) for n in range(8)]
        assert [room.save(record, record, claim=claim) for record in mine[:2]] == ["saved"] * 2
        answers = in_parallel(6, lambda n, m=mine, c=claim: rooms[n % 2].save(m[n + 2], m[n + 2], claim=c))  # type: ignore[misc]
        assert sorted(answers) == ["over_budget"] * 5 + ["saved"]
        assert room.spent(account) == (3, 3.0)


def test_of_many_who_spend_for_one_record_one_is_counted(room: Room, open_again: Open, make_record: Make) -> None:
    rooms, old = [room, open_again()], put(room, make_record())
    answers = in_parallel(8, lambda n: rooms[n % 2].save(old, replace(old, step=n + 1), claim=NO_CAP))
    assert sorted(answers) == ["conflict"] * 7 + ["saved"]
    assert room.spent("eu") == (1, 1.0)


def test_each_account_has_a_budget_of_its_own(room: Room, make_record: Make) -> None:
    record = put(room, make_record())
    for n, account in enumerate(ACCOUNTS):
        assert spend(room, record, SpendClaim(account, n + 0.5, 1, None)) == "saved"
        assert spend(room, record, SpendClaim(account, n + 0.5, 1, None)) == "over_budget"
    assert [room.spent(account) for account in ACCOUNTS] == [(1, n + 0.5) for n in range(len(ACCOUNTS))]
    assert room.spent("nobody") == (0, 0.0)


def test_a_new_day_has_a_new_budget_and_the_old_one_is_forgotten(
    room: Room, store: Any, namespace: str, make_record: Make
) -> None:
    record = put(room, make_record())
    claim = SpendClaim("eu:1", 1.0, 1, None)
    before = room.read("x")[1]
    assert [spend(room, record, claim) for _ in range(2)] == ["saved", "over_budget"]
    days = {datetime.fromtimestamp(at, timezone.utc).toordinal() - 719163 for at in (before, room.read("x")[1])}
    assert set(store.spent_days(namespace)) <= days  # of 1970, UTC
    store.end_day(namespace)
    assert room.spent("eu:1") == (0, 0.0)
    assert [spend(room, record, claim) for _ in range(2)] == ["saved", "over_budget"]
    assert store.spent_lives_s(namespace) == [pytest.approx(SPENT_S, abs=30)] * 2
    assert SPENT_S == 3 * 24 * 3600
    room.hold("eu:1", "operator", "r")
    room.purge()
    assert room.spent("eu:1") == (1, 1.0)
    if store.name != "redis":  # which ends lives by itself
        store.end_spent_lives(namespace)
        room.purge()
        assert store.spent_lives_s(namespace) == []
        assert room.spent("eu:1") == (0, 0.0)
        assert len(room.holds()[0]) == 1


# --- lanes, and slots of an account's own ---


def test_each_account_has_a_lane_of_its_own_for_its_looks(room: Room, make_record: Make) -> None:
    for account in ("default", "eu", "us"):
        put(room, make_record(account, until="job", due_at=1.0, account=account, job_id=f"render_{account}"))
    lanes = {lane: [one.id for one in room.due(lane, 9, lean=True)[0]] for lane in ("look", "look:eu", "look:us")}
    assert lanes == {"look": ["default"], "look:eu": ["eu"], "look:us": ["us"]}
    assert [one.account for one in room.scan("look:eu")] == ["eu"]
    token = room.lead("w", 60)
    assert token is not None
    eu = room.read("eu")[0]
    assert eu is not None
    room.put_off("look:eu", [Place("eu", eu.version, 9e9)], token)
    assert room.due("look:eu", 9)[0] == []
    assert room.task_of("render_eu") == "eu"  # whatever the account: a webhook does not say whose it is
    done = replace(eu, due_at=None, until="done", step=1)
    assert room.save(eu, done) == "saved"
    assert (room.waiting("look:eu"), room.waiting("look")) == (0, 1)


def test_a_bucket_of_its_own_has_slots_a_queue_and_a_brake_of_its_own(room: Room, make_record: Make) -> None:
    shared, own = SlotClaim("render", 1, from_queue=False), SlotClaim("render:eu", 1, from_queue=False, account="eu")
    old = put(room, make_record())
    assert room.save(old, old, claim=shared) == "saved"
    old = stored(old, old)
    assert room.save(old, old, claim=shared) == "no_slot"
    assert room.save(old, old, claim=own) == "saved"
    old = stored(old, old)
    assert room.save(old, old, claim=own) == "no_slot"
    queued = {"until": "slot", "due_at": 1.0, "queued_at": 1.0, "job_kind": "render", "account": "eu"}
    put(room, make_record("queued", **queued, bucket="render:eu"))
    assert [room.waiting(lane) for lane in ("slot:render", "slot:render:eu")] == [0, 1]
    assert room.save(old, old, claim=own._replace(per_minute=9)) == "no_slot"  # who waits is first
    assert room.save(old, old, claim=own._replace(per_minute=9, from_queue=True)) == "saved"
    old = stored(old, old)
    assert room.save(old, old, claim=shared._replace(per_minute=9)) == "saved"
    room.brake("render:eu", 60)
    assert (room.slots_free("render:eu", 9), room.slots_free("render", 9) > 0) == (0, True)


def test_the_looks_of_all_accounts_are_told_together(room: Room, store: Any, namespace: str, make_record: Make) -> None:
    now = room.read("x")[1]
    for n, account in enumerate(("default", "eu", "eu", "us")):
        put(room, make_record(f"{n}", until="job", due_at=now - 100 * n, account=account, job_id=f"render_{n}"))
    for accounts, records, overdue, first in (((), 1, 0, 0), (("eu",), 3, 2, 2), (("eu", "us"), 4, 3, 3)):
        asked = open_store(store.url, namespace, accounts=accounts)
        look = asked.state().lanes["look"]
        asked.close()
        assert (look.records, look.overdue) == (records, overdue)
        assert look.first_due_at == pytest.approx(now - 100 * first)


def test_a_record_of_a_named_account_comes_back_as_it_went_in(room: Room, make_record: Make) -> None:
    record = put(room, make_record(account="eu", until="job", due_at=1.0))
    assert room.read(record.id)[0] == record
    assert record.unread is None
