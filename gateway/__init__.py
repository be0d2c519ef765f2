from gateway.lean import defer

defer("mcp", "mcp.server", "httpx2", "redis", "redis.asyncio", "sqlalchemy.ext", "sqlalchemy.ext.asyncio")
