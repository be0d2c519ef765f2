"""Hints from PostgreSQL itself: every commit says NOTIFY in the call that makes it (`storage/postgres.sql`).

Whoever listens learns of a commit within milliseconds, without Redis, and of exactly those that were
made: the server sends a notification when its transaction has committed, and not at all when it was
rolled back. It is a hint all the same, and treated like one of Redis: anybody who can connect can
send one, and a connection that has silently died brings none. So it does nothing but make a tail
come sooner; nothing here is waited for or raised.
"""

import asyncio
import random
import re

import asyncpg
import structlog
from sqlalchemy.engine import make_url

from services import metrics
from services.changes.hints import QUIET_S, SILENCE_S, Hinted

CHANNEL = "skillwire_main_hint"
CONNECT_TIMEOUT_S = 2.0
_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 5.0
_SEQ = re.compile(r"\d{1,15}")

log = structlog.get_logger(__name__)


class PostgresHints:
    """Listens on a connection of its own; start it, end it with `close`.

    `hinted` is called with a seq that arrived, this replica's own among them: with the largest of
    those that came within `QUIET_S`. `silence_s` is after how long without one the server is asked
    whether it is still there.
    """

    def __init__(self, url: str, hinted: Hinted, *, silence_s: float = SILENCE_S) -> None:
        self._dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._hinted = hinted
        self._silence_s = silence_s
        self._newest = 0
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.listening = asyncio.Event()
        """Set while this replica would hear a hint."""

    def start(self) -> None:
        self._task = asyncio.create_task(self._listen(), name="listen for hints of the database")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _listen(self) -> None:
        wait_s = _RETRY_FIRST_S
        while True:
            try:
                await self._follow()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                log.info("no hints from the database; tails go on as they are", error=str(error))
            except Exception:
                log.exception("listening for hints of the database failed; trying again")
            if self.listening.is_set():
                wait_s = _RETRY_FIRST_S
            self.listening.clear()
            metrics.hint_failures.labels("listen").inc()
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, _RETRY_MAX_S)

    async def _follow(self) -> None:
        """Until the connection fails. Raises `TimeoutError` for one that has stopped answering."""
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            connection = await asyncpg.connect(
                self._dsn, timeout=CONNECT_TIMEOUT_S, server_settings={"application_name": "skillwire hints"}
            )
        try:
            connection.add_termination_listener(self._ended)
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.add_listener(CHANNEL, self._take)
            self.listening.set()
            while not connection.is_closed():
                await self._act_on_next(connection)
            raise ConnectionError("the connection for hints was closed")
        finally:
            connection.terminate()  # the polite way waits for a server that may not answer

    async def _act_on_next(self, connection: asyncpg.Connection) -> None:
        """A hint, the connection's end, or, after too long without either, a question to the server."""
        try:
            async with asyncio.timeout(self._silence_s):
                await self._news.wait()
        except TimeoutError:
            async with asyncio.timeout(self._silence_s):
                await connection.execute("SELECT 1")
            return
        self._news.clear()
        seq, self._newest = self._newest, 0
        if seq:
            self._hinted(seq)
            await asyncio.sleep(QUIET_S)

    def _take(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if not isinstance(payload, str) or _SEQ.fullmatch(payload) is None:
            metrics.hints_received.labels("garbage").inc()
            return
        metrics.hints_received.labels("seq").inc()
        self._newest = max(self._newest, int(payload))
        self._news.set()

    def _ended(self, _connection: object) -> None:
        self._news.set()
