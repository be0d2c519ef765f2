import time


def with_logging(arguments, call):
    call.log("Tool execution started")
    time.sleep(0.05)
    call.log("Tool processing data")
    time.sleep(0.05)
    call.log("Tool execution completed")
    return "Tool with logging executed successfully"


def with_progress(arguments, call):
    for done in (0, 50, 100):
        call.progress(done, 100)
        time.sleep(0.05)
    return "Tool with progress executed successfully"


def with_task(arguments, call):
    if "user_name" in call.responses:
        time.sleep(1)
        return f"Hello, {call.responses['user_name']['content']['name']}!"
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    params = {"message": "What is your name?", "requestedSchema": schema}
    return {"inputRequests": {"user_name": {"method": "elicitation/create", "params": params}}}
