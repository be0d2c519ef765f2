"""What a start is measured beside: `python -m tests.bench.skills_peer PORT_FD FOLDER` serves a folder with FastMCP."""

import sys

import uvicorn
from fastmcp import FastMCP
from fastmcp.server.providers.skills import SkillsDirectoryProvider

if __name__ == "__main__":
    descriptor, folder = sys.argv[1:]
    server = FastMCP("skills")
    server.add_provider(SkillsDirectoryProvider(roots=folder))
    app = server.http_app(path="/mcp", json_response=True, stateless_http=True)
    uvicorn.run(app, fd=int(descriptor), log_level="error", access_log=False)
