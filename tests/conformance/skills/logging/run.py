def tool(arguments, call):
    call.log("A line for clients that want it.")
    return "Logged."
