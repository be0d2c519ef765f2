"""Who is calling, and what they may see and do."""

from typing import Literal

import msgspec

from notifier.events import Viewer
from services.caller import Caller
from services.failures import Forbidden

Scope = Literal["read", "invoke", "publish", "admin"]
ALL_SCOPES: frozenset[Scope] = frozenset(("read", "invoke", "publish", "admin"))


class Principal(msgspec.Struct, frozen=True):
    """`id` goes into the invocation log and into `created_by`; `viewer` decides what is visible."""

    id: str
    scopes: frozenset[Scope]
    viewer: Viewer

    def require(self, scope: Scope) -> None:
        """Raises `Forbidden`."""
        if scope not in self.scopes:
            raise Forbidden(f"this needs the scope {scope!r}", code="insufficient_scope", scope=scope)

    def caller(self, transport: str, session: str = "") -> Caller:
        return Caller(self.id, transport, session, self.viewer.sees)


# Loopback without a key: the person at this machine.
LOCAL = Principal("local", ALL_SCOPES, Viewer(owners=None))
