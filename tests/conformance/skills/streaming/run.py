def elicitation(arguments, call):
    if "confirm" in call.responses:
        return "Confirmed."
    return {"inputRequests": {"confirm": {"method": "elicitation/create", "params": {"message": "Please confirm", "requestedSchema": {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}}}}}
