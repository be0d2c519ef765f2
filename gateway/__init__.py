from gateway.lean import defer

defer("mcp", "mcp.server", "redis", "redis.asyncio", "sqlalchemy.ext", "sqlalchemy.ext.asyncio")
