"""A space: how one kind of cached thing lives, stated once by whoever reads it."""

from collections.abc import Awaitable, Callable

import msgspec


class Space(msgspec.Struct, frozen=True):
    """The rules for all keys of one kind. A key belongs to one space.

    A record lives `ttl_s`; one that was read at least three times since it was loaded goes on,
    while the log allows it, up to `ttl_hot_s`. Up to `jitter` (a share) is taken off, at random,
    so that what was loaded together does not end together. "Not found" lives `negative_ttl_s`.

    A load that takes `hard_timeout_s` fails with `Unavailable`. After `soft_timeout_s`, if given,
    the record of before is served instead, labelled, while the load goes on. With
    `stale_if_error` it is also served, for at most a minute, when the load or the change log
    fails. `l2` is False for what is not worth a round trip to Redis.
    """

    name: str
    ttl_s: float = 300.0
    ttl_hot_s: float = 3600.0
    negative_ttl_s: float = 30.0
    jitter: float = 0.1
    soft_timeout_s: float | None = None
    hard_timeout_s: float = 5.0
    stale_if_error: bool = True
    l2: bool = True


class Loaded(msgspec.Struct, frozen=True):
    """What a loader may answer instead of bytes: a value that knows how long it is good.

    Such a `ttl_s` is kept as it is: neither shortened by jitter nor prolonged by use.
    """

    value: bytes
    ttl_s: float | None = None


Loader = Callable[[], Awaitable[bytes | Loaded]]
"""Reads the truth, and says with `depends_on` what it read."""
