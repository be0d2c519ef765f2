import time


def job(arguments, call):
    time.sleep(1)
    return {"inputRequests": {"roots": {"method": "roots/list", "params": {}}}}
