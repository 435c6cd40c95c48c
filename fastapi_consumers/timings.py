"""When a schedule is due: every so often, or as a line of cron says. Arithmetic only; nothing here waits.

A moment at which something is due is a *tick*: whole milliseconds since 1970. All processes compute the same ticks,
whenever they were started, so a tick is also the name of what is done once.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from .exceptions import Problem

#: Bounds of an interval, in seconds.
MIN_INTERVAL, MAX_INTERVAL = 1.0, 366 * 86400.0
#: Longest line of cron, in characters.
MAX_CRON = 256

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_INTERVAL = re.compile(r"\s*(\d{1,9}(?:\.\d{1,3})?)\s*([smhd])")
_INTERVALS = 'seconds, a timedelta, or text such as "30s", "5m" or "1h30m"; from 1 s to 366 days'
_CRON = 'five fields, as in "0 9 * * 1-5": minute, hour, day of the month, month, day of the week'


class BadTiming(ValueError):
    """It says nothing about when. ``problem`` tells what is wrong; where, is for who asked to say."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(f"{problem.found}; expected {problem.expected}")


class Timing(ABC):
    """When something is due."""

    @abstractmethod
    def after(self, moment: int) -> int:
        """The first tick after ``moment``."""

    @abstractmethod
    def latest(self, since: int, until: int) -> int | None:
        """The last tick with ``since < tick <= until``, which should not be far apart; ``None`` if there is none."""

    @abstractmethod
    def between(self, since: int, until: int) -> Iterator[int]:
        """How many ticks there are with ``since < tick < until``, in parts: a caller may take a break after each."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What :func:`timing_of` makes the same of again, in JSON."""


class Every(Timing):
    """Every so many seconds, at the multiples of the interval since 1970, in UTC: every hour is at the full hour.

    Raises ``BadTiming``.
    """

    def __init__(self, interval: float | str | timedelta) -> None:
        self._step = _milliseconds(interval)

    def __repr__(self) -> str:
        return f"every {self._step / 1000:g} s"

    def after(self, moment: int) -> int:
        return (moment // self._step + 1) * self._step

    def latest(self, since: int, until: int) -> int | None:
        tick = until // self._step * self._step
        return tick if tick > since else None

    def between(self, since: int, until: int) -> Iterator[int]:
        yield max(0, (until - 1) // self._step - since // self._step)

    def to_dict(self) -> dict[str, Any]:
        return {"every": self._step / 1000}


class Cron(Timing):
    """As a line of cron says, read as Debian's cron reads it, in a time zone.

    What names hours and minutes runs once on each day: at the first of two equal times when clocks are set back, and
    right after the gap if its time is skipped when they are set forward. With ``*`` as hour or minute it follows the
    time that passes: in both of two equal hours, and not in one that there is none of.

    Args:
        text: five fields; six if the first is for seconds.
        tz: a name such as ``Europe/Berlin``, or a ``ZoneInfo``.

    Raises ``BadTiming``, also if ``cronsim`` is not installed, which the extra ``schedules`` brings.
    """

    #: Ticks that are counted in one part.
    PART = 100

    def __init__(self, text: str, tz: str | ZoneInfo = "UTC") -> None:
        self._zone = _zone(tz)
        self._text = _checked(text)
        try:
            self.after(0)
        except StopIteration:
            found, fix = f"{text!r}, which is never", "mend the day and the month"
            raise BadTiming(Problem("bad-cron", "", found, "times that come", fix)) from None
        except Exception as error:  # The library asserts things too.
            raise BadTiming(Problem("bad-cron", "", f"{text!r} ({error})", _CRON, "mend the field")) from None

    def __repr__(self) -> str:
        return f"cron {self._text!r} in {self._zone.key}"

    def _ticks(self, after: int) -> Iterator[int]:
        from cronsim import CronSim

        begin = datetime.fromtimestamp(after // 1000, self._zone)
        ticks = CronSim(self._text, begin)
        last = after
        while True:
            tick = int(next(ticks).timestamp()) * 1000
            # In the second of two equal hours it names times of the first; two in a gap are one after it.
            if tick > last:
                last = tick
                yield tick

    def after(self, moment: int) -> int:
        return _next(self._ticks(moment))

    def latest(self, since: int, until: int) -> int | None:
        found = None
        for tick in self._ticks(since):
            if tick > until:
                break
            found = tick
        return found

    def between(self, since: int, until: int) -> Iterator[int]:
        ticks = self._ticks(since)
        while True:
            part = [tick for tick in islice(ticks, self.PART) if tick < until]
            yield len(part)
            if len(part) < self.PART:
                return

    def to_dict(self) -> dict[str, Any]:
        return {"cron": self._text, "tz": self._zone.key}


def timing_of(found: Mapping[str, Any]) -> Timing:
    """What ``to_dict`` returned, as a timing again. Raises ``BadTiming``, and ``KeyError`` for another dict."""
    return Every(found["every"]) if "every" in found else Cron(found["cron"], found["tz"])


def _milliseconds(interval: object) -> int:
    seconds: float | None = None
    if isinstance(interval, timedelta):
        seconds = interval.total_seconds()
    elif isinstance(interval, str):
        parts = _INTERVAL.findall(interval)
        if parts and not _INTERVAL.sub("", interval).strip():
            seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    elif isinstance(interval, int | float) and not isinstance(interval, bool):
        seconds = interval
    if seconds is None or not MIN_INTERVAL <= seconds <= MAX_INTERVAL:  # False for nan too.
        raise BadTiming(Problem("bad-interval", "", repr(interval), _INTERVALS, 'write @every("30s")'))
    return round(seconds * 1000)


def _zone(tz: object) -> ZoneInfo:
    if isinstance(tz, ZoneInfo) and isinstance(getattr(tz, "key", None), str):
        return tz
    try:
        if isinstance(tz, str):
            return ZoneInfo(tz)
    except (ValueError, OSError, KeyError):  # A name may be a path too, of a folder or of something else.
        pass
    expected = 'the name of a time zone, such as "Europe/Berlin" or "UTC"'
    fix = "check its spelling; where the system has no time zones: pip install tzdata"
    raise BadTiming(Problem("unknown-time-zone", "", f"tz={tz!r}", expected, fix))


def _checked(text: object) -> str:
    if not isinstance(text, str) or len(text) > MAX_CRON or len(text.split()) not in (5, 6):
        raise BadTiming(Problem("bad-cron", "", f"{text!r:.300}", _CRON, 'write @cron("0 9 * * 1-5")'))
    try:
        import cronsim  # noqa: F401 -- whether it is there; where it is read, it is imported again
    except ModuleNotFoundError:
        fix = "pip install 'fastapi-consumers[schedules]'"
        raise BadTiming(Problem("missing-extra", "", "cronsim is not installed", "the extra schedules", fix)) from None
    return " ".join(text.split())


def _next(ticks: Iterator[int]) -> int:
    try:
        return next(ticks)
    except RuntimeError as error:
        # A generator cannot let StopIteration pass; it means that no time comes within fifty years.
        if isinstance(error.__cause__, StopIteration):
            raise error.__cause__ from None
        raise
