import hashlib

from services.skills.export import write_zip


def test_the_bytes_of_an_export_are_those_they_have_always_been() -> None:
    """A golden digest: other bytes for the same version would make every host fetch it again."""
    made = write_zip("a", [("b.txt", b"two\n"), ("SKILL.md", b"one\n")])
    assert made == write_zip("a", [("SKILL.md", b"one\n"), ("b.txt", b"two\n")])
    assert hashlib.sha256(made).hexdigest() == "edee5ba5c2937b17b160f93c5f2fd310b2812fe22645ec4277890965036597ef"
