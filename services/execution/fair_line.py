"""A bounded waiting line that serves tenants in turn, so that one tenant's flood delays its own calls."""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from services.failures import Exhausted

T = TypeVar("T")


class FairLine(Generic[T]):
    """First come, first served within a tenant; one item per tenant and turn between them."""

    def __init__(self, waiting_max: int) -> None:
        self._waiting_max = waiting_max
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def join(self, tenant: str, item: T) -> None:
        """Raises `Exhausted` (`queue_full`) when the line, all tenants together, is full."""
        if self._count >= self._waiting_max:
            raise Exhausted(f"{self._waiting_max} calls are waiting for a worker already", code="queue_full")
        self._lines.setdefault(tenant, deque()).append(item)
        self._count += 1

    def first(self) -> T | None:
        """Whose turn it is, left in place."""
        return next(iter(self._lines.values()))[0] if self._lines else None

    def pop(self) -> T:
        """Takes the first out; its tenant goes to the end of the turn."""
        tenant, line = next(iter(self._lines.items()))
        item = line.popleft()
        self._count -= 1
        self._lines.move_to_end(tenant)
        if not line:
            del self._lines[tenant]
        return item

    def leave(self, tenant: str, item: T) -> None:
        """Takes an item out wherever it stands; nothing happens when it is not there."""
        line = self._lines.get(tenant)
        if line is None or item not in line:
            return
        line.remove(item)
        self._count -= 1
        if not line:
            del self._lines[tenant]
