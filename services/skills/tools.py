"""The tools that can be called now, under the names that clients see.

A tool of a package is `<owner>_<skill>_<tool>`; owners and skills hold no underscore, so that
two tools never share it. Names match `[A-Za-z0-9_-]{1,60}`; one that would be longer is cut and
ends in a hash; a tool with its skill's name is `<owner>_<skill>`. Such a name *can* be another tool's (skill `b...b`, tool `1a2b3c4d`): it is then the
tool of the skill whose id sorts first, on every replica and in whatever order the log came.
Prompts have such names too, among themselves; resources are named by their URI.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from services.caller import Sees
from services.failures import NotFound
from services.models import Change, Skill, ToolSpec, Version
from services.ports import CatalogSnapshot
from services.skills.kinds import match_uri
from services.skills.view import CatalogView

NAME_LENGTH_MAX = 60
_HASH_LENGTH = 8


class CallableTool(NamedTuple):
    """A declared tool and the version it would run."""

    name: str
    skill: Skill
    version: Version
    spec: ToolSpec


class ToolView:
    """A `ChangeSink` behind the catalog view; `revision` is the seq of its newest change."""

    def __init__(self, catalog: CatalogView) -> None:
        self._catalog = catalog
        self._begin(catalog.revision)

    def restart(self, snapshot: CatalogSnapshot) -> None:
        self._begin(snapshot.position.seq)

    def _begin(self, revision: int) -> None:
        """From the catalog view as it is now."""
        self._claims: dict[str, dict[str, CallableTool]] = {}
        self._by_name: dict[str, CallableTool] = {}
        self._names_of: dict[str, list[str]] = {}
        self.revision = revision
        for skill in self._catalog.served(lambda _: True):
            self._put(skill)

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.topic == "tools":
                self.revision = change.seq
            if change.skill is not None:
                self._put(change.skill)

    def listed(self, sees: Sees) -> list[CallableTool]:
        """In name order, the same on every replica."""
        return self._listed("tool", sees)

    def prompts(self, sees: Sees) -> list[CallableTool]:
        return self._listed("prompt", sees)

    def resources(self, sees: Sees) -> list[CallableTool]:
        return self._listed("resource", sees)

    def has(self, name: str) -> bool:
        """Whether any skill has such a tool, whoever sees it."""
        return self.find(name, lambda _: True) is not None

    def find(self, name: str, sees: Sees) -> CallableTool | None:
        return self._found("tool", name, sees)

    def find_prompt(self, name: str, sees: Sees) -> CallableTool | None:
        return self._found("prompt", f"prompt:{name}", sees)

    def find_resource(self, uri: str, sees: Sees) -> tuple[CallableTool, dict[str, str]] | None:
        """What serves this URI, with what its template's names stand for there."""
        exact = self._found("resource", uri, sees)
        if exact is not None:
            return exact, {}
        owner = uri.partition("://")[0]
        for tool in self._listed("resource", sees):
            if tool.skill.owner == owner and (values := match_uri(tool.name, uri)):
                return tool, values
        return None

    def _listed(self, kind: str, sees: Sees) -> list[CallableTool]:
        return [tool for _, tool in sorted(self._by_name.items()) if tool.spec.kind == kind and sees(tool.skill)]

    def _found(self, kind: str, key: str, sees: Sees) -> CallableTool | None:
        tool = self._by_name.get(key)
        return tool if tool is not None and tool.spec.kind == kind and sees(tool.skill) else None

    def get(self, name: str, sees: Sees) -> CallableTool:
        """Raises `NotFound`."""
        tool = self.find(name, sees)
        if tool is None:
            raise NotFound(f"there is no tool {name}", tool=name)
        return tool

    def of(self, skill: Skill) -> list[CallableTool]:
        """The tools this skill serves: not what another skill has the name of."""
        tools = [self._by_name[name] for name in self._names_of.get(skill.id, ())]
        return [tool for tool in tools if tool.skill.id == skill.id and tool.spec.kind == "tool"]

    def _put(self, skill: Skill) -> None:
        before = self._names_of.pop(skill.id, [])
        for name in before:
            del self._claims[name][skill.id]
        now: list[str] = []
        if skill.active is not None:
            for spec in skill.active.tools:
                name = f"{skill.owner}://{spec.uri}" if spec.kind == "resource" else callable_name(skill, spec)
                key = f"prompt:{name}" if spec.kind == "prompt" else name
                claims = self._claims.setdefault(key, {})
                if skill.id not in claims:
                    claims[skill.id] = CallableTool(name, skill, skill.active, spec)
                    now.append(key)
        if now:
            self._names_of[skill.id] = now
        for name in {*before, *now}:
            self._settle(name)

    def _settle(self, name: str) -> None:
        claims = self._claims[name]
        if claims:
            self._by_name[name] = claims[min(claims)]
        else:
            del self._claims[name], self._by_name[name]


def callable_name(skill: Skill, spec: ToolSpec) -> str:
    """`main_calculator_evaluate`."""
    name = f"{skill.owner}_{skill.name}"
    if spec.name != skill.name:
        name += f"_{spec.name}"
    if len(name) <= NAME_LENGTH_MAX:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{name[: NAME_LENGTH_MAX - _HASH_LENGTH - 1]}_{digest}"
