"""The MCP server: the SDK's low-level `Server` over our catalog, both protocol eras on one endpoint."""

from typing import Any

import mcp_types as types
import structlog
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings

from gateway.mcp.context import RequestContext
from gateway.mcp.legacy import is_supported
from gateway.mcp.push import McpPush
from gateway.mcp.skills import DirectoryParams, SkillResources, UriParams
from gateway.mcp.tools import ToolHandlers
from gateway.replica import Replica

INSTRUCTIONS = (
    "Skillwire serves this team's skills. Call search_skills with what you are about to do, then load_skill to read "
    "the instructions of a match before you start; tools of skills are called by name or through call_tool."
)
SKILLS_EXTENSION = "io.modelcontextprotocol/skills"

log = structlog.get_logger(__name__)


class SkillServer(Server[Any]):
    """Promises legacy clients `list_changed` and keeps their sessions, to be told from outside a request."""

    def __init__(self, replica: Replica, push: McpPush) -> None:
        resources = SkillResources(replica)
        tools = ToolHandlers(replica)
        # The handlers answer plain dicts, which the SDK takes, though its types say models only.
        handlers: dict[str, Any] = {
            "on_list_tools": tools.list_tools,
            "on_call_tool": tools.call_tool,
            "on_list_resources": resources.list_resources,
            "on_list_resource_templates": resources.list_templates,
            "on_read_resource": resources.read_resource,
        }
        super().__init__(
            "skillwire",
            version=replica.version,
            title="Skillwire",
            instructions=INSTRUCTIONS,
            on_subscriptions_listen=push.listen,
            get_tool_input_schema=tools.input_schema,
            **handlers,
        )
        self.extensions[SKILLS_EXTENSION] = {"directoryRead": True}
        self.add_request_handler("skills/list", types.PaginatedRequestParams, resources.list_skills)
        self.add_request_handler("skills/get", UriParams, resources.get_skill)
        self.add_request_handler("resources/directory/read", DirectoryParams, resources.read_directory)
        self._push = push
        self._tells_legacy = is_supported()
        if self._tells_legacy:
            self.add_notification_handler("notifications/initialized", types.NotificationParams, self._remember_session)
        else:
            log.warning("this version of the mcp SDK cannot tell legacy clients of changes")
            replica.notices.append("MCP clients of before 2026-07-28 are not told of changes with this mcp version")

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        promised = NotificationOptions(tools_changed=self._tells_legacy, resources_changed=self._tells_legacy)
        return super().create_initialization_options(
            notification_options or promised, experimental_capabilities, extensions
        )

    async def _remember_session(self, context: RequestContext, _: types.NotificationParams) -> None:
        self._push.legacy.add(context.session)


def session_manager(server: SkillServer, *, body_bytes_max: int) -> StreamableHTTPSessionManager:
    """The HTTP side; Host and Origin are checked by our own edge, before this."""
    return StreamableHTTPSessionManager(
        app=server,
        json_response=False,
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        max_request_body_size=body_bytes_max,
    )
