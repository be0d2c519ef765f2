def handling(arguments, call):
    text = "This tool intentionally returns an error for testing"
    return {"content": [{"type": "text", "text": text}], "isError": True}
