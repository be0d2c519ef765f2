import hashlib
import io
import tarfile

from services.skills.bundle import tar_gz

FILES = {"SKILL.md": b"---\nname: a\n---\n", "scripts/run.py": b"#!/usr/bin/env python3\n", "a/" + "x" * 150: b""}


def test_the_same_files_give_the_same_bytes_whatever_their_order() -> None:
    assert tar_gz(FILES) == tar_gz(dict(reversed(FILES.items())))
    # Another digest here would make every client of an older release see a change where there is none.
    assert hashlib.sha256(tar_gz({"SKILL.md": b"text"})).hexdigest() == (
        "55aa94512e81af41a616f4ab74b85f4451906a3fd6a9ca4f26c43a6ed6f92ef0"
    )


def test_an_archive_holds_plain_files_with_fixed_marks() -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_gz(FILES))) as archive:
        entries = {entry.name: entry for entry in archive.getmembers()}
        assert entries.keys() == FILES.keys()
        for name, data in FILES.items():
            file = archive.extractfile(entries[name])
            assert file is not None
            assert file.read() == data
    marks = {name: (entry.mode, entry.mtime, entry.uid, entry.type) for name, entry in entries.items()}
    assert marks["SKILL.md"] == (0o644, 0, 0, tarfile.REGTYPE)
    assert marks["scripts/run.py"] == (0o755, 0, 0, tarfile.REGTYPE)
