"""A key without the scope `read` is told neither what there is nor what has changed."""

from types import SimpleNamespace
from typing import Any, cast

import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from gateway.mcp.push import McpPush
from gateway.mcp.sdk.server import SkillServer
from gateway.mcp.sdk.skills import SkillResources
from gateway.mcp.streams import Filter, ListenStreams
from gateway.mcp.tasks import admitted
from gateway.principal import LOCAL, Principal
from gateway.replica import Replica
from notifier.events import Viewer
from services.failures import Forbidden
from services.runs.runs import Runs

pytestmark = pytest.mark.anyio
CALLER = Principal("caller", frozenset(("invoke",)), Viewer(owners=None))
NO_RUNS = cast(Runs, None)


def context(principal: Principal) -> Any:
    session = SimpleNamespace(_connection=Session())
    request = SimpleNamespace(state=SimpleNamespace(principal=principal))
    return SimpleNamespace(request=request, session=session, meta=None, protocol_version="2026-07-28")


class Session:
    """Stands for a connection, of which only that it is there is remembered."""


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(tools_list_changed=True),
        Filter(prompts_list_changed=True),
        Filter(resources_list_changed=True),
        Filter(resource_subscriptions=["skill://main/one/SKILL.md"]),
    ],
)
async def test_changes_are_listened_to_with_read_alone(wanted: Filter) -> None:
    with pytest.raises(Forbidden) as refused:
        await admitted(ListenStreams(), NO_RUNS, wanted, CALLER)
    assert refused.value.code == "insufficient_scope"
    assert (await admitted(ListenStreams(), NO_RUNS, wanted, LOCAL)).wanted == wanted


async def test_who_may_not_read_may_listen_to_own_tasks() -> None:
    class OwnRuns:
        async def get(self, run_id: str, _owner: str) -> Any:
            return SimpleNamespace(id=run_id)

    wanted = Filter(task_ids=["mine"])
    assert (await admitted(ListenStreams(), cast(Runs, OwnRuns()), wanted, CALLER)).wanted == wanted


async def test_templates_are_listed_with_read_alone() -> None:
    with pytest.raises(MCPError) as refused:
        await SkillResources(cast(Replica, None)).list_templates(context(CALLER))
    assert refused.value.error.data["code"] == "insufficient_scope"


@pytest.mark.parametrize(("principal", "remembered"), [(CALLER, 0), (LOCAL, 1)])
async def test_a_legacy_session_is_told_of_changes_with_read_alone(principal: Principal, remembered: int) -> None:
    replica = SimpleNamespace(version="0", runs=None, notices=[])
    push = SimpleNamespace(streams=ListenStreams(), tell_sessions_with=lambda *_: None)
    server = SkillServer(cast(Replica, replica), cast(McpPush, push), bytes(32))
    entry = server.get_notification_handler("notifications/initialized")
    assert entry is not None
    at = context(principal)  # held: what is forgotten with its session is not to be counted
    await entry.handler(at, types.NotificationParams())
    assert len(server._sessions) == remembered
