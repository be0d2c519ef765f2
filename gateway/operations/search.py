"""Search by meaning and by words."""

from pydantic import Field

from gateway.envelope import Reply, reply
from gateway.operations.table import Context, Operation, Params
from services.search.search import LIMIT_MAX, QUERY_BYTES_MAX


class SearchSkills(Params):
    query: str = Field(min_length=1, max_length=QUERY_BYTES_MAX, description="What the skill should help with.")
    limit: int = Field(10, ge=1, le=LIMIT_MAX)
    token_budget: int | None = Field(
        None, ge=1, le=1_000_000, description="Tokens that the hits' ids and descriptions may cost a context."
    )


async def search_skills(context: Context, params: SearchSkills) -> Reply:
    source = await context.replica.current(context.level)
    answer = await context.replica.search.search(
        params.query, params.limit, context.principal.viewer.sees, params.token_budget
    )
    items = [
        {
            "id": hit.skill.id,
            "description": hit.skill.active.description,
            "version": hit.skill.active.version,
            "digest": hit.skill.active.digest,
            "score": round(hit.score, 4),
        }
        for hit in answer.hits
        if hit.skill.active is not None
    ]
    body = {
        "items": items,
        "mode": answer.mode,
        "index_seq": answer.index_seq,
        "tokens": answer.tokens,
        "tokens_saved": answer.tokens_saved,
    }
    return reply(body, source)


OPERATIONS = (
    Operation("search_skills", "Find skills for a task.", "read", ("POST", "/search"), SearchSkills, search_skills),
)
