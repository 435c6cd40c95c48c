"""The endpoint that Prometheus scrapes."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .families import Family, exposed
from .metrics import Metrics

if TYPE_CHECKING:
    from .workers import Workers

#: Seconds between two times that a worker leaves its samples for the others.
INTERVAL = 5.0


def metrics_router(
    metrics: Metrics,
    path: str = "/metrics",
    *,
    registry: CollectorRegistry | None = REGISTRY,
    workers: str | os.PathLike[str] | None = None,
    interval: float = INTERVAL,
    dependencies: Sequence[Any] = (),
) -> APIRouter:
    """A router with one endpoint, ``GET /metrics``, in the format that the scraper asks for.

    Args:
        registry: whose metrics are answered too, such as those of the process and your own; ``None`` for no other.
        workers: a folder, empty at the start, which the workers of one address share: whichever is scraped then
            answers for all of them. What the others say is up to ``interval`` old. ``registry`` stays each worker's
            own: give ``None`` there, or see to prometheus_client's own mode for many processes. Needs ``flock``.
        interval: seconds between two times that a worker leaves its samples there.
        dependencies: such as ``[Depends(only_from_inside)]``.
    """
    folder: Workers | None = None
    if workers is not None:
        # Not on every system, and not for everybody.
        from .workers import Workers as Folder

        folder = Folder(workers)

    class Scraped(Collector):
        def collect(self) -> Iterator[Any]:
            if registry is not None:
                yield from registry.collect()
            own: list[Family] = metrics.families()
            yield from exposed(own if folder is None else folder.read(own), metrics.bounds)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        if folder is None:
            yield
            return
        folder.open()
        task = asyncio.get_running_loop().create_task(_keep(folder, metrics, interval))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            folder.write(metrics.families())
            folder.close()

    router = APIRouter(lifespan=lifespan)
    # Not auto-described, which would collect for nothing.
    scraped = CollectorRegistry(auto_describe=False)
    scraped.register(Scraped())

    @router.get(path, include_in_schema=False, dependencies=list(dependencies))
    async def scrape(request: Request) -> Response:
        # In the event loop: what is read here changes there.
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(scraped), headers={"content-type": content_type})

    return router


async def _keep(folder: "Workers", metrics: Metrics, interval: float) -> None:
    while True:
        # A small file, in place: it is read in the event loop too.
        folder.write(metrics.families())
        await asyncio.sleep(interval)
