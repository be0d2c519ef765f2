"""An operation: one use case with its name, parameters, scope and address.

The table drives the REST routes, the RPC commands and the authorization of both: an operation
exists on every edge or on none.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from gateway.envelope import Reply
from gateway.principal import Principal, Scope
from gateway.replica import Replica
from services.caller import Caller

OWNER = r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$"
NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
SEQ_MAX = 2**53
PAGE_MAX = 500


class Params(BaseModel):
    """Parameters of an operation; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoParams(Params):
    pass


def fingerprint(params: Params) -> str:
    """The same for the same parameters on every replica."""
    return hashlib.sha256(params.model_dump_json().encode()).hexdigest()[:16]


class SkillParams(Params):
    owner: str = Field(pattern=OWNER, description="The skill's owner.", examples=["main"])
    name: str = Field(pattern=NAME, max_length=64, description="The skill's name.", examples=["hello-world"])

    @property
    def skill_id(self) -> str:
        return f"{self.owner}/{self.name}"


class VersionParams(SkillParams):
    version: int = Field(ge=1, le=SEQ_MAX, description="The version's number.")


class Context(NamedTuple):
    """What an operation runs with: the parts, and who asks over what."""

    replica: Replica
    principal: Principal
    caller: Caller


P = TypeVar("P", bound=Params)


class Operation(NamedTuple):
    """`http` is (method, path below /api/v1), None where REST has a form of its own (`routes/packages.py`);
    parameters named in the path come from there, the others from the query (GET, DELETE) or the
    JSON body."""

    name: str
    summary: str
    scope: Scope
    http: tuple[str, str] | None
    params: type[Params]
    run: Callable[[Context, Any], Awaitable[Reply]]

    async def __call__(self, context: Context, params: Params) -> Reply:
        """Raises `Forbidden` without the scope, and what the use case raises."""
        context.principal.require(self.scope)
        return await self.run(context, params)
