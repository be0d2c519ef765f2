"""Hints from PostgreSQL itself: every commit says NOTIFY in the call that makes it (`storage/postgres.sql`).

Whoever listens learns of a commit within milliseconds, without Redis, and of exactly those that were
made: the server sends a notification when its transaction has committed, and not at all when it was
rolled back. It is a hint all the same, and treated like one of Redis: anybody who can connect can
send one, and a connection that has silently died brings none. So it does nothing but make a tail
come sooner; nothing here is waited for or raised.
"""

import asyncio

import asyncpg
from sqlalchemy.engine import make_url

from services.changes.hints import QUIET_S, SILENCE_S, Hinted, keep_listening, seq_of

CHANNEL = "skillwire_main_hint"
CONNECT_TIMEOUT_S = 2.0


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
        listening = keep_listening(
            self._follow, self.listening, "postgresql", asyncpg.PostgresError, asyncpg.InterfaceError
        )
        self._task = asyncio.create_task(listening, name="listen for hints of the database")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

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
        seq = seq_of(payload)
        if seq is not None:
            self._newest = max(self._newest, seq)
            self._news.set()

    def _ended(self, _connection: object) -> None:
        self._news.set()
