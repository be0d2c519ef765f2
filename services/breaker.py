"""A circuit breaker: after `threshold` failures in a row its target is left alone for `cooldown_s`.

After the cool-down exactly one call is let through as a probe. If it succeeds the breaker
closes, if it fails the cool-down starts anew, if it is cancelled the next caller is the probe.
The libraries that were tried let every waiting caller through at that moment.
"""

from services.clock import Monotonic, monotonic_s


class Breaker:
    """One per target, for one event loop; every `allow` that answers True is followed by exactly
    one of `succeeded`, `failed`, `cancelled`."""

    def __init__(self, threshold: int = 3, cooldown_s: float = 5.0, clock: Monotonic = monotonic_s) -> None:
        self._threshold = threshold
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._failures_in_row = 0
        self._open_until: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """True from the failure that reached the threshold until a probe succeeds."""
        return self._open_until is not None

    def allow(self) -> bool:
        """Whether a call may be made now."""
        if self._open_until is None:
            return True
        if self._probing or self._clock() < self._open_until:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        # A call that was let through before the breaker opened proves nothing about now.
        if self._open_until is not None and not self._probing:
            return
        self._failures_in_row = 0
        self._open_until = None
        self._probing = False

    def failed(self) -> None:
        self._failures_in_row += 1
        if self._probing or self._failures_in_row == self._threshold:
            self._open_until = self._clock() + self._cooldown_s
            self._probing = False

    def cancelled(self) -> None:
        self._probing = False
