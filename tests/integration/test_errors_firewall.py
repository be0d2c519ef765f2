"""The firewall over a real database: incidents, solutions, levels, and what happens when it has trouble."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from services import metrics
from services.caller import Sees
from services.errors import occurrences
from services.errors.nouns import IncidentQuery
from services.errors.solutions import ranked
from services.failures import Conflict, Forbidden, Invalid, NotFound, Unavailable
from services.models import Skill
from services.search.hash_embed import HashEmbedder
from services.storage.incident_rules import SOLUTIONS_MAX
from services.storage.incidents import SqlIncidents
from services.storage.sql import SqlStore
from tests.support.drafts import assert_chained, draft, sha256
from tests.support.firewall import TroubledIncidents, fail, running, tool
from tests.support.search_parts import everyone
from tests.support.workers import bounded

pytestmark = pytest.mark.anyio

REFUSED = "connection to 10.0.0.7:5432 refused"
UUID = "3f2b8a54-0c1d-4e6f-9a7b-5c4d3e2f1a0b"


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SqlStore]:
    opened = await SqlStore.open(database_url)
    yield opened
    await opened.close()


def only(owner: str) -> Sees:
    def sees(skill: Skill) -> bool:
        return skill.visibility == "public" or skill.owner == owner

    return sees


async def test_failures_with_other_parameters_are_one_incident_that_survives_a_restart(store: SqlStore) -> None:
    alpha = tool()
    async with running(store, alpha) as (firewall, announced):
        first = await fail(firewall, alpha, REFUSED, {"token": "t0p", "n": 1})
        second = await fail(firewall, alpha, "connection to 192.168.1.20:80 refused", {"n": 2})
        assert first.incident == second.incident
        assert str(first.error) == REFUSED
    async with running(store, alpha) as (firewall, announced):
        [incident], after = await firewall.page(IncidentQuery(10), everyone)
        assert after is None
        assert (incident.error_class, incident.count, incident.code) == ("NETWORK", 2, "tool_failed")
        assert (incident.pattern, incident.message) == ("connection to <host> refused", REFUSED)
        assert incident.arguments == '{"n":1,"token":"[redacted]"}'
        assert incident.first_at <= incident.last_at
        assert [each.id for each in announced] == [incident.id], "its state is known again after a restart"


async def test_the_services_own_load_and_refusals_are_no_incidents(store: SqlStore) -> None:
    alpha = tool()
    async with running(store, alpha) as (firewall, _):
        for code in ("queue_full", "queue_timeout", "closing"):
            assert (await fail(firewall, alpha, Unavailable("busy", code=code))).incident == ""
        assert (await fail(firewall, alpha, Invalid("no", code="bad_arguments"))).incident
        [incident], _ = await firewall.page(IncidentQuery(10), everyone)
        assert incident.error_class == "VALIDATION"
        assert await firewall.page(IncidentQuery(10, "NETWORK"), everyone) == ([], None)


async def test_pages_go_through_all_incidents_once(store: SqlStore) -> None:
    alpha = tool()
    async with running(store, alpha) as (firewall, _):
        for word in ("one", "two", "three", "four", "five"):
            await fail(firewall, alpha, f"broken in a way called {word}")
        seen, after = [], None
        while True:
            page, after = await firewall.page(IncidentQuery(2, None, after), everyone)
            seen += [each.pattern for each in page]
            if after is None:
                break
        assert len(seen) == len(set(seen)) == 5


async def test_nothing_counted_is_lost_while_the_database_is_away(store: SqlStore) -> None:
    alpha = tool()
    troubled = TroubledIncidents(store)
    troubled.failures = 2
    async with running(store, alpha, incidents=troubled) as (firewall, _):
        for number in range(100):
            await fail(firewall, alpha, f"no row {number}")
            await fail(firewall, alpha, "no column")
    found = await SqlIncidents(store).incidents(IncidentQuery(10))
    assert sorted(each.count for each in found) == [100, 100]


async def test_what_is_counted_during_a_write_is_written_after_it(store: SqlStore) -> None:
    alpha = tool()
    troubled = TroubledIncidents(store)
    troubled.gate.clear()
    async with running(store, alpha, incidents=troubled) as (firewall, _):
        failed = await fail(firewall, alpha, REFUSED)
        await bounded(troubled.writing.wait())
        await fail(firewall, alpha, REFUSED)
        troubled.gate.set()
        incident, _ = await firewall.incident(failed.incident, everyone)
        assert incident.count == 2
        await fail(firewall, alpha, REFUSED)
    assert (await SqlIncidents(store).incident(failed.incident)).count == 3


async def test_incidents_beyond_the_bound_are_refused_and_counted_and_the_call_fails_as_it_did(store: SqlStore) -> None:
    alpha = tool()
    troubled = TroubledIncidents(store)
    troubled.failures = 1_000_000
    before = metrics.incidents_refused._value.get()
    async with running(store, alpha, incidents=troubled) as (firewall, _):
        for number in range(occurrences.WAITING_MAX + 5):
            letters = "".join(chr(ord("a") + int(digit)) for digit in str(number))
            assert (await fail(firewall, alpha, f"broken {letters}")).error.code == "tool_failed"
        await fail(firewall, alpha, "broken a")  # waits already, so it is counted
        troubled.failures = 0
    assert metrics.incidents_refused._value.get() - before == 5
    found = await SqlIncidents(store).incidents(IncidentQuery(2000))
    assert len(found) == occurrences.WAITING_MAX
    assert sum(each.count for each in found) == occurrences.WAITING_MAX + 1


async def test_a_solution_is_told_to_the_next_that_fails_so_and_outcomes_change_the_order(store: SqlStore) -> None:
    alpha = tool()
    async with running(store, alpha) as (firewall, _):
        failed = await fail(firewall, alpha, REFUSED)
        assert failed.known == []
        older, _ = await firewall.add_solution(failed.incident, "start the database", "ada", everyone)
        newer, seq = await firewall.add_solution(failed.incident, "wait a minute", "grace", everyone)
        told = (await fail(firewall, alpha, "connection to 192.168.1.20:80 refused")).known
        assert [(each.solution, each.match, each.score) for each in told] == [
            (newer.id, "exact", 1.0),
            (older.id, "exact", 1.0),
        ]
        await firewall.report_outcome(failed.incident, newer.id, False, everyone)
        await firewall.report_outcome(failed.incident, older.id, True, everyone)
        told = (await fail(firewall, alpha, REFUSED)).known
        assert [(each.text, each.worked, each.tried) for each in told] == [
            ("start the database", 1, 1),
            ("wait a minute", 0, 1),
        ]
        with pytest.raises(NotFound):
            await firewall.report_outcome(failed.incident, "sol-unknown", True, everyone)
        changes = await store.tail(0, 10)
        assert [(change.topic, change.kind) for change in changes] == [("solutions", "solution.added")] * 2
        assert (changes[-1].seq, b"wait a minute" in changes[-1].data) == (seq, True)


async def test_one_success_ranks_below_nine_of_ten(store: SqlStore) -> None:
    alpha = tool()
    async with running(store, alpha) as (firewall, _):
        failed = await fail(firewall, alpha, REFUSED)
        proven, _ = await firewall.add_solution(failed.incident, "proven", "ada", everyone)
        lucky, _ = await firewall.add_solution(failed.incident, "lucky", "ada", everyone)
        for worked in [True] * 9 + [False]:
            await firewall.report_outcome(failed.incident, proven.id, worked, everyone)
        await firewall.report_outcome(failed.incident, lucky.id, True, everyone)
        untried, _ = await firewall.add_solution(failed.incident, "untried", "ada", everyone)
        assert [each.text for each in await firewall.solutions(failed.incident)] == ["proven", "lucky", "untried"]
        assert ranked([untried]) == [untried]


async def test_one_solution_too_many_is_refused_and_leaves_no_change(store: SqlStore) -> None:
    alpha = tool()
    async with running(store, alpha) as (firewall, _):
        failed = await fail(firewall, alpha, REFUSED)
        for number in range(SOLUTIONS_MAX):
            await firewall.add_solution(failed.incident, f"try {number}", "ada", everyone)
        with pytest.raises(Conflict, match="solutions already"):
            await firewall.add_solution(failed.incident, "one more", "ada", everyone)
        with pytest.raises(NotFound):
            await firewall.add_solution("0" * 32, "for nothing", "ada", everyone)
    await store.publish([draft()])  # the log goes on after rows of either kind
    assert await assert_chained(store) == SOLUTIONS_MAX + 1


async def test_solutions_of_a_like_error_of_another_tool_are_told_with_a_lower_score(store: SqlStore) -> None:
    alpha, beta = tool("alpha"), tool("beta")
    async with running(store, alpha, beta) as (firewall, _):
        known = await fail(firewall, alpha, "could not connect to server db7.internal: Connection refused")
        await firewall.add_solution(known.incident, "open the port", "ada", everyone)
        like = await fail(firewall, beta, "could not connect to the server at 10.0.0.9: Connection refused by peer")
        assert [(each.match, each.text) for each in like.known] == [("similar", "open the port")]
        assert 0.5 <= like.known[0].score < 1
        for unlike in (
            "the connection string of the report is malformed",
            "no such table: users",
            "invalid literal for int() with base 10: 'x'",
            "the tool is stopped",
        ):
            assert (await fail(firewall, beta, unlike)).known == []


async def test_nobody_is_told_of_what_they_may_not_see(store: SqlStore) -> None:
    secret, open_to_all = tool("secret", owner="ada", visibility="private"), tool("beta")
    async with running(store, secret, open_to_all) as (firewall, _):
        failed = await fail(firewall, secret, REFUSED, sees=only("ada"))
        await firewall.add_solution(failed.incident, "ask ada", "ada", only("ada"))
        assert (await fail(firewall, open_to_all, REFUSED, sees=only("ada"))).known != []
        assert (await fail(firewall, open_to_all, REFUSED, sees=only("grace"))).known == []
        with pytest.raises(NotFound):
            await firewall.incident(failed.incident, only("grace"))
        listed, _ = await firewall.page(IncidentQuery(10), only("grace"))
        assert [each.tool for each in listed] == [open_to_all.name]
        [change] = await store.tail(0, 10)
        assert (change.owner, change.visibility) == ("ada", "private")


async def test_block_refuses_the_call_that_was_marked_and_no_other(store: SqlStore) -> None:
    alpha, beta = tool("alpha"), tool("beta")
    failing = {"path": "/a", "id": UUID}
    async with running(store, alpha, beta) as (firewall, announced):
        failed = await fail(firewall, alpha, "[Errno 13] Permission denied: '/a'", failing)
        await firewall.add_solution(failed.incident, "use /b", "ada", everyone)
        assert await firewall.check(alpha, failing, everyone) == []
        await firewall.mark(failed.incident, "warn", "ada", everyone)
        [reason] = await firewall.check(alpha, failing, everyone)
        assert (reason.level, reason.solutions[0].text) == ("warn", "use /b")
        async with firewall.guarding(alpha, failing, everyone):
            pass  # a warning refuses nothing
        await firewall.mark(failed.incident, "block", "ada", everyone)
        assert announced[-1].level == "block"
        again = {"id": UUID.replace("3", "4"), "path": "/a"}
        with pytest.raises(Forbidden) as refused:
            async with firewall.guarding(alpha, again, everyone):
                pytest.fail("a blocked call ran")
        assert (refused.value.code, refused.value.facts["incident"]) == ("blocked_by_incident", failed.incident)
        assert refused.value.facts["known_solutions"][0].text == "use /b"
        for other, arguments in ((alpha, {**failing, "path": "/b"}), (beta, failing), (alpha, {})):
            async with firewall.guarding(other, arguments, everyone):
                pass
        await firewall.mark(failed.incident, "none", "ada", everyone)
        async with firewall.guarding(alpha, failing, everyone):
            pass
        incident, _ = await firewall.incident(failed.incident, everyone)
        assert incident.count == 1, "a refusal is no occurrence"


async def test_another_replica_learns_of_solutions_and_levels_from_the_log(store: SqlStore) -> None:
    alpha = tool()
    async with running(store, alpha) as (here, _), running(store, alpha) as (there, _):
        failed = await fail(here, alpha, REFUSED, {"n": 1})
        await here.add_solution(failed.incident, "start it", "ada", everyone)
        await here.mark(failed.incident, "block", "ada", everyone)
        assert await there.check(alpha, {"n": 1}, everyone) == []
        there.apply(await store.tail(0, 10))
        async with asyncio.timeout(5):
            while not (reasons := await there.check(alpha, {"n": 1}, everyone)):  # noqa: ASYNC110 - its own task reads
                await asyncio.sleep(0.01)
        assert [each.text for each in reasons[0].solutions] == ["start it"]


@pytest.mark.parametrize("trouble", ["raises", "hangs"])
async def test_trouble_with_solutions_leaves_the_failure_as_it_was(store: SqlStore, trouble: str) -> None:
    alpha = tool()
    troubled = TroubledIncidents(store)
    async with running(store, alpha, incidents=troubled) as (firewall, _):
        failed = await fail(firewall, alpha, REFUSED)
        await firewall.add_solution(failed.incident, "start it", "ada", everyone)
        troubled.trouble = RuntimeError("a mistake of ours") if trouble == "raises" else None
        troubled.hangs = trouble == "hangs"
        failures, again = metrics.firewall_failures._value.get(), await bounded(fail(firewall, alpha, REFUSED))
        assert (str(again.error), again.incident, again.known) == (REFUSED, failed.incident, [])
        assert metrics.firewall_failures._value.get() - failures == (1 if trouble == "raises" else 0)


class HangingEmbedder(HashEmbedder):
    """Answers until it `hangs`, as a model that must be loaded anew."""

    hangs = False

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        if self.hangs:
            await asyncio.Event().wait()
        return await super().embed(texts)


async def test_an_embedder_that_does_not_answer_leaves_the_words(store: SqlStore) -> None:
    alpha, beta = tool("alpha"), tool("beta")
    embedder = HangingEmbedder()
    async with running(store, alpha, beta, embedder=embedder) as (firewall, _):
        failed = await fail(firewall, alpha, REFUSED)
        await firewall.add_solution(failed.incident, "start it", "ada", everyone)
        firewall.apply(await store.tail(0, 10))
        async with asyncio.timeout(5):
            while not await store.vectors(embedder.model, [sha256("connection to <host> refused")]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        embedder.hangs = True
        [told] = (await bounded(fail(firewall, beta, REFUSED + " 7"))).known
        assert (told.match, told.score) == ("similar", 1.0)
