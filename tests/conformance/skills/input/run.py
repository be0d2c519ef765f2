def form(message, name, kind="string"):
    schema = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def sample(text, tokens):
    message = {"role": "user", "content": {"type": "text", "text": text}}
    return {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": tokens}}


ROOTS = {"method": "roots/list", "params": {}}
NAME = form("What is your name?", "name")


def answered(response, name):
    """A form's field; None for what is no accepted form."""
    content = response.get("content") if isinstance(response, dict) else None
    return content.get(name) if isinstance(content, dict) else None


def elicitation(arguments, call):
    name = answered(call.responses.get("user_name"), "name")
    return f"Hello, {name}!" if name else {"inputRequests": {"user_name": NAME}}


def sampling(arguments, call):
    if "capital_question" in call.responses:
        return call.responses["capital_question"]["content"]["text"]
    return {"inputRequests": {"capital_question": sample("What is the capital of France?", 100)}}


def list_roots(arguments, call):
    if "client_roots" in call.responses:
        roots = call.responses["client_roots"]["roots"]
        return "Roots: " + ", ".join(root["uri"] for root in roots)
    return {"inputRequests": {"client_roots": ROOTS}}


def request_state(arguments, call):
    if "confirm" in call.responses and call.state == "asked":
        return "state-ok"
    return {"inputRequests": {"confirm": form("Please confirm", "ok", "boolean")}, "requestState": "asked"}


def multiple_inputs(arguments, call):
    questions = {"user_name": NAME, "greeting": sample("Generate a greeting", 50), "client_roots": ROOTS}
    if questions.keys() <= call.responses.keys():
        return f"All answered: {answered(call.responses['user_name'], 'name')}"
    return {"inputRequests": questions, "requestState": "asked"}


def multi_round(arguments, call):
    if call.state.startswith("named:") and "step2" in call.responses:
        color = answered(call.responses["step2"], "color")
        return f"{call.state.removeprefix('named:')} likes {color}"
    if call.state == "begun" and "step1" in call.responses:
        name = answered(call.responses["step1"], "name")
        question = form("Step 2: What is your favorite color?", "color")
        return {"inputRequests": {"step2": question}, "requestState": f"named:{name}"}
    question = form("Step 1: What is your name?", "name")
    return {"inputRequests": {"step1": question}, "requestState": "begun"}


def capabilities(arguments, call):
    questions = {"sampling": sample("Say hello", 20), "elicitation": NAME}
    asked = {name: question for name, question in questions.items() if name in call.capabilities}
    if asked and asked.keys() - call.responses.keys():
        return {"inputRequests": asked}
    return "Asked what could be asked."


def prompt(arguments, call):
    context = answered(call.responses.get("user_context"), "context")
    if context:
        return f"Use this context: {context}"
    return {"inputRequests": {"user_context": form("What context should the prompt use?", "context")}}
