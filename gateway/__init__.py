from gateway.lean import defer

defer("mcp", "mcp.server", "sqlalchemy.ext", "sqlalchemy.ext.asyncio")
