"""Every archive of the research corpus is refused with an error of ours, fast and in little memory."""

import io
import os
import stat
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.failures import Invalid, ServiceError, TooLarge
from services.skills.archive import EntryCount, read_zip
from services.skills.package import FILES_MAX, PACKAGE_BYTES_MAX, from_files
from tests.support.cost import floor_s
from tests.support.hostile import CENTRAL, LOCAL, patched, quoted_overlap, with_entry
from tests.support.packages import directory_end, directory_entry, skill_md, zip_of

GOOD = {"SKILL.md": skill_md(), "scripts/run.py": b"print('hello')\n" * 40, "references/a.md": b"text\n" * 100}


@contextmanager
def refused(
    kind: type[ServiceError], reason: str, *, floors: float = 60, peak_bytes: int = 50_000_000
) -> Iterator[None]:
    """The block must raise `kind`, for at most so many times the cost of hashing a package, and in little memory."""
    floor_s()  # measured before memory is traced
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(kind, match=reason):
            yield
        # tracemalloc makes every allocation some times slower; what is measured is thus an upper bound
        assert time.process_time() - started < floors * floor_s()
        assert tracemalloc.get_traced_memory()[1] < peak_bytes
    finally:
        tracemalloc.stop()


def test_a_zip_of_the_content_and_one_of_the_folder_are_one_package() -> None:
    flat = read_zip(zip_of(GOOD))
    folded = read_zip(zip_of({f"demo/{path}": content for path, content in GOOD.items()}))
    assert flat.digest == folded.digest == from_files(GOOD).digest
    assert (flat.grade, folded.grade) == ("strict", "strict")
    assert dict(folded.files) == GOOD


def test_the_top_folder_is_the_folder_of_the_package() -> None:
    package = read_zip(zip_of({"other/SKILL.md": skill_md("demo")}))
    assert (package.grade, package.name) == ("lenient", "demo")


def test_what_a_mac_adds_is_no_part_of_the_package() -> None:
    added = {"__MACOSX/demo/._SKILL.md": b"x", "demo/.DS_Store": b"x", "__MACOSX/._demo": b"x"}
    package = read_zip(zip_of({"demo/SKILL.md": skill_md(), **added}))
    assert (package.grade, list(package.files)) == ("strict", ["SKILL.md"])


def test_two_top_folders_are_not_stripped() -> None:
    package = read_zip(zip_of({"a/SKILL.md": skill_md("a"), "b/SKILL.md": skill_md("b")}))
    assert (package.grade, sorted(package.files)) == ("quarantined", ["a/SKILL.md", "b/SKILL.md"])


@pytest.mark.parametrize("name", ["only.txt", "__MACOSX/x", "deep/er/SKILL.md"])
def test_a_zip_without_a_skill_at_its_top_is_quarantined(name: str) -> None:
    assert read_zip(zip_of({name: skill_md()})).grade == "quarantined"


def test_folders_links_aside_entries_for_folders_are_harmless() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.mkdir("demo")
        archive.mkdir("demo/empty")
        archive.writestr("demo/SKILL.md", skill_md())
    assert read_zip(buffer.getvalue()).grade == "strict"


def test_stored_entries_and_zip64_fields_are_read() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("SKILL.md", "w", force_zip64=True) as file:
        file.write(skill_md())
    assert read_zip(buffer.getvalue()).grade == "strict"
    assert read_zip(zip_of(GOOD, zipfile.ZIP_STORED)).digest == from_files(GOOD).digest


@pytest.mark.parametrize(
    "name",
    [
        "../up.md",
        "a/../../up.md",
        "/etc/passwd",
        "C:\\x.md",
        "C:x.md",
        "a\\..\\x.md",
        "\\\\host\\share",
        "./a.md",
        "a//b.md",
        "bell\x07.md",
        "\u202egpj.exe",
        "x" * 300,
        "/".join(["d"] * 20),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(name: str) -> None:
    with refused(Invalid, "not allowed"):
        read_zip(with_entry(name))


@pytest.mark.parametrize("names", [("SKILL.md\0.txt", "SKILL.mdX.txt"), ("a.md\0/../x", "a.mdX/../x")])
def test_a_name_that_ends_early_is_refused(names: tuple[str, str]) -> None:
    name, placeholder = names
    with refused(Invalid, "not allowed"):
        read_zip(with_entry(placeholder).replace(placeholder.encode(), name.encode()))


def test_half_a_surrogate_pair_in_a_name_is_refused() -> None:
    with refused(Invalid, "not a readable zip"):
        read_zip(with_entry("\u20ac.md").replace("\u20ac".encode(), b"\xed\xa0\x80"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_only_regular_files_are_taken(kind: int) -> None:
    with refused(Invalid, "not a regular file"):
        read_zip(with_entry("link", b"/etc/passwd", kind | 0o777))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [("SKILL.md", "skill.MD"), ("SKILL.md", "SKILL.md"), ("\u00e9.md", "e\u0301.md"), ("a", "a/b"), ("a/b", "A")],
)
def test_names_that_collide_anywhere_are_refused(names: tuple[str, str]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, skill_md())
    with refused(Invalid, "stands twice"):
        read_zip(buffer.getvalue())


def test_overlapped_entries_are_refused() -> None:
    """CVE-2024-0450: 100 KB that read as a megabyte and a half, each entry valid for itself."""
    data = quoted_overlap(15, os.urandom(100_000))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert sum(len(archive.read(entry)) for entry in archive.infolist()) > 1_500_000
    with refused(Invalid, "overlaps"):
        read_zip(data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_data_under_many_names_is_refused() -> None:
    data = zip_of({"SKILL.md": b"x" * 1000})
    start = data.rindex(CENTRAL)
    entry = data[start : data.rindex(b"PK\x05\x06")]
    with refused(Invalid, "overlaps"):
        read_zip(data[:start] + entry * 3 + directory_end(3, len(entry) * 3, start))


def test_a_bomb_of_deflate_is_refused_before_it_is_inflated() -> None:
    data = zip_of({"SKILL.md": skill_md(), "zeros": bytes(8_000_000)})
    with refused(TooLarge, "far more than a real package", peak_bytes=2_000_000):
        read_zip(data)


def test_more_bytes_than_a_package_holds_are_refused() -> None:
    data = zip_of({"SKILL.md": skill_md(), "a": os.urandom(PACKAGE_BYTES_MAX)}, zipfile.ZIP_STORED)
    with refused(TooLarge, "unpacks to", peak_bytes=2_000_000):
        read_zip(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_whose_output_cannot_be_bounded_are_refused(method: int) -> None:
    """64 KB of bzip2 are a gigabyte, and `zipfile` inflates them in one piece whatever it was asked for."""
    data = patched(
        zip_of({"SKILL.md": skill_md(), "zeros": bytes(60_000_000)}, method), CENTRAL, 24, struct.pack("<L", 1000)
    )
    with refused(Invalid, "method other than deflate", peak_bytes=2_000_000):
        read_zip(data)


def test_one_file_too_many_is_refused() -> None:
    files = {f"f{at}": b"" for at in range(FILES_MAX - 1)}
    assert read_zip(zip_of({"SKILL.md": skill_md(), **files})).grade == "strict"
    with refused(TooLarge, f"holds {FILES_MAX + 1} files"):
        read_zip(zip_of({"SKILL.md": skill_md(), "one-more": b"", **files}))


@pytest.mark.parametrize("stated", [600_000, 1])
def test_a_directory_of_very_many_entries_is_refused_unread(stated: int) -> None:
    """`zipfile` reads what the directory holds, not what its end states, at 10 us and 500 bytes each."""
    directory = directory_entry(b"a") * 600_000
    data = directory + directory_end(stated, len(directory), 0)
    with refused(TooLarge, "far more than 512 files", peak_bytes=1_000_000):
        read_zip(data)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 4096])
def test_entries_are_counted_while_they_arrive_in_pieces_of_any_size(size: int) -> None:
    directory = directory_entry(b"a") * (8 * FILES_MAX)
    count = EntryCount()
    for at in range(0, len(directory), size):
        count.take(directory[at : at + size])
    with refused(TooLarge, "far more than 512 files"):
        for at in range(0, 4, size):
            count.take(b"PK\x01\x02"[at : at + size])


def test_very_many_folders_are_refused_unread() -> None:
    directory = b"".join(directory_entry(b"%06d/" % at) for at in range(100_000))
    data = directory + directory_end(0, len(directory), 0)
    with refused(TooLarge, "far more than", peak_bytes=1_000_000):
        read_zip(data)


@pytest.mark.parametrize("size", [0, 1, 10, 1000, 10_000_000, 2**32 - 1])
def test_a_stated_size_that_is_not_the_real_one_is_refused(size: int) -> None:
    data = patched(zip_of({**GOOD, "z": os.urandom(100_000)}), CENTRAL, 24, struct.pack("<L", size))
    with refused(ServiceError, "cannot be read|size it states|unpacks to"):
        read_zip(data)


@pytest.mark.parametrize("size", [0, 10, 99_000, 2**32 - 1])
def test_a_stated_packed_size_that_is_not_the_real_one_is_refused(size: int) -> None:
    data = patched(zip_of({**GOOD, "z": os.urandom(100_000)}), CENTRAL, 20, struct.pack("<L", size))
    with refused(Invalid, "cannot be read|beyond the end"):
        read_zip(data)


def test_encrypted_entries_are_refused() -> None:
    data = zip_of(GOOD)
    with refused(Invalid, "cannot be read"):
        read_zip(patched(patched(data, CENTRAL, 8, b"\x01"), LOCAL, 6, b"\x01"))


def test_damaged_data_is_refused() -> None:
    data = patched(zip_of({**GOOD, "z": os.urandom(1000)}), LOCAL, 31, b"\xff" * 8)
    with refused(Invalid, "invalid block type"):
        read_zip(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"not a zip at all",
        b"\x1f\x8b\x08" + bytes(100),
        bytes(100_000),
        b"PK\x05\x06" * 20_000,
        directory_end(1, 2**32 - 1, 2**32 - 1),
        directory_end(0xFFFF, 100, 2**31),
        directory_entry(b"a") + directory_end(1, 47, 0),
        directory_entry(b"a", at=2**32 - 1) + directory_end(1, 47, 0),
    ],
    ids=range(10),
)
def test_what_is_no_zip_is_refused(data: bytes) -> None:
    with refused(Invalid, "."):
        read_zip(data)


def test_an_empty_zip_is_refused() -> None:
    with refused(Invalid, "empty"):
        read_zip(directory_end(0, 0, 0))


@pytest.mark.parametrize("offset", [0, 2**62, 2**63, 2**64 - 1])
@pytest.mark.parametrize("size", [0, 100, 2**63, 2**64 - 1])
@pytest.mark.parametrize("end64_at", [47, 2**64 - 1])
def test_zip64_fields_of_any_size_are_refused(offset: int, size: int, end64_at: int) -> None:
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size, offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end64_at, 1)
    data = directory_entry(b"a") + end64 + locator + directory_end(0xFFFF, 2**32 - 1, 2**32 - 1)
    with refused(Invalid, "."):
        read_zip(data)


def test_a_zip_cut_anywhere_is_refused() -> None:
    data = zip_of({"SKILL.md": skill_md()})
    for length in range(len(data)):
        with pytest.raises(Invalid):
            read_zip(data[:length])


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_changed_bytes_give_a_package_or_an_error_of_ours(changes: list[tuple[int, int]]) -> None:
    data = bytearray(zip_of({"SKILL.md": skill_md(), "a/b.md": b"text " * 30}))
    for at, value in changes:
        data[at % len(data)] = value
    try:
        package = read_zip(bytes(data))
    except ServiceError:
        return
    assert package.digest


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_package_or_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(ServiceError):
        read_zip(data)
