"""Who a request comes from: a bearer key, or a short ticket where a browser cannot send headers.

On loopback without a configured key everyone is `local`, which the log and the dashboard say.
Keys are never taken from a URL: URLs end up in logs. `EventSource` and `WebSocket` cannot send
an Authorization header, so a browser trades its key for a ticket (POST /api/v1/tickets) that
lives `TICKET_S` and opens one stream.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from functools import lru_cache

import cachetools

from gateway.peers import SCHEME, Peers
from gateway.principal import ALL_SCOPES, LOCAL, Principal
from notifier.events import Viewer
from services.clock import monotonic_s
from services.settings import Settings

TICKET_S = 30.0
_TICKETS_MAX = 10_000
_HEADERS_MAX = 1024
# A longer one is no key of ours, and is not kept: whoever has no key must not fill the memory.
_HEADER_BYTES_MAX = 1024
_CLAIM = f"{SCHEME} ".encode()
_ADMIN = Principal("admin", ALL_SCOPES, Viewer(owners=None))


class InsecureSettings(Exception):
    """The service would be reachable from other machines without any secret."""


class Authenticator:
    """Compares in constant time; holds the tickets of this replica in memory."""

    def __init__(self, settings: Settings) -> None:
        if not settings.is_loopback and not settings.admin_key:
            raise InsecureSettings(
                f"listening on {settings.host} needs a key: set SKILLWIRE_ADMIN_KEY to at least 32 characters, "
                "e.g. from `openssl rand -hex 24`"
            )
        # Who else may say who is asking: the other replicas, once the database is open.
        self.peers: Peers | None = None
        self._key_hash = _hash(settings.admin_key) if settings.admin_key else None
        # A client sends one header, many times. (A claim runs out, and is judged each time.)
        self._of_key = lru_cache(_HEADERS_MAX)(self._judged)
        self._tickets: cachetools.TTLCache[bytes, Principal] = cachetools.TTLCache(
            _TICKETS_MAX, TICKET_S, timer=monotonic_s
        )

    @property
    def is_open(self) -> bool:
        """True when no key is asked for."""
        return self._key_hash is None

    def from_header(self, authorization: bytes) -> Principal | None:
        """None for a missing or wrong key, and for a claim that no replica of ours made for this one."""
        if self.peers is not None and authorization[: len(_CLAIM)].lower() == _CLAIM:
            claim = self.peers.read(authorization.decode("latin-1"))
            return claim.principal if claim else None
        return self._of_key(authorization) if len(authorization) <= _HEADER_BYTES_MAX else self._judged(authorization)

    def _judged(self, authorization: bytes) -> Principal | None:
        if self._key_hash is None:
            return LOCAL
        kind, _, key = authorization.decode("latin-1").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(_hash(key.strip()), self._key_hash):
            return None
        return _ADMIN

    def from_ticket(self, query: Mapping[str, str]) -> Principal | None:
        """Takes a ticket; a second use finds nothing."""
        ticket = query.get("ticket", "")
        return self._tickets.pop(_hash(ticket), None) if ticket else None

    def issue_ticket(self, principal: Principal) -> str:
        ticket = secrets.token_urlsafe(32)
        self._tickets[_hash(ticket)] = principal
        return ticket


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
