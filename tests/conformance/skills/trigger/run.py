def called(arguments):
    return "The change follows."
