"""How often: rates as text, and what counts by them."""

import re
from collections.abc import Awaitable, Hashable, Iterable
from typing import NamedTuple, Protocol

_UNITS = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400}
_UNITS |= {"seconds": 1, "minutes": 60, "hours": 3600, "day": 86400, "days": 86400}
_RATE = re.compile(r"([0-9]+)\s*/\s*(?:([0-9]+(?:\.[0-9]+)?)\s*)?([a-z]+)", re.IGNORECASE)


class Rate(NamedTuple):
    """``count`` requests in ``seconds``."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody asks of a rate
    seconds: float


def parse_rate(rate: str) -> tuple[Rate, ...]:
    """The windows of ``"N/unit"`` or ``"N/K unit"``, several joined by ``;``, all of which are to hold.

    Units are ``second``, ``sec``, ``s``; ``minute``, ``min``, ``m``; ``hour``, ``h``; ``day``, ``d``; the full words
    also in plural.

    >>> parse_rate("20/second; 2/1.5 hours")
    (Rate(count=20, seconds=1.0), Rate(count=2, seconds=5400.0))

    Raises:
        ValueError: the text is no rate.
    """
    return tuple([_window(part.strip(), rate) for part in rate.split(";")])


def _window(part: str, rate: str) -> Rate:
    match = _RATE.fullmatch(part)
    if match is None:
        problem = f"{part!r} is not N/unit" if part else "a part of it is empty"
    else:
        count, factor, unit = match.groups()
        seconds = float(factor or 1) * _UNITS.get(unit.lower(), 0)
        if unit.lower() not in _UNITS:
            problem = f"there is no unit {unit!r}"
        elif int(count) < 1:
            problem = f"{part!r} would allow nothing"
        elif not 0 < seconds < float("inf"):
            problem = f"{part!r} has no length of time"
        else:
            return Rate(int(count), seconds)
    raise ValueError(
        f"{rate!r} is no rate: {problem}. Expected N/unit or N/K unit, several joined by ';', with N at least 1 and "
        "second, minute, hour or day as unit, for example '20/second; 600/10 minutes'."
    )


def is_too_much(cost: float, rates: tuple[Rate, ...]) -> bool:
    """Whether a bucket of one of the rates does not even hold this many tokens when it is full."""
    return any(cost > count for count, _ in rates)


class Buckets(Protocol):
    """Where requests are counted: :class:`TokenBuckets` in memory, :class:`RedisBuckets` for many processes."""

    def hit(self, key: Hashable, rates: tuple[Rate, ...], cost: float = 1) -> float | Awaitable[float]:
        """Take ``cost`` tokens under ``key``: 0.0 when all ``rates`` allow it, else the seconds until they do.

        All or nothing: a request that one of the rates refuses is counted by none. ``inf`` for a cost that is more than
        one of the rates ever allows at once.
        """

    def peek(self, key: Hashable, rates: tuple[Rate, ...], cost: float = 1) -> float | Awaitable[float]:
        """What :meth:`hit` would answer. Takes nothing."""

    def hit_each(
        self, scope: Hashable, idents: Iterable[Hashable], rates: tuple[Rate, ...], cost: float = 1
    ) -> float | Awaitable[float]:
        """Take ``cost`` tokens of each of ``idents``, which differ, or of none: 0.0, else the longest wait of them.

        An identity that is counted so is counted by :meth:`hit` by itself, where buckets are spread over many servers.
        """


def checked_cost(cost: float, owner: object) -> float:
    """``cost`` if it is a number, 0 or more. Raises ``TypeError``; ``ValueError`` for what would give tokens back."""
    if isinstance(cost, bool) or not isinstance(cost, int | float):
        raise TypeError(f"the cost of {owner!r} is {cost!r}; expected a number, 0 or more")
    if not cost >= 0:
        raise ValueError(f"the cost of {owner!r} is {cost!r}; expected 0 or more")
    return cost
