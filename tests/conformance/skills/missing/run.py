def capability(arguments, call):
    return "The client can sample."
