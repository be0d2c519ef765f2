"""What MCP clients are to be told, and who of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from notifier.events import Viewer
from services.models import Skill, Visibility


class Reach(NamedTuple):
    """Whose change it is: only who sees such a thing is told of it."""

    owner: str
    visibility: Visibility

    @classmethod
    def of(cls, skill: Skill) -> "Reach":
        return cls(skill.owner, skill.visibility)


EVERYONE = Reach("", "public")


@dataclass
class Notices:
    """Lists that have changed, with the reach of each change, and resources by what is watched of them."""

    tools: set[Reach] = field(default_factory=set)
    prompts: set[Reach] = field(default_factory=set)
    resources: set[Reach] = field(default_factory=set)
    updated: dict[str, Reach] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.tools or self.prompts or self.resources or self.updated)

    def kinds(self) -> Iterator[tuple[str, set[Reach]]]:
        yield "tools", self.tools
        yield "prompts", self.prompts
        yield "resources", self.resources

    def seen_by(self, viewer: Viewer) -> "Seen":
        lists = frozenset(kind for kind, reaches in self.kinds() if any(viewer.sees(reach) for reach in reaches))
        return Seen(lists, frozenset(uri for uri, reach in self.updated.items() if viewer.sees(reach)))


class Seen(NamedTuple):
    """The notices that one viewer gets: `tools`, `prompts`, `resources`, and resources as in `Notices`."""

    lists: frozenset[str]
    updated: frozenset[str]
