import time


def job(arguments):
    time.sleep(1)
    raise ValueError("This job intentionally fails.")
