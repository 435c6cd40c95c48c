"""Class-based real-time consumers for FastAPI."""

from .app import add_consumers
from .consumers import Consumer, GroupConsumer, JSONConsumer, PersonConsumer, RelayConsumer
from .event_models import event_model
from .exceptions import (
    AcceptConnection,
    ActionDeprecated,
    ActionDisabled,
    ActionNotFound,
    ActionTimeout,
    BrokerUnavailable,
    Cancelled,
    ConsumerError,
    DenyConnection,
    GroupFull,
    HistoryUnavailable,
    HTTPError,
    ImproperlyConfigured,
    InternalError,
    InvalidCursor,
    InvalidData,
    InvalidFrame,
    InvalidGroup,
    InvalidPage,
    MessageTooBig,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    StopConsumer,
    Throttled,
    TooManyGroups,
)
from .finding import get_consumers
from .groups import group_name
from .marks import action, cron, event, every
from .messages import Position
from .pagination import CursorPagination, LimitOffsetPagination, PageNumberPagination
from .publisher import Publisher
from .routing import add_routes, path
from .runtime import Consumers
from .sync_publisher import SyncPublisher

__all__ = [
    "AcceptConnection",
    "ActionDeprecated",
    "ActionDisabled",
    "ActionNotFound",
    "ActionTimeout",
    "BrokerUnavailable",
    "Cancelled",
    "Consumer",
    "ConsumerError",
    "Consumers",
    "CursorPagination",
    "DenyConnection",
    "GroupConsumer",
    "GroupFull",
    "HTTPError",
    "HistoryUnavailable",
    "ImproperlyConfigured",
    "InternalError",
    "InvalidCursor",
    "InvalidData",
    "InvalidFrame",
    "InvalidGroup",
    "InvalidPage",
    "JSONConsumer",
    "LimitOffsetPagination",
    "MessageTooBig",
    "NotAuthenticated",
    "NotFound",
    "PageNumberPagination",
    "PermissionDenied",
    "PersonConsumer",
    "Position",
    "Publisher",
    "RelayConsumer",
    "StopConsumer",
    "SyncPublisher",
    "Throttled",
    "TooManyGroups",
    "action",
    "add_consumers",
    "add_routes",
    "cron",
    "event",
    "event_model",
    "every",
    "get_consumers",
    "group_name",
    "path",
]
