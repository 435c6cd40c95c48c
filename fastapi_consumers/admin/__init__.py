"""What operators see and do of a running application: an API over HTTP, for all processes, and a page made of it."""

from .router import admin_router

__all__ = ["admin_router"]
