"""A folder of 2,400 skills: some that are looked for, the rest to hide them among."""

import itertools
import json
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.packages import tool, tools_json
from tests.support.service import write_skill

SIZE = 2400
# More than are listed natively.
WITH_TOOLS = 100

_DOES = ("Plans", "Repairs", "Compares", "Documents", "Teaches")
_OF = (
    "copper", "paper", "velvet", "bamboo", "marble", "amber", "felt", "clay", "willow", "silver", "cork", "linen",
    "walnut", "slate", "ivory", "brass", "straw", "porcelain", "leather", "sandstone", "birch", "pewter", "silk", "wax",
)  # fmt: skip
_WHAT = (
    "kettles", "lanterns", "violins", "beehives", "canoes", "chess sets", "greenhouses", "puppets", "clocks", "kites",
    "masks", "bridges", "saddles", "mosaics", "birdhouses", "sundials", "looms", "flutes", "globes", "windmills",
)  # fmt: skip
_RUN = "def run(arguments):\n    return arguments\n"


def fill(skills: Path, count: int) -> None:
    """Adds skills that no request is about; the first `WITH_TOOLS` of them have a tool each."""
    combined = itertools.product(_WHAT, _OF, _DOES)
    for number, (what, of, does) in enumerate(itertools.islice(combined, count)):
        name = "-".join(f"{does} {of} {what}".lower().split())
        folder = write_skill(skills, name, f"{does} {of} {what}. Use when somebody asks about {what} made of {of}.")
        if number < WITH_TOOLS:
            (folder / "run.py").write_text(_RUN)
            (folder / "tools.json").write_bytes(tools_json(tool(command=["python", "run.py:run"])))


def write(skills: Path, descriptions: Mapping[str, str]) -> None:
    for name, description in descriptions.items():
        write_skill(skills, name, json.dumps(description))  # quoted: some hold a colon
    fill(skills, SIZE - len(descriptions))


def unpack(archive: Path, skills: Path) -> int:
    """The packages of a `.tar.xz`, below one folder; answers how many skills can be served of them at most."""
    with lzma.open(archive) as stream, tarfile.open(fileobj=stream) as files:
        files.extractall(skills / "unpacked", filter="data")
    return len(list(skills.glob("unpacked/**/SKILL.md")))
