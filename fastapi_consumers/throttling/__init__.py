"""How often a client may do this: rates, where requests are counted, and who is counted together.

::

    throttle_classes = ["20/second; 600/minute"]            # by user, otherwise by address
    throttle_classes = [ConnectionRateThrottle("5/second")]
    @app.get("/search", dependencies=[Depends(RateLimit("2/5 seconds"))])

A rate of ``N/unit`` is a bucket of N tokens that fills evenly within one unit: N requests may come at once, after
that one for each Nth of the unit. A refused request takes nothing. This is so in memory and on Redis alike.
"""

from .base import (
    AddressRateThrottle,
    BaseThrottle,
    ConnectionRateThrottle,
    GroupRateThrottle,
    RateThrottle,
    UserRateThrottle,
    check_throttles,
    compile_throttles,
    throttle_of,
)
from .http import RateLimit
from .memory import TokenBuckets
from .rates import Buckets, Rate, parse_rate
from .redis import FAILURE_MODES, FailureMode, RedisBuckets
from .refusals import Refusals

__all__ = [
    "FAILURE_MODES",
    "AddressRateThrottle",
    "BaseThrottle",
    "Buckets",
    "ConnectionRateThrottle",
    "FailureMode",
    "GroupRateThrottle",
    "Rate",
    "RateLimit",
    "RateThrottle",
    "RedisBuckets",
    "Refusals",
    "TokenBuckets",
    "UserRateThrottle",
    "check_throttles",
    "compile_throttles",
    "parse_rate",
    "throttle_of",
]
