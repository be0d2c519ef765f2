"""A chain of records: whatever is done to it is found, at the record that it was done to."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.audit.chain import HASHED, Seal, compare, head_of, judge, seal, who
from services.audit.nouns import AuditHead, AuditRecord
from services.models import Change

AT = "2026-11-26T00:00:00.000Z"
SEAL = Seal("a key that is not in the database")
ANOTHER = Seal("another key, which is not in it too")
PLAIN = Seal()


def change(seq: int, **members: Any) -> Change:
    at = f"2026-11-26T00:00:{seq:02d}.000Z"
    data = msgspec.json.encode({"id": "main/alpha", "version": seq, "by": "ann"})
    row = Change(
        f"e0-{seq}-{seq:08x}", "", seq, "skills", "skill.published", "skill:main/alpha", "main", "public", at, data
    )
    return msgspec.structs.replace(row, **members)


def chain(count: int, by_seal: Seal = SEAL, before: AuditHead | None = None) -> list[AuditRecord]:
    first = before.seq + 1 if before else 1
    return seal([change(seq) for seq in range(first, first + count)], before, AT, by_seal)


def flipped(value: Any) -> Any:
    """Another value of the same type, one bit or one sign away."""
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1])
    if isinstance(value, int):
        return value + 1000
    return value[:-1] + chr(ord(value[-1]) ^ 1) if value else "x"


def found(records: list[AuditRecord], by_seal: Seal = SEAL, before: AuditHead | None = None) -> tuple[int, str] | None:
    finding = judge(records, before, by_seal)
    return finding and (finding.seq, finding.problem)


@pytest.mark.parametrize("by_seal", [PLAIN, SEAL], ids=["plain", "keyed"])
def test_a_chain_is_good_as_it_was_made_read_at_once_or_in_pages(by_seal: Seal) -> None:
    records = chain(9, by_seal)
    assert judge(records, None, by_seal) is None
    for cut in range(1, 9):
        assert judge(records[cut:], head_of(records[cut - 1]), by_seal) is None


def test_the_hash_covers_every_member_of_a_record() -> None:
    assert {*HASHED, "data", "prev", "hash"} == set(AuditRecord.__struct_fields__)


@pytest.mark.parametrize("by_seal", [PLAIN, SEAL], ids=["plain", "keyed"])
@pytest.mark.parametrize("name", AuditRecord.__struct_fields__)
@pytest.mark.parametrize("at", [0, 4, 8], ids=["first", "middle", "last"])
def test_a_member_that_was_changed_is_found_in_its_record(by_seal: Seal, name: str, at: int) -> None:
    records = chain(9, by_seal)
    records[at] = msgspec.structs.replace(records[at], **{name: flipped(getattr(records[at], name))})
    finding = judge(records, None, by_seal)
    assert finding is not None
    assert finding.seq == records[at].seq


@given(st.data())
def test_a_single_bit_of_any_text_or_of_the_data_does_not_pass(data: st.DataObject) -> None:
    records = chain(5)
    at = data.draw(st.integers(0, 4))
    name = data.draw(st.sampled_from([name for name in AuditRecord.__struct_fields__ if name != "seq"]))
    value = getattr(records[at], name)
    raw = value if isinstance(value, bytes) else value.encode()
    where = data.draw(st.integers(0, len(raw) - 1))
    spoilt = raw[:where] + bytes([raw[where] ^ (1 << data.draw(st.integers(0, 6)))]) + raw[where + 1 :]
    records[at] = msgspec.structs.replace(
        records[at], **{name: spoilt if isinstance(value, bytes) else spoilt.decode("latin-1")}
    )
    assert found(records) is not None
    assert found(records)[0] == at + 1  # type: ignore[index]  # it is not None


@given(st.integers(2, 12), st.data())
def test_records_that_were_removed_are_found_where_they_were(count: int, data: st.DataObject) -> None:
    records = chain(count)
    first = data.draw(st.integers(0, count - 2))
    last = data.draw(st.integers(first, count - 2))
    del records[first : last + 1]
    assert found(records) == (last + 2 if first == 0 else first + 1, "missing")


@given(st.integers(2, 12), st.data())
def test_records_that_were_exchanged_are_found_where_the_first_was(count: int, data: st.DataObject) -> None:
    records = chain(count)
    one = data.draw(st.integers(0, count - 2))
    other = data.draw(st.integers(one + 1, count - 1))
    records[one], records[other] = records[other], records[one]
    where = found(records)
    assert where is not None
    assert where == ((other + 1, "missing") if one == 0 else (one + 1, "out of order"))

    numbered = chain(count)
    a, b = numbered[one], numbered[other]
    numbered[one], numbered[other] = (
        msgspec.structs.replace(b, seq=a.seq),
        msgspec.structs.replace(a, seq=b.seq),
    )
    assert found(numbered) == (one + 1, "changed")


def test_a_record_that_stands_twice_is_out_of_order() -> None:
    records = chain(4)
    assert found([*records[:3], records[2], records[3]]) == (3, "out of order")


def test_what_was_made_anew_without_the_key_is_found_where_that_begins() -> None:
    records = chain(6)
    for forger in (PLAIN, ANOTHER):
        forged = seal([change(seq, kind="skill.deleted") for seq in (4, 5, 6)], head_of(records[2]), AT, forger)
        assert found([*records[:3], *forged]) == (4, "not keyed" if forger is PLAIN else "wrong key")
    lying = [msgspec.structs.replace(record, key_id=SEAL.key_id) for record in chain(3, PLAIN, head_of(records[2]))]
    assert found([*records[:3], *lying]) == (4, "changed")


def test_what_one_with_the_key_seals_anew_is_found_where_the_old_part_goes_on() -> None:
    records = chain(6)
    anew = seal([change(3, kind="skill.deleted")], head_of(records[1]), AT, SEAL)
    assert found([*records[:2], *anew, *records[3:]]) == (4, "changed")
    assert found([*records[:2], *anew]) is None, "nothing but a head that was noted shows it"


def test_what_is_sealed_anew_and_named_by_the_next_is_found_there() -> None:
    records = chain(6, PLAIN)
    (anew,) = seal([change(3, kind="skill.deleted")], head_of(records[1]), AT, PLAIN)
    records[2:4] = [anew, msgspec.structs.replace(records[3], prev=anew.hash)]
    assert found(records, PLAIN) == (4, "changed")


def test_a_key_that_comes_later_leaves_what_was_sealed_before() -> None:
    plain = chain(3, PLAIN)
    keyed = chain(3, SEAL, head_of(plain[-1]))
    assert found([*plain, *keyed]) is None
    assert found([*plain, *keyed], PLAIN) == (4, "wrong key")
    assert found([*plain, *keyed], ANOTHER) == (4, "wrong key")
    assert {record.key_id for record in plain} == {""}
    assert len({record.key_id for record in keyed}) == 1


def test_rows_that_went_before_they_were_sealed_are_said_to_be_that() -> None:
    first = chain(2)
    finding = judge([*first, *seal([change(5)], head_of(first[-1]), AT, SEAL)], None, SEAL)
    assert finding is not None
    assert (finding.seq, finding.problem, finding.detail) == (3, "missing", "3 to 4: never sealed")


def test_a_chain_may_begin_at_any_row_but_not_in_its_middle() -> None:
    records = seal([change(7), change(8)], None, AT, SEAL)
    assert found(records) is None
    assert found(records[1:]) == (8, "missing")


@pytest.mark.parametrize("name", ["at", "topic", "kind", "dep", "owner", "visibility", "data", "id"])
def test_a_kept_row_that_says_something_else_is_found(name: str) -> None:
    records, rows = chain(5), [change(seq) for seq in range(1, 6)]
    assert compare(records, rows) is None
    rows[2] = msgspec.structs.replace(rows[2], **{name: flipped(getattr(rows[2], name))})
    finding = compare(records, rows)
    assert finding is not None
    assert (finding.seq, finding.problem) == (3, "not as the change log has it")


def test_rows_that_are_not_kept_any_more_are_not_missed() -> None:
    records, rows = chain(5), [change(seq) for seq in range(1, 6)]
    assert compare(records, rows[3:]) is None
    assert compare(records, []) is None


@pytest.mark.parametrize(
    ("data", "by"),
    [
        (b'{"by":"ann"}', "ann"),
        (b'{"by":"a\\u0000b"}', "a\N{REPLACEMENT CHARACTER}b"),
        (b'{"tools":[]}', ""),
        (b'{"by":7}', ""),
        (b"[1]", ""),
        (b"not JSON", ""),
    ],
)
def test_who_did_it_is_what_the_data_says_in_a_form_that_can_be_kept(data: bytes, by: str) -> None:
    assert who(data) == by
