"""How long a credential is good for, and by what name it can be revoked."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from ..exceptions import NotAuthenticated
from ..texts import gettext_lazy as _

#: Longest ``token_id``, in characters.
MAX_TOKEN_ID = 1024


@dataclass(frozen=True, slots=True)
class Credential:
    """What an authentication may return as ``auth``, where the credential ends by itself or can be revoked.

    Any object with these attributes serves as well, such as a row of a table of tokens; one that is missing is
    ``None``. It need not hold the token itself, and should not.

    Args:
        expires_at: when it ends, in seconds since 1970 or as a ``datetime`` with a time zone; ``None`` for never.
            The socket closes with 4401 ``authentication_grace`` seconds later, unless it was refreshed.
        token_id: names it for ``consumers.revoke(token_id)``. It is no secret.
        claims: what else the credential says.
    """

    expires_at: float | datetime | None = None
    token_id: str | None = None
    # Not shown: what a token says of people does not belong into logs.
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Lifetime(NamedTuple):
    """``expires_at`` in seconds since 1970, and ``token_id``; each ``None`` where there is none."""

    expires_at: float | None = None
    token_id: str | None = None


def lifetime_of(auth: Any, clock: Callable[[], float] = time.time) -> Lifetime:
    """The lifetime that an ``auth`` names by its attributes ``expires_at`` and ``token_id``.

    Raises:
        NotAuthenticated: it has ended already, with the code ``expired``.
        TypeError: an attribute is of another type than :class:`Credential` has.
    """
    expires_at, token_id = _seconds(getattr(auth, "expires_at", None)), getattr(auth, "token_id", None)
    if token_id is not None and not (isinstance(token_id, str) and 0 < len(token_id) <= MAX_TOKEN_ID):
        raise TypeError(
            f"auth.token_id is a {type(token_id).__qualname__}; expected text of 1 to {MAX_TOKEN_ID} characters, or "
            "None. Convert it: str(token.id)"
        )
    if expires_at is not None and expires_at <= clock():
        raise expired()
    return Lifetime(expires_at, token_id)


def expired() -> NotAuthenticated:
    """The refusal of a credential that was good once."""
    return NotAuthenticated(_("The credential has expired."), code="expired")


def invalid() -> NotAuthenticated:
    """The refusal of a credential that says nothing about what is wrong with it, so that nobody learns from it."""
    return NotAuthenticated(_("The credential is not valid."), code="invalid_token")


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.timestamp()
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:  # not NaN
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf if value > 0 else -math.inf
        # Later than any clock shows is never.
        return None if seconds == math.inf else seconds
    found = "a datetime without a time zone" if isinstance(value, datetime) else f"a {type(value).__qualname__}"
    raise TypeError(
        f"auth.expires_at is {found}; expected seconds since 1970, a datetime with a time zone, or None. "
        "Write: expires_at=token.expires_at.replace(tzinfo=UTC)"
    )
