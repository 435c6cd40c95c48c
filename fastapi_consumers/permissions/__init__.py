"""May this client do this? Permissions, sync or async, and their expressions of ``&``, ``|`` and ``~``.

::

    class IsOwner(BasePermission):
        message = "Only the owner may do this."

        async def has_permission(self, consumer, action=None):
            return await owns(consumer.user, consumer.path_params["room"])

    permission_classes = [IsAuthenticated & (IsOwner | IsModerator) & ~IsBanned]

Whatever is not clearly a yes is a no: ``None`` refuses, and a result that can only be a slip of the pen (a method
that was not called, an exception that was not raised) is a ``TypeError`` rather than true.
"""

from .checking import (
    asked_about,
    asked_at_all,
    check_about,
    check_permissions,
    compile_permissions,
    depends_on_action,
    is_delivered,
)
from .classes import IsAuthenticated
from .composition import AllowAny, And, BasePermission, DenyAny, Not, Or, PermissionMeta, permission_of
from .conditions import About
from .delivery import Delivery

__all__ = [
    "About",
    "AllowAny",
    "And",
    "BasePermission",
    "Delivery",
    "DenyAny",
    "IsAuthenticated",
    "Not",
    "Or",
    "PermissionMeta",
    "asked_about",
    "asked_at_all",
    "check_about",
    "check_permissions",
    "compile_permissions",
    "depends_on_action",
    "is_delivered",
    "permission_of",
]
