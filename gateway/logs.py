"""Structured logs on stderr, ours and the libraries' alike; stdout belongs to protocols and answers."""

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import Processor

# Libraries that say at INFO what is our business to say, or nothing.
_QUIET = ("uvicorn", "mcp", "watchfiles", "httpx2", "aiosqlite", "asyncio", "sse_starlette", "websockets")


def set_up_logs(log_format: Literal["console", "json"], level: Literal["debug", "info", "warning", "error"]) -> None:
    """Once, before anything logs. `console` is for people, `json` for machines: one object a line."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]
    renderers: list[Processor]
    if log_format == "json":
        renderers = [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    else:
        renderers = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                # The prettier ones print local variables, and with them whatever a caller sent.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
