"""Permissions that come with the package."""

from typing import Any

from ..exceptions import ConsumerError, NotAuthenticated
from ..identity import is_authenticated
from .composition import BasePermission


class IsAuthenticated(BasePermission):
    """Whoever is known may; the others are answered ``not_authenticated`` (4401)."""

    def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return is_authenticated(consumer.user)

    def denied(self, consumer: Any, action: Any = None) -> ConsumerError:
        return NotAuthenticated(self.message, code=self.code)
