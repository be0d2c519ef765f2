def greet(arguments):
    return f"Hello, {arguments['name']}!"
