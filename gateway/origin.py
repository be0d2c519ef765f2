"""Which Host and Origin headers are answered: the defence against DNS rebinding and foreign pages.

Without a key only this machine's own names are answered. With one, any Host is, unless
`allowed_hosts` says otherwise, because the key is what a rebound page does not have. A browser's
Origin must always be the host it talks to, or an allowed one.
"""

from urllib.parse import urlsplit

from services.settings import Settings

_LOCAL_NAMES = frozenset(("127.0.0.1", "localhost", "::1"))


class OriginPolicy:
    def __init__(self, settings: Settings) -> None:
        self._allowed = frozenset(host.lower() for host in settings.allowed_hosts)
        self._any_host = bool(settings.admin_key) and not self._allowed

    def allows_host(self, host: str) -> bool:
        """`host` is the header as sent."""
        name = _name(host)
        return name is not None and (self._any_host or name in _LOCAL_NAMES or name in self._allowed)

    def allows_origin(self, origin: str, host: str) -> bool:
        """An absent Origin is no browser and is allowed."""
        if not origin:
            return True
        try:
            parts = urlsplit(origin)
            name = parts.hostname
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or not name:
            return False
        return parts.netloc.lower() == host.lower() or name in self._allowed


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
