"""Metrics for Prometheus: the extra ``prometheus``.

::

    metrics = Metrics()
    add_consumers(app, channel_routes, observers=[metrics])
    app.include_router(metrics_router(metrics))       # GET /metrics
"""

from .metrics import Metrics
from .router import metrics_router

__all__ = ["Metrics", "metrics_router"]
