"""The ranking of tools as it is stored, and the row that tells all replicas of a new one."""

from collections.abc import Sequence

import msgspec

from services.storage.plan import WritePlan

NAME = "tool ranking"
# Of no owner and private: it names tools that not everybody sees.
OWNER = ""


def put(plan: WritePlan, names: Sequence[str]) -> int:
    """Answers the seq of the change."""
    plan.documents[NAME] = {"name": NAME, "body": msgspec.json.encode(list(names))}
    return plan.append(
        topic="tools", kind="tools.ranked", dep="tools", owner=OWNER, visibility="private", data={"tools": list(names)}
    )


def read(body: bytes | None) -> tuple[str, ...]:
    return () if body is None else msgspec.json.decode(body, type=tuple[str, ...])
