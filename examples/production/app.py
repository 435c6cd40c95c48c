"""An application as it is deployed: settings from the environment, and all that watches over it.

``BROKER_URL`` names the Redis or Valkey server that all processes share, ``DRAIN_TIMEOUT`` how many seconds a process
may take to send its clients to the others. ``ADMIN_PASSWORD`` opens ``/admin``, ``METRICS_TOKEN`` ``/metrics``: without
them, nobody gets in. ``LOG_LEVEL`` turns on the log, in lines of JSON; ``LOG_ACTIONS=1`` adds one for each action. The
files beside this one run it.
"""

import json
import logging
import logging.config
import os
import secrets
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBasic, HTTPBasicCredentials, HTTPBearer

from fastapi_consumers import Consumers, GroupConsumer, action, add_consumers, every, get_consumers, path
from fastapi_consumers.admin import admin_router
from fastapi_consumers.contrib.prometheus import Metrics, metrics_router
from fastapi_consumers.health import Health
from fastapi_consumers.history import History

# -- the log -----------------------------------------------------------------------------------------------------------

logger = logging.getLogger(__name__)

#: What every record has; the rest came as `extra`.
PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JSONFormatter(logging.Formatter):
    """One line of JSON for each record, with what stands in its ``extra``: connection, user, action and so on."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in PLAIN},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class WithoutQuery(logging.Filter):
    """Cuts the query off the paths that uvicorn logs: there may be a token in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(each.partition("?")[0] if isinstance(each, str) else each for each in record.args)
        return True


def logging_config(level: str) -> dict[str, Any]:
    """Everything on stdout, where systemd and containers take it from."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JSONFormatter}},
        "filters": {"without_query": {"()": WithoutQuery}},
        "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "json"}},
        "root": {"level": "WARNING", "handlers": ["stdout"]},
        "loggers": {
            __name__: {"level": level},
            "fastapi_consumers": {"level": level},
            # Uvicorn has handlers of its own, which are taken off here. Its log of requests is the proxy's business,
            # and would be full of probes.
            "uvicorn": {"level": "INFO", "propagate": True},
            "uvicorn.error": {"level": "INFO", "filters": ["without_query"]},
            "uvicorn.access": {"level": "WARNING", "propagate": True, "filters": ["without_query"]},
        },
    }


# Asked for, as whoever imports this module for something else has a log already.
if log_level := os.environ.get("LOG_LEVEL"):
    logging.config.dictConfig(logging_config(log_level))

# -- the consumers -----------------------------------------------------------------------------------------------------


class Room(GroupConsumer):
    groups = ["room.{room}"]
    # So that whoever is sent to another process goes on there where it was.
    history = History(size=1000, ttl=3600)

    @action
    async def say(self, text: str) -> None:
        group = self.group_names[0]
        await self.broadcast("said", {"text": text})
        # The names that the framework's own lines have. How much was said is logged, and never what.
        logger.info("said %d characters", len(text), extra={"connection": self.channel_name, "group": group})

    @every("10m")
    @classmethod
    async def tell_count(cls, group: str, consumers: Consumers) -> None:
        """Tells each room how many are in it: once, whatever the number of processes."""
        await consumers.broadcast(group, "here", {"connections": await consumers.get_connection_count(group)})


metrics = Metrics()
app = FastAPI()
add_consumers(
    app,
    [path("/room/{room}", Room)],
    url=os.environ.get("BROKER_URL", "memory://"),
    drain_timeout=float(os.environ.get("DRAIN_TIMEOUT", "25")),
    max_connections_per_address=100,
    max_connection_rate="200/second",
    observers=[metrics],
    access_log="actions" if os.environ.get("LOG_ACTIONS") == "1" else True,
)

# -- for operators -----------------------------------------------------------------------------------------------------


def is_secret(variable: str, found: str) -> bool:
    """Whether it is the secret of the environment variable. One that is missing or empty lets nobody in."""
    secret = os.environ.get(variable, "")
    return secret != "" and secrets.compare_digest(found.encode(), secret.encode())


def require_admin(credentials: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> None:
    """A password of HTTP Basic, which browsers send with the handshake of the dashboard too."""
    if credentials.username != "admin" or not is_secret("ADMIN_PASSWORD", credentials.password):
        raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})


Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


def require_scraper(credentials: Bearer) -> None:
    """Another secret than the admin's: who may read figures may not disconnect people."""
    if credentials is None or not is_secret("METRICS_TOKEN", credentials.credentials):
        raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})


# The proxy keeps both from the outside. That is not all there is, since not everybody comes through the proxy.
app.include_router(admin_router(dependencies=[Depends(require_admin)], include_in_schema=False))
app.include_router(metrics_router(metrics, dependencies=[Depends(require_scraper)]))

Found = Annotated[Consumers, Depends(get_consumers)]


@app.get("/live")
async def live() -> dict[str, bool]:
    """Whether the process answers at all. Nothing else: who asks restarts it if not."""
    return {"alive": True}


@app.get("/ready")
async def ready(consumers: Found, response: Response) -> dict[str, bool]:
    """Whether new sockets may come: 503 from the moment in which it is told to stop."""
    draining = consumers.health()["draining"]
    response.status_code = 503 if draining else 200
    return {"ready": not draining}


@app.get("/health")
async def health(consumers: Found) -> Health:
    """For whoever watches. Keep it from the outside, as nginx.conf and the Caddyfile do."""
    return consumers.health()
