PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def said(content):
    return {"role": "user", "content": content}


def text(line):
    return said({"type": "text", "text": line})


def with_arguments(arguments):
    return f"Prompt with arguments: arg1='{arguments['arg1']}', arg2='{arguments['arg2']}'"


def with_embedded_resource(arguments):
    embedded = {
        "uri": arguments["resourceUri"],
        "mimeType": "text/plain",
        "text": "Embedded resource content for testing.",
    }
    resource = said({"type": "resource", "resource": embedded})
    return {"messages": [resource, text("Please process the embedded resource above.")]}


def with_image(arguments):
    image = said({"type": "image", "data": PNG, "mimeType": "image/png"})
    return {"messages": [image, text("Please analyze the image above.")]}
