"""One module a command, loaded when it is called: `validate` must not wait for a web server to be imported."""
