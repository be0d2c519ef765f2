def text(arguments):
    return "This is a simple text response for testing."


def prompt(arguments):
    return "This is a simple prompt for testing."
