"""The states of all replicas: what this one tells the others, and what it makes of what they say.

There is no store behind it. A replica that was linked just now sends all it has said before and asks the others to do
the same, so that whatever a broker forgets, or a link loses, is back after one round. A replica that has not been heard
of for `silence_s` is taken for dead. Messages come from outside: they can add states and nothing else.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

import msgspec

from notifier import metrics
from notifier.events import Coverage, State
from notifier.topics import is_state_topic

# A replica speaks every two seconds (its telemetry, or a message without states): three of them missed, and a little.
SILENCE_S = 7.0
_STATES_MAX = 1024
_REPLICAS_MAX = 256
_MESSAGE_BYTES = 64 * 1024
_MESSAGE_BYTES_MAX = 1024 * 1024


class _Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """`asks`: for all that the others have said. `leaves`: this is the last one."""

    replica: str
    states: list[State] = []
    asks: bool = False
    leaves: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Message).decode


class States(Protocol):
    """What subscribers see."""

    @property
    def replica(self) -> str: ...
    @property
    def coverage(self) -> Coverage: ...
    def take_state(self, state: State) -> None: ...
    def forget_replica(self, replica: str) -> None: ...
    def change_coverage(self, coverage: Coverage) -> None: ...


class Fleet:
    """Without I/O: a link (`redis_link.py`) carries `messages` to all replicas, and `take`s what they say. Until there
    is one the coverage is `local`, and nothing is kept for it."""

    def __init__(self, states: States, silence_s: float = SILENCE_S) -> None:
        self._states = states
        self._silence_s = silence_s
        self._said: OrderedDict[tuple[str, str], State] = OrderedDict()
        self._unsaid: dict[tuple[str, str], None] = {}
        self._has_link = False
        self._asks = False
        self._silences: dict[str, asyncio.TimerHandle] = {}
        self.news = asyncio.Event()
        """Set while `messages` has something to say."""

    @property
    def coverage(self) -> Coverage:
        return self._states.coverage

    @property
    def replicas(self) -> list[str]:
        """The others that are there, as far as this one hears."""
        return sorted(self._silences)

    def tell(self, state: State) -> None:
        if not self._has_link:
            return
        place = state.topic, state.key
        self._said[place] = state
        self._said.move_to_end(place)
        self._unsaid[place] = None
        if len(self._said) > _STATES_MAX:
            oldest, _ = self._said.popitem(last=False)
            self._unsaid.pop(oldest, None)
        self.news.set()

    def link_up(self) -> None:
        """From here on this replica hears the others."""
        self._has_link = self._asks = True
        self._say_all()
        self._states.change_coverage("fleet")

    def link_down(self) -> None:
        """From here on it does not; what it says is kept until it does."""
        self._has_link = True
        self._states.change_coverage("degraded")

    def messages(self) -> Iterator[bytes]:
        """What is to be said, oldest state first; what is not taken off it stays to be said. Never empty: a message
        without states says that this replica is alive."""
        self.news.clear()
        while True:
            states, size = [], 0
            while self._unsaid and size < _MESSAGE_BYTES:
                place = next(iter(self._unsaid))
                del self._unsaid[place]
                states.append(self._said[place])
                size += len(bytes(states[-1].data))
            asks, self._asks = self._asks, False
            yield _encode(_Message(self._states.replica, states, asks))
            if not self._unsaid:
                return

    def farewell(self) -> bytes:
        return _encode(_Message(self._states.replica, leaves=True))

    def take(self, data: bytes) -> None:
        """Whatever came over the link; this replica's own messages among it."""
        try:
            message = _decode(data) if len(data) <= _MESSAGE_BYTES_MAX else None
        except (msgspec.DecodeError, UnicodeError):
            message = None
        if message is None or not self._admits(message.replica):
            metrics.fleet_messages.labels("garbage").inc()
            return
        metrics.fleet_messages.labels("taken").inc()
        if message.replica == self._states.replica:
            return
        if message.leaves:
            self._lose(message.replica)
            return
        self._heard(message.replica)
        for state in message.states:
            # A newer replica may have topics that this one does not know.
            if state.replica == message.replica and is_state_topic(state.topic):
                self._states.take_state(state)
        if message.asks:
            self._say_all()

    def close(self) -> None:
        for timer in self._silences.values():
            timer.cancel()
        self._silences.clear()

    def _admits(self, replica: str) -> bool:
        return replica in self._silences or (0 < len(replica) <= 64 and len(self._silences) < _REPLICAS_MAX)

    def _say_all(self) -> None:
        self._unsaid = dict.fromkeys(self._said)
        self.news.set()

    def _heard(self, replica: str) -> None:
        if (timer := self._silences.get(replica)) is not None:
            timer.cancel()
        self._silences[replica] = asyncio.get_running_loop().call_later(self._silence_s, self._lose, replica)
        metrics.fleet_replicas.set(len(self._silences))

    def _lose(self, replica: str) -> None:
        if (timer := self._silences.pop(replica, None)) is not None:
            timer.cancel()
            metrics.fleet_replicas.set(len(self._silences))
            self._states.forget_replica(replica)
