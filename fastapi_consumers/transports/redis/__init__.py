"""Redis or Valkey as transport: over one server, the master that sentinels name, or a cluster."""

from .transport import RedisTransport

__all__ = ["RedisTransport"]
