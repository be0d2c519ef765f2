"""The state topics `incidents` and `runs/{id}`: what subscribers are told of them as their latest state."""

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Raw

from notifier import UnifiedNotifier
from notifier.events import Cursor, State
from services.errors.nouns import Incident
from services.models import Change, Skill
from services.ports import CatalogSnapshot


class RunStates:
    """A `ChangeSink`. Every replica makes the same of the same row, so none has to tell the others; a state's
    `state_id` is `<epoch>-<seq>` of the row. What happened before this replica began to follow the log is
    asked of the run itself (`get_run`)."""

    def __init__(self, notifier: UnifiedNotifier) -> None:
        self._notifier = notifier

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.topic != "runs":
                continue
            run_id: str = msgspec.json.decode(change.data)["id"]
            self._notifier.take_state(
                State(
                    replica=Cursor.parse(change.id).epoch,
                    number=change.seq,
                    topic=f"runs/{run_id}",
                    key=run_id,
                    kind=change.kind,
                    at=change.at,
                    data=Raw(change.data),
                    owner=change.owner,
                    visibility=change.visibility,
                )
            )

    def restart(self, snapshot: CatalogSnapshot) -> None:
        """Nothing: a snapshot holds no runs, and what is kept was true."""


def announcer(notifier: UnifiedNotifier) -> Callable[[Incident, Skill], None]:
    """Tells whoever sees the skill of its incident's latest state."""

    def announce(incident: Incident, skill: Skill) -> None:
        state = msgspec.json.encode(incident.shown())
        notifier.publish_state(
            "incidents", incident.id, "incident.seen", state, owner=skill.owner, visibility=skill.visibility
        )

    return announce
