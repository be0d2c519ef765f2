"""Trains the compression dictionary of cached records: `python scripts/train_dictionary.py ID`.

Writes `services/cache/skills-<ID>.zdict`. A new dictionary needs a new ID and a new
`DICTIONARY_ID` in `services/cache/codec.py`: what was compressed with another one is unreadable,
and is treated as absent. Samples are what the cache holds: details, version lists and files of the
sample skills, and the same shapes filled with everyday words of the trade.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import zstandard

ROOT = Path(__file__).resolve().parent.parent
DICTIONARY_BYTES = 32 * 1024
SAMPLES = 3000
_CHUNK_BYTES = 1500

VERBS = ["analyze", "audit", "build", "check", "convert", "create", "debug", "deploy", "extract", "format", "generate"]
VERBS += ["migrate", "monitor", "parse", "plan", "publish", "query", "refactor", "release", "review", "search", "test"]
THINGS = ["API", "CI", "CSV", "Docker", "GitHub", "JSON", "Kubernetes", "PDF", "PostgreSQL", "Python", "SQL", "YAML"]
THINGS += [
    "agents",
    "branches",
    "charts",
    "code",
    "commits",
    "containers",
    "dashboards",
    "data",
    "dependencies",
    "files",
]
THINGS += ["issues", "logs", "metrics", "models", "notebooks", "packages", "pipelines", "prompts", "reports", "schemas"]
THINGS += ["scripts", "services", "tables", "tests", "tickets", "tools", "translations", "workflows"]
SENTENCES = (
    "Use this skill when the user asks to {v} {t} or mentions {u}.",
    "This skill helps you {v} {t} step by step. It provides guidance, best practices and templates for {u}.",
    "## When to use this skill\n\n- The user wants to {v} {t}\n- A file with {u} is given\n- You need to {v} {u}\n",
    "## Instructions\n\n1. Read the {t} first.\n2. Run `python scripts/{v}.py --input {u}`.\n3. Report the result.\n",
    "## Examples\n\n```python\nimport json\nfrom pathlib import Path\n\n\ndef {v}(path: str) -> dict:\n    return \
json.loads(Path(path).read_text())\n```\n",
    "## Guidelines\n\n- Do not change {u} without asking.\n- Always {v} the {t} before you answer.\n- Prefer {u}.\n",
    "## Workflow\n\n### Step 1: Understand the {t}\n\nAsk the user for more information if it is not clear.\n",
    "## Prerequisites\n\n- **{t}** must be installed and configured\n- Access to the {u} of the project\n",
    "## Troubleshooting\n\n| Problem | Solution |\n|---|---|\n| {t} not found | Check that the path is correct |\n",
    '## Output format\n\nReturn the following structure:\n\n```json\n{{"name": "{t}", "description": "{u}"}}\n```\n',
    "## Overview\n\nThe following section describes how to {v} {t} with {u}, and which options are available.\n",
    "## References\n\n- [Documentation](https://github.com/example/{v})\n- [{t}](https://docs.example.com/en/latest/)\n",
    "See [references/{v}.md](references/{v}.md) for more details about {t}.\n",
    '```bash\npip install {u}\nnpm install --save-dev\ngit commit -m "{v} {t}"\ncurl -s https://api.example.com\n```\n',
    "| Option | Type | Description | Default |\n|---|---|---|---|\n| `--{v}` | string | {t} to {v} | `none` |\n",
    "**Important:** make sure that the {t} and the {u} are in the same directory, and that you have the right \
permissions. If the command fails, check the error message and try again with the correct version.",
    "```yaml\nname: {v}\non:\n  push:\n    branches: [main]\njobs:\n  build:\n    runs-on: ubuntu-latest\n```\n",
    "```typescript\nimport {{ {v} }} from './{v}';\n\nexport async function main(): Promise<void> {{\n  const result = \
await {v}();\n  console.log(result);\n}}\n```\n",
    "- [ ] All {t} have been reviewed\n- [ ] The tests pass\n- [ ] The documentation has been updated\n",
    "You are an expert in {t}. Your task is to {v} the {u} that the user has provided, following the standards \
of the project. Do not include any information that is not needed.",
)


def described(rng: random.Random) -> str:
    return rng.choice(SENTENCES).format(v=rng.choice(VERBS), t=rng.choice(THINGS), u=rng.choice(THINGS))


def made_up(rng: random.Random) -> bytes:
    """A record of one of the shapes the cache holds, about nothing that exists."""
    name = f"{rng.choice(VERBS)}-{rng.choice(THINGS)}".lower()
    description = " ".join(described(rng) for _ in range(rng.randint(1, 3)))
    digest = f"sha256:{rng.randbytes(32).hex()}"
    stamp = (
        f"2026-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}T{rng.randint(0, 23):02}:00:00.{rng.randint(0, 999):03}Z"
    )
    manifest: list[dict[str, object]] = [
        {"path": path, "sha256": rng.randbytes(32).hex(), "size": rng.randint(100, 9000)}
        for path in ("SKILL.md", "tools.json", f"scripts/{name}.py", f"references/{name}.md")[: rng.randint(1, 4)]
    ]
    version = {
        "version": rng.randint(1, 20), "digest": digest, "grade": "strict", "description": description,
        "manifest": manifest, "created_at": stamp, "created_by": "watcher", "active": True,
    }  # fmt: skip
    schema = {
        "type": "object",
        "properties": {"text": {"type": "string", "description": described(rng)}},
        "required": ["text"],
    }
    detail = {
        "id": f"main/{name}", "owner": "main", "name": name, "description": description, "version": version["version"],
        "digest": digest, "grade": "strict", "status": "active", "visibility": "public", "seq": rng.randint(1, 9999),
        "frontmatter": {"name": name, "description": description, "license": "MIT", "metadata": {"version": "1.0"}},
        "manifest": manifest, "diagnostics": [],
        "tools": [{"name": f"main_{name}_run", "title": "run", "description": described(rng), "inputSchema": schema,
                   "outputSchema": None}],
    }  # fmt: skip
    shape = rng.choice(("detail", "versions", "version", *["markdown"] * 4))
    if shape == "markdown":
        text = "\n".join(described(rng) for _ in range(rng.randint(4, 12)))
        return f"---\nname: {name}\ndescription: '{description}'\n---\n\n# {name.title()}\n\n{text}".encode()
    value = {"detail": detail, "versions": {"items": [version]}, "version": version}[shape]
    return json.dumps(value, separators=(",", ":")).encode()


def sample_files() -> Iterator[bytes]:
    """What the sample skills and the documents of this repository say, in pieces."""
    for path in sorted([*(ROOT / "skills").rglob("*"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]):
        if path.suffix in (".md", ".py", ".json"):
            data = path.read_bytes()
            yield from (data[start : start + _CHUNK_BYTES] for start in range(0, len(data), _CHUNK_BYTES))


def main() -> int:
    number = int(sys.argv[1])
    rng = random.Random(number)
    samples: list[bytes | bytearray | memoryview] = [*sample_files()] * 8
    samples += [made_up(rng) for _ in range(SAMPLES)]
    trained = zstandard.train_dictionary(DICTIONARY_BYTES, samples, dict_id=number, level=3)
    path = ROOT / "services" / "cache" / f"skills-{number}.zdict"
    path.write_bytes(trained.as_bytes())
    sys.stderr.write(f"{path.name}: {len(trained.as_bytes())} bytes from {len(samples)} samples\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
