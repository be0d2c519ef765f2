import time


def reconnection(arguments, call):
    call.detach()
    time.sleep(0.2)
    return "Reconnection test completed successfully"
