"""The documentation of an application's consumers: an AsyncAPI 3.0 document, and a page that shows it."""

from .document import asyncapi_document
from .settings import AsyncAPI

__all__ = ["AsyncAPI", "asyncapi_document"]
