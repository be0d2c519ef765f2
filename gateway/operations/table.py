"""An operation: one use case with its name, parameters, scope and address.

The table drives the REST routes, the RPC commands and the authorization of both: an operation
exists on every edge or on none.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gateway.envelope import Reply
from gateway.principal import Principal, Scope
from gateway.replica import Replica
from services.cache.read import Read
from services.caller import Caller
from services.changes.levels import BOUNDED, Level
from services.failures import Invalid
from services.models import NAME_PATTERN, OWNER_PATTERN

SEQ_MAX = 2**53
PAGE_MAX = 500


TParams = TypeVar("TParams", bound="Params")


class Params(BaseModel):
    """Parameters of an operation; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoParams(Params):
    pass


def fingerprint(params: Params) -> str:
    """The same for the same parameters on every replica."""
    return hashlib.sha256(params.model_dump_json().encode()).hexdigest()[:16]


def parse(model: type[TParams], values: object) -> TParams:
    """Parameters from decoded JSON. Raises `Invalid` that names each wrong one."""
    try:
        return model.model_validate(values, strict=True)
    except ValidationError as error:
        raise invalid(error.errors()) from error


def invalid(errors: Iterable[Any]) -> Invalid:
    """pydantic's errors without the values, which may be anything at all."""
    problems = [{"where": ".".join(str(part) for part in item["loc"]), "problem": item["msg"]} for item in errors]
    detail = "; ".join(f"{item['where']}: {item['problem']}" for item in problems)
    return Invalid(detail, problems=problems)


def _is_text(value: dict[str, Any]) -> dict[str, Any]:
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair, which is no text") from error
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_is_text)]


class SkillParams(Params):
    owner: str = Field(pattern=OWNER_PATTERN, description="The skill's owner.", examples=["main"])
    name: str = Field(pattern=NAME_PATTERN, max_length=64, description="The skill's name.", examples=["hello-world"])

    @property
    def skill_id(self) -> str:
        return f"{self.owner}/{self.name}"


class VersionParams(SkillParams):
    version: int = Field(ge=1, le=SEQ_MAX, description="The version's number.")


class Context(NamedTuple):
    """What an operation runs with: the parts, who asks over what, and how fresh a read must be."""

    replica: Replica
    principal: Principal
    caller: Caller
    level: Level = BOUNDED


Peek = Callable[[Replica, Principal, dict[str, str]], tuple[Read, str] | None]
"""An operation's answer for the parameters of its path, if L1 has it, under the bounded level, with
its entity tag; else None."""


class Operation(NamedTuple):
    """`http` is (method, path below /api/v1), None where REST has a form of its own (`routes/packages.py`);
    parameters named in the path come from there, the others from the query (GET, DELETE) or the
    JSON body. `timeout_s` bounds an RPC call. `peek` is for the hot lane."""

    name: str
    summary: str
    scope: Scope
    http: tuple[str, str] | None
    params: type[Params]
    run: Callable[[Context, Any], Awaitable[Reply]]
    timeout_s: float = 30.0
    peek: Peek | None = None

    async def __call__(self, context: Context, params: Params) -> Reply:
        """Raises `Forbidden` without the scope, and what the use case raises."""
        context.principal.require(self.scope)
        return await self.run(context, params)
