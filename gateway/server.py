"""Serving a replica over HTTP, from the first bind to a clean end.

On SIGTERM or SIGINT: readiness goes, streams end with a close that tells their clients to
resume elsewhere, and only then does uvicorn stop accepting and wait for requests under way.
Left to itself, uvicorn 0.54 waits for an open event stream for ever, or cuts it in mid-chunk.
"""

import asyncio
import gc
import math
import signal
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import structlog
import uvicorn

from gateway.app import create_app
from gateway.auth import Authenticator
from gateway.first_call import FirstCall
from gateway.lean import unbuilt
from gateway.mcp.forwarding import SessionForwarding
from gateway.mcp.push import McpPush
from gateway.mcp.questions import questions_of
from gateway.mcp.sdk_app import SdkApp
from gateway.mcp.wire import STATE_SECRET
from gateway.peers import SECRET as PEERS_SECRET
from gateway.peers import Peers
from gateway.replica import Replica
from gateway.routes.probes import Draining
from gateway.telemetry import Telemetry
from gateway.wiring import open_replica
from notifier.probe import probe
from notifier.raw import RawHttpProtocol, RawWebSocketProtocol
from notifier.websocket import MESSAGE_BYTES_MAX
from services.clock import monotonic_s
from services.settings import Settings

_STREAMS_END_S = 3.0
_BACKLOG = 2048
_UNREAD_MS = 60_000

log = structlog.get_logger(__name__)


class DrainingServer(uvicorn.Server):
    """`uvicorn.Server` that ends streams first and leaves the process to its owner."""

    def __init__(self, config: uvicorn.Config, replica: Replica, push: McpPush, draining: Draining) -> None:
        super().__init__(config)
        self._replica = replica
        self._push = push
        self._draining = draining
        self._drain: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Replaces uvicorn's, which raises the signal again at the end and so ends the process
        before anything of ours is closed."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    async def finish(self) -> None:
        """Waits for the drain, when one was begun."""
        if self._drain is not None:
            await asyncio.wait([self._drain])

    def _on_signal(self, number: signal.Signals) -> None:
        if self._drain is not None:
            self.force_exit = number == signal.SIGINT
            return
        log.info("ending", signal=signal.Signals(number).name, streams=dict(self._replica.notifier.presence))
        self._draining.started = True
        self._drain = asyncio.create_task(self._end_streams(), name="drain")

    async def _end_streams(self) -> None:
        try:
            async with asyncio.timeout(_STREAMS_END_S):
                await self._push.close()
                await self._replica.notifier.close("shutdown")
        except TimeoutError:
            log.warning("some streams did not end in time", streams=dict(self._replica.notifier.presence))
        finally:
            self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `OSError` when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Inherited by every connection. ASGI cannot abort one, so a client that was ended for not
        # reading would otherwise keep its descriptor until the kernel gives up, after 15 minutes.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
    return listener


async def _address(settings: Settings, listener: socket.socket) -> str:
    """Where other replicas reach this one; empty when that cannot be known."""
    if settings.advertise_url:
        return settings.advertise_url
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        try:
            found = await asyncio.get_running_loop().getaddrinfo(socket.gethostname(), port, type=socket.SOCK_STREAM)
        except OSError:
            log.warning("no other replica can reach this one: set SKILLWIRE_ADVERTISE_URL", host=socket.gethostname())
            return ""
        host = found[0][4][0]
    return f"http://{_in_url(host)}:{port}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def serve(settings: Settings, listener: socket.socket) -> None:
    """Serves until a signal says otherwise; returns once everything is closed."""
    started_s = monotonic_s()
    authenticator = Authenticator(settings)
    push, draining = McpPush(), Draining()
    async with AsyncExitStack() as stack:
        address = await _address(settings, listener)
        first_call = FirstCall(settings.scripts_allowed_owners)
        replica = await stack.enter_async_context(
            open_replica(settings, push, first_call, asks=questions_of, address=address)
        )
        stack.push_async_callback(first_call.close)
        peers = authenticator.peers = Peers(replica.id, await replica.store.secret(PEERS_SECRET))
        push.start(replica.runs, replica.view)
        stack.push_async_callback(push.close)
        stack.push_async_callback(Telemetry(replica).close)
        sdk = SdkApp(replica, push, await replica.store.secret(STATE_SECRET))
        stack.push_async_callback(sdk.close)
        forwarding = SessionForwarding(sdk, replica.presence, peers)
        stack.push_async_callback(forwarding.close)
        is_raw = await probe()
        if not is_raw:
            replica.notices.append("push goes through ASGI: this uvicorn does not hand connections over")
        with unbuilt():
            app = create_app(replica, forwarding, push.streams, authenticator, draining)
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nobody here asks for the client's address
            # A negotiated deflate doubles the cost of a frame and its memory (research: 2x CPU, 30 to 74 KB).
            ws_per_message_deflate=False,
            # Heartbeats of our own are enough; the protocol's pings end healthy connections while a loop is busy.
            ws_ping_interval=None,
            ws_max_size=2 * MESSAGE_BYTES_MAX,
            http=RawHttpProtocol.answering(app.at_once) if is_raw else "httptools",
            ws=RawWebSocketProtocol if is_raw else "websockets-sansio",
            timeout_graceful_shutdown=math.ceil(settings.shutdown_grace_s),
        )
        server = DrainingServer(config, replica, push, draining)
        host, port = listener.getsockname()[:2]
        log.info(
            "skillwire is ready",
            url=f"http://{_in_url(host)}:{port}/",
            skills=len(replica.view),
            ready_in_s=round(monotonic_s() - started_s, 2),
        )
        gc.freeze()  # the catalog stays: to look through it for garbage stops everything for 15 ms
        sdk.begin()
        replica.begin()
        first_call.begin(replica, sdk.opened)
        await server.serve(sockets=[listener])
        await server.finish()
    log.info("ended")
