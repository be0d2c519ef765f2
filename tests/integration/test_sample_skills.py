import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.execution import Job, WorkerPool
from services.execution.schemas import ToolSchemas
from services.failures import ToolFailed
from services.skills.package import Package, read_folder
from tests.support.workers import bounded, running_pool

pytestmark = pytest.mark.anyio

_SKILLS = Path(__file__).parents[2] / "skills"
_NAMES = ["hello-world", "calculator", "code-review", "csv-data-summarizer"]


class Samples:
    """Calls tools of the sample skills in one pool, schemas checked on both sides."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._schemas = ToolSchemas()
        self._packages: dict[str, Package] = {}

    async def call(self, skill: str, name: str, /, **arguments: Any) -> Any:
        package = self._packages.setdefault(skill, read_folder(_SKILLS / skill))
        tool = next(tool for tool in package.tools if tool.name == name)
        assert self._schemas.problem(package.digest, name, "in", tool.input_schema, arguments) is None
        job = Job(_SKILLS / skill, package.digest, tool, arguments, "test", tool.timeout_s)
        result = (await bounded(self._pool.call(job))).result
        assert tool.output_schema is not None
        assert self._schemas.problem(package.digest, name, "out", tool.output_schema, result) is None
        return result


@pytest.fixture
async def samples() -> AsyncIterator[Samples]:
    async with running_pool() as pool:
        yield Samples(pool)


@pytest.mark.parametrize("name", _NAMES)
def test_every_sample_is_a_strict_package_whose_tools_are_all_callable(name: str) -> None:
    package = read_folder(_SKILLS / name)
    assert (package.grade, package.diagnostics) == ("strict", ())
    assert package.name == name
    assert "Use it" in package.description
    assert package.frontmatter["license"] == "Apache-2.0"
    declared = json.loads((_SKILLS / name / "tools.json").read_text())["tools"]
    assert [tool.name for tool in package.tools] == [tool["name"] for tool in declared]
    for tool in package.tools:
        assert f"`{tool.name}`" in package.files["SKILL.md"].decode()
        assert tool.name.replace("_", "").isalnum()


async def test_greet_knows_languages_and_says_which(samples: Samples) -> None:
    assert await samples.call("hello-world", "greet", name="Mei", language="zh-TW") == {
        "greeting": "你好，Mei！",  # noqa: RUF001 - Chinese has its own comma and mark
        "language": "zh",
    }
    assert (await samples.call("hello-world", "greet", name=" Ada  L. "))["greeting"] == "Hello, Ada L.!"
    with pytest.raises(ToolFailed, match="no greeting in 'xx'; there are ar, de"):
        await samples.call("hello-world", "greet", name="A", language="xx")


async def test_runtime_is_answered_by_a_process_of_its_own(samples: Samples) -> None:
    assert (await samples.call("hello-world", "runtime"))["system"] == "Linux"


@pytest.mark.parametrize(
    ("expression", "value", "exact"),
    [
        ("0.1 + 0.2", "0.3", True),
        ("1299.90 * (1 - 15%) / 3", "368.305", True),
        ("1/3*3", "1", True),
        ("17 % 5", "2", True),
        ("17 % -5", "-3", True),
        ("-2**2 + 10^2", "96", True),
        ("sqrt(2.25) + sqrt(2)*0", "1.5", False),
        ("round(2.5) + round(-2.555, 2)", "0.44", True),
        ("2**-3", "0.125", True),
        ("factorial(25)", "15511210043330985984000000", True),
        ("sqrt(2)", "1.414213562373095048801688724", False),
        ("ln(e)", "1", False),
        ("max(1, 250%, 2)", "2.5", True),
    ],
)
async def test_evaluate_is_exact_where_it_says_so(samples: Samples, expression: str, value: str, exact: bool) -> None:
    answer = await samples.call("calculator", "evaluate", expression=expression)
    assert (answer["value"], answer["exact"]) == (value, exact)


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9", "factorial(10**9)", "1e999999", "(" * 900 + "1" + ")" * 900, "1/0", "0**-1", "(-8)**0.5",
        "__import__('os').system('id')", "().__class__", "x + 1", "[1 for i in 5]", "1 if 1 else 2", "", "2..3",
        "9**999999999999.5", "exp(10**6)", "sqrt(-1)", "'a'*9",
    ],
)  # fmt: skip
async def test_evaluate_refuses_what_is_huge_or_no_arithmetic(samples: Samples, expression: str) -> None:
    if not expression:
        expression = " "
    with pytest.raises(ToolFailed) as failed:
        await samples.call("calculator", "evaluate", expression=expression)
    assert failed.value.code == "tool_failed"
    assert failed.value.facts["error_type"] in ("ValueError", "ZeroDivisionError")


@pytest.mark.parametrize(
    ("value", "source", "target", "answer", "exact"),
    [
        ("26.2", "mi", "km", "42.1648128", True),
        ("100", "C", "°F", "212", True),
        ("1", "GiB", "MB", "1073.741824", True),
        ("1", "kn", "mph", "1.15077944802354", False),
    ],
)
async def test_convert_units(samples: Samples, value: str, source: str, target: str, answer: str, exact: bool) -> None:
    arguments = {"value": value, "from": source, "to": target}
    result = await samples.call("calculator", "convert_units", **arguments)
    assert (result["value"], result["exact"]) == (answer, exact)
    with pytest.raises(ToolFailed, match="measure different things"):
        await samples.call("calculator", "convert_units", **(arguments | {"to": "kg"}))


_REVIEWED = """\
import os, sys as system
from typing import *
def f(a=[], *, c={}):
    try:
        x = 1
        return 2
        a.append(3)
    except:
        pass
    if a == None or a is "x":
        logger.info(f"{a}")
    assert (a, "always true")
    return {"a": 1, "a": 2}
async def g():
    time.sleep(1)
    subprocess.Popen("x", shell=True)
    eval("1")
def fine(items: "list[int]", *, start=0):
    total = start
    for item in items:
        total += item
    return total
"""


async def test_review_finds_each_problem_on_its_line_and_nothing_in_good_code(samples: Samples) -> None:
    review = await samples.call("code-review", "review_python", source=_REVIEWED)
    found = {(finding["rule"], finding["line"]) for finding in review["findings"]}
    assert found == {
        ("unused-import", 1), ("star-import", 2), ("mutable-default", 3), ("unused-variable", 5), ("unreachable", 7),
        ("bare-except", 8), ("swallowed-exception", 8), ("none-comparison", 10), ("is-literal", 10),
        ("fstring-logging", 11), ("assert-tuple", 12), ("duplicate-key", 13), ("blocking-in-async", 15),
        ("shell-true", 16), ("eval-exec", 17),
    }  # fmt: skip
    assert review["lines"] == 22
    branches = "def f(a):\n" + "".join(f"    if a == {n}: return {n}\n" for n in range(11))
    (finding,) = (await samples.call("code-review", "review_python", source=branches))["findings"]
    assert (finding["rule"], finding["line"]) == ("complexity", 1)
    assert "12" in finding["message"]


async def test_review_answers_for_what_does_not_parse_and_bounds_its_findings(samples: Samples) -> None:
    (finding,) = (await samples.call("code-review", "review_python", source="x = 1\ndef (:\n"))["findings"]
    assert (finding["rule"], finding["line"]) == ("syntax-error", 2)
    many = await samples.call("code-review", "review_python", source="eval('1')\n" * 300)
    assert (len(many["findings"]), many["omitted"]) == (200, 100)


async def test_summarize_profiles_a_table(samples: Samples) -> None:
    rows = "".join(f"{n},{n / 4},{'Rome' if n % 3 else ''},2024-01-{n:02},{n % 2 == 0}\n" for n in range(1, 21))
    summary = await samples.call("csv-data-summarizer", "summarize", csv="\ufeffid,score,city,day,even\n" + rows)
    columns = {column["name"]: column for column in summary["columns"]}
    assert (summary["rows"], summary["delimiter"], summary["warnings"]) == (20, ",", [])
    assert [column["type"] for column in summary["columns"]] == ["integer", "number", "text", "date", "boolean"]
    assert {key: columns["id"][key] for key in ("min", "max", "mean", "q1", "median", "q3")} == {
        "min": 1, "max": 20, "mean": 10.5, "q1": 5.75, "median": 10.5, "q3": 15.25,
    }  # fmt: skip
    assert columns["id"]["stdev"] == pytest.approx(5.9160797831)
    assert columns["city"]["missing"] == 6
    assert columns["city"]["top"] == [{"value": "Rome", "count": 14}]
    assert (columns["day"]["min"], columns["day"]["max"]) == ("2024-01-01", "2024-01-20")


async def test_summarize_names_what_is_odd(samples: Samples) -> None:
    text = "zip;v;v;n\n" + "01234;1;x;NA\n" * 2 + "".join(f"0{n}000;{n};;\n" for n in range(2, 9)) + "09000;900;y\n"
    summary = await samples.call("csv-data-summarizer", "summarize", csv=text)
    assert summary["delimiter"] == ";"
    assert summary["duplicate_rows"] == 1
    assert any("more than once: v" in warning for warning in summary["warnings"])
    assert any(
        warning.startswith("1 records do not have 4 fields (first: record 11)") for warning in summary["warnings"]
    )
    assert [column["type"] for column in summary["columns"]] == ["text", "integer", "text", "empty"]
    assert summary["columns"][1]["outliers"] == {"count": 1, "most_extreme": [900]}
    with pytest.raises(ToolFailed, match="no rows"):
        await samples.call("csv-data-summarizer", "summarize", csv="\n")
