def mcp_header(arguments):
    return f"region={arguments.get('region', '')}"
