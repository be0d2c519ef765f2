PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def content(arguments, call):
    return {"content": [{"type": "image", "data": PNG, "mimeType": "image/png"}]}
