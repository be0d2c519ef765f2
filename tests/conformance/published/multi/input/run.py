import time


def form(message, name):
    schema = {"type": "object", "properties": {name: {"type": "boolean"}}, "required": [name]}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def ask(arguments, call):
    if call.responses.keys() >= {"first", "second"}:
        return "Both are answered."
    time.sleep(1)
    return {"inputRequests": {"first": form("First?", "confirm"), "second": form("Second?", "confirm")}}
