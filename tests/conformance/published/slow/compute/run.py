import time


def compute(arguments):
    time.sleep(arguments["seconds"])
    return f"Computed {arguments['label']}."
