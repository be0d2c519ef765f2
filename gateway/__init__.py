from gateway.lean import defer

defer("mcp", "mcp.server")
