def tool(arguments):
    return "It fits."
