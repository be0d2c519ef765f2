import json

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def text(arguments):
    return "This is the content of the static text resource."


def binary(arguments):
    return {"blob": PNG}


def watched(arguments):
    return "This resource is watched."


def template(arguments):
    number = arguments["id"]
    return json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
