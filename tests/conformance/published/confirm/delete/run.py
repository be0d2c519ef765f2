import time


def form(message, name):
    schema = {"type": "object", "properties": {name: {"type": "boolean"}}, "required": [name]}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def delete(arguments, call):
    if "confirm" in call.responses:
        return f"Deleted {arguments['filename']}."
    time.sleep(1)
    return {"inputRequests": {"confirm": form("Delete it?", "confirm")}}
