"""The MCP server: the SDK's low-level `Server` over our catalog, both protocol eras on one endpoint."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import mcp_types as types
import structlog
from mcp.server.context import CallNext, HandlerResult
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types.methods import INPUT_REQUIRED_METHODS
from starlette.types import ASGIApp

from gateway.mcp.push import McpPush
from gateway.mcp.sdk.context import RequestContext, principal_of
from gateway.mcp.sdk.declared import DeclaredResources
from gateway.mcp.sdk.events import RecentEvents
from gateway.mcp.sdk.legacy import LegacySessions, is_supported
from gateway.mcp.sdk.listening import listen
from gateway.mcp.sdk.owned import Owned
from gateway.mcp.sdk.prompts import PromptHandlers
from gateway.mcp.sdk.skills import DirectoryParams, SkillResources, UriParams
from gateway.mcp.sdk.tasks import TaskHandlers, TaskParams, UpdateParams
from gateway.mcp.sdk.tools import ToolHandlers
from gateway.mcp.wire import NAME, SKILLS_EXTENSION, TASKS_EXTENSION, TITLE
from gateway.replica import Replica

if TYPE_CHECKING:
    from mcp.server.request_state import RequestStateBoundary

INSTRUCTIONS = (
    "Skillwire serves this team's skills. Call search_skills with what you are about to do, then load_skill to read "
    "the instructions of a match before you start; tools of skills are called by name or through call_tool."
)
# How long a legacy client that hung up is to wait before it comes back for an answer.
RETRY_MS = 500

log = structlog.get_logger(__name__)


class SealedStates:
    """Middleware: the SDK's boundary, from the first request on that may carry a state."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    async def __call__(self, ctx: RequestContext, call_next: CallNext) -> HandlerResult:
        if ctx.method not in INPUT_REQUIRED_METHODS:
            return await call_next(ctx)
        return await self._boundary(ctx, call_next)

    @cached_property
    def _boundary(self) -> "RequestStateBoundary":
        # OpenSSL's bindings come with it: 6 MB that nobody needs who lists skills and reads them.
        from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity  # noqa: PLC0415

        security = RequestStateSecurity(keys=[self._key], bind_principal=lambda context: principal_of(context).id)
        return RequestStateBoundary(security, default_audience="skillwire")


class SkillServer(Server[Any]):
    """Promises legacy clients `list_changed` and keeps their sessions, to be told from outside a request."""

    def __init__(self, replica: Replica, push: McpPush, state_key: bytes) -> None:
        """`state_key` seals what a tool remembers between its questions; the same on every replica."""
        self._sessions = sessions = LegacySessions()
        push.tell_sessions_with(sessions.send, sessions.close)
        resources = SkillResources(replica)
        declared = DeclaredResources(replica, resources, sessions)
        prompts = PromptHandlers(replica, sessions)
        tasks = TaskHandlers(replica.runs, sessions)
        tools = ToolHandlers(replica, sessions, tasks)
        # The handlers answer plain dicts, which the SDK takes, though its types say models only.
        handlers: dict[str, Any] = {
            "on_list_tools": tools.list_tools,
            "on_call_tool": tools.call_tool,
            "on_list_resources": declared.list_resources,
            "on_list_resource_templates": declared.list_templates,
            "on_read_resource": declared.read_resource,
            "on_list_prompts": prompts.list_prompts,
            "on_get_prompt": prompts.get_prompt,
            "on_completion": prompts.complete,
        }
        super().__init__(
            NAME,
            version=replica.version,
            title=TITLE,
            instructions=INSTRUCTIONS,
            on_subscriptions_listen=partial(listen, push.streams, replica.runs),
            get_tool_input_schema=tools.input_schema,
            **handlers,
        )
        self.sealed_states = SealedStates(state_key)
        self.middleware.append(self.sealed_states)
        self.extensions[SKILLS_EXTENSION] = {"directoryRead": True}
        self.add_request_handler("skills/list", types.PaginatedRequestParams, resources.list_skills)
        self.add_request_handler("skills/get", UriParams, resources.get_skill)
        self.add_request_handler("resources/directory/read", DirectoryParams, resources.read_directory)
        self.extensions[TASKS_EXTENSION] = {}
        self.add_request_handler("tasks/get", TaskParams, tasks.get)
        self.add_request_handler("tasks/update", UpdateParams, tasks.update)
        self.add_request_handler("tasks/cancel", TaskParams, tasks.cancel)
        self._tells_legacy = is_supported()
        if self._tells_legacy:
            self.add_notification_handler("notifications/initialized", types.NotificationParams, self._remember_session)
            # Not as constructor arguments: the SDK warns that 2026-07-28 has them no more, and legacy clients do.
            self.add_request_handler("logging/setLevel", types.SetLevelRequestParams, self._set_log_level)
            self.add_request_handler("resources/subscribe", types.SubscribeRequestParams, declared.watch)
            self.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, declared.unwatch)
        else:
            log.warning("this version of the mcp SDK cannot tell legacy clients of changes")
            replica.notices.append("MCP clients of before 2026-07-28 are not told of changes with this mcp version")

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        promised = NotificationOptions(
            tools_changed=self._tells_legacy,
            prompts_changed=self._tells_legacy,
            resources_changed=self._tells_legacy,
        )
        return super().create_initialization_options(
            notification_options or promised, experimental_capabilities, extensions
        )

    async def _set_log_level(self, context: RequestContext, params: types.SetLevelRequestParams) -> dict[str, Any]:
        self._sessions.set_log_level(context.session, params.level)
        return {}

    async def _remember_session(self, context: RequestContext, _: types.NotificationParams) -> None:
        principal = principal_of(context)
        if "read" in principal.scopes:  # who may not list is not told what has changed
            self._sessions.add(context.session, principal.viewer)


class SessionManager(StreamableHTTPSessionManager):
    """The SDK's, with what was sent kept apart for each session (see `RecentEvents`)."""

    @property
    def event_store(self) -> RecentEvents:
        """A fresh one: it is asked for once, when a session begins."""
        return RecentEvents()

    @event_store.setter
    def event_store(self, given: object) -> None:
        assert given is None, "each session gets its own"


@asynccontextmanager
async def serving(replica: Replica, push: McpPush, state_key: bytes) -> AsyncIterator[ASGIApp]:
    """The HTTP side; Host and Origin are checked by our own edge, before this."""
    manager = SessionManager(
        app=SkillServer(replica, push, state_key),
        json_response=False,
        retry_interval=RETRY_MS,
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        max_request_body_size=replica.settings.upload_bytes_max,
    )
    async with manager.run():
        yield Owned(StreamableHTTPASGIApp(manager))
