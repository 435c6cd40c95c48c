"""A client of Redis or Valkey, shared by all that use it: bounded in connections, and in time.

There is one server, or one that Sentinel names, or a cluster; who runs commands need not know which. URLs are explained
in :mod:`.urls`.
"""

from .client import RedisClient
from .lua import NOW
from .servers import FAILURES, Node
from .urls import DEFAULT_PREFIX, SCHEMES, safe_url

__all__ = ["DEFAULT_PREFIX", "FAILURES", "NOW", "SCHEMES", "Node", "RedisClient", "safe_url"]
