import pytest

from services.execution.jobs import Command, parse_command
from services.failures import Invalid


@pytest.mark.parametrize(
    ("argv", "script", "function"),
    [
        (["python", "scripts/x.py:run"], "scripts/x.py", "run"),
        (["python3", "x.py:run"], "x.py", "run"),
        (["python", "scripts/x.py"], "scripts/x.py", None),
        (["python", "scripts/x.py", "a:b"], "scripts/x.py", None),
        (["sh", "scripts/x.sh", "--flag", "../free"], "scripts/x.sh", None),
    ],
)
def test_a_command_names_a_script_and_perhaps_a_function(argv: list[str], script: str, function: str | None) -> None:
    assert parse_command(argv) == Command(script, function, tuple(argv))


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["python"],
        ["/usr/bin/python", "x.py"],
        ["../python", "x.py"],
        ["", "x.py"],
        ["python", ""],
        ["python", "/etc/passwd"],
        ["python", "../x.py"],
        ["python", "a/../../x.py:run"],
        ["python", "a//x.py"],
        ["python", "./x.py"],
        ["python", "a\\x.py"],
        ["python", "-c"],
        ["python", "x.py:"],
        ["python", "x.py:a.b"],
        ["python", ":run"],
    ],
)
def test_a_command_that_leaves_its_package_is_refused(argv: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        parse_command(argv)
    assert refused.value.code == "bad_command"
