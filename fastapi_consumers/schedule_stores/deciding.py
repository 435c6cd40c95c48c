"""What becomes of a claim: the rules, for stores that have no script of their own to follow them in."""

from dataclasses import dataclass

from .base import ATTEMPTS, Answer, Claim, Result

#: In place of when a lease runs out.
GIVEN_BACK = 1


@dataclass(slots=True)
class Unit:
    """What a store keeps of a unit. Times are milliseconds.

    ``until``: when the lease of who runs it runs out; 0 if nobody does, :data:`GIVEN_BACK` if another process may.
    """

    tick: int = 0
    until: int = 0
    token: str = ""
    process: str = ""
    since: int = 0
    attempt: int = 0
    #: The last request for a run, and whether the one that is held is for it.
    manual: str = ""
    is_manual: bool = False


@dataclass(slots=True)
class Counted:
    """What is to be counted for the schedule."""

    missed: int = 0
    lost: int = 0
    #: The process that was lost last.
    lost_process: str = ""


def decide(unit: Unit, baseline: int, claim: Claim, now: int, counted: Counted) -> Answer:
    """Answer a claim for a schedule that is there and not paused, and change the unit accordingly."""
    is_held, left = unit.until > now, (unit.until - now) / 1000
    if is_held and unit.token == claim.token:
        return Answer("granted", unit.attempt, unit.tick)  # The first answer did not arrive.
    previous = max(unit.tick, baseline)
    if claim.manual:
        if unit.manual == claim.manual:
            return Answer("done")
        if is_held:
            return Answer("running", left=left)
        _count_lost(unit, counted)
        unit.manual = claim.manual
        return _grant(unit, claim, now, 1, previous)
    if claim.tick == unit.tick > baseline and unit.until and not unit.is_manual:
        if is_held:
            return Answer("running", left=left)
        _count_lost(unit, counted)
        if claim.take_over and unit.attempt < ATTEMPTS:
            return _grant(unit, claim, now, unit.attempt + 1, previous)
        unit.until = 0
        return Answer("done")
    if claim.tick <= previous or claim.only_lost:
        return Answer("done")
    if is_held:
        unit.tick = claim.tick
        counted.missed += 1
        return Answer("overlap", left=left)
    _count_lost(unit, counted)
    unit.tick = claim.tick
    return _grant(unit, claim, now, 1, previous)


def close(unit: Unit, result: Result) -> None:
    """Who held the unit has finished."""
    unit.until = GIVEN_BACK if result.give_back and not unit.is_manual else 0
    unit.token = ""


def _count_lost(unit: Unit, counted: Counted) -> None:
    if unit.until > GIVEN_BACK:
        counted.lost += 1
        counted.lost_process = unit.process


def _grant(unit: Unit, claim: Claim, now: int, attempt: int, previous: int) -> Answer:
    unit.until = now + round(claim.lease * 1000)
    unit.token, unit.process, unit.since, unit.attempt = claim.token, claim.process, now, attempt
    unit.is_manual = bool(claim.manual)
    return Answer("granted", attempt, previous)
