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
