"""What users subclass."""

from .base import Consumer, ConsumerApp
from .group import GroupConsumer, PersonConsumer, RelayConsumer
from .json import JSONConsumer

__all__ = ["Consumer", "ConsumerApp", "GroupConsumer", "JSONConsumer", "PersonConsumer", "RelayConsumer"]
