"""Greets somebody by name."""

GREETINGS = {
    "ar": "مرحبا، {}!",
    "de": "Hallo, {}!",
    "en": "Hello, {}!",
    "es": "¡Hola, {}!",
    "fr": "Bonjour, {} !",
    "hi": "नमस्ते, {}!",
    "it": "Ciao, {}!",
    "ja": "こんにちは、{}さん！",
    "ko": "안녕하세요, {}님!",
    "pt": "Olá, {}!",
    "zh": "你好，{}！",
}


def greet(arguments):
    name = " ".join(arguments["name"].split())
    if not name:
        raise ValueError("the name is empty")
    asked = arguments.get("language", "en")
    language = asked.replace("_", "-").split("-")[0].lower()
    if language not in GREETINGS:
        raise ValueError(f"no greeting in {asked!r}; there are {', '.join(sorted(GREETINGS))}")
    return {"greeting": GREETINGS[language].format(name), "language": language}
