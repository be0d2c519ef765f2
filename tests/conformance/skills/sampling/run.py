def sampling(arguments, call):
    if "answer" in call.responses:
        return f"LLM response: {call.responses['answer']['content']['text']}"
    question = {"role": "user", "content": {"type": "text", "text": arguments["prompt"]}}
    params = {"messages": [question], "maxTokens": 100}
    return {"inputRequests": {"answer": {"method": "sampling/createMessage", "params": params}}}
