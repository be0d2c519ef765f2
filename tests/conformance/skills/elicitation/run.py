import json


def asked(call, message, properties, required=()):
    """The answer, or None and the question to return."""
    if "answer" in call.responses:
        return call.responses["answer"], None
    schema = {"type": "object", "properties": properties, "required": list(required)}
    params = {"message": message, "requestedSchema": schema}
    return None, {"inputRequests": {"answer": {"method": "elicitation/create", "params": params}}}


def elicitation(arguments, call):
    properties = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    answer, question = asked(call, arguments["message"], properties, ["username", "email"])
    if question:
        return question
    return f"User response: action: {answer['action']}, content: {json.dumps(answer.get('content'))}"


def defaults(arguments, call):
    properties = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    answer, question = asked(call, "Please review the values", properties)
    if question:
        return question
    return f"Elicitation completed: action={answer['action']}, content={json.dumps(answer.get('content'))}"


def titled(values):
    return [{"const": value, "title": title} for value, title in values.items()]


def choices(arguments, call):
    options = ["option1", "option2", "option3"]
    values = {"value1": "First Option", "value2": "Second Option", "value3": "Third Option"}
    picks = {"value1": "First Choice", "value2": "Second Choice", "value3": "Third Choice"}
    legacy = {"enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]}
    properties = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled(values)},
        "legacyEnum": {"type": "string", **legacy},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled(picks)}},
    }
    answer, question = asked(call, "Please choose", properties)
    if question:
        return question
    return f"Elicitation completed: action={answer['action']}, content={json.dumps(answer.get('content'))}"
