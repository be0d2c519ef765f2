WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="


def content(arguments, call):
    return {"content": [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}]}
