from services.search.hybrid import fuse


def test_a_document_that_both_legs_like_comes_first() -> None:
    ranked = fuse({"a": 0.9, "b": 0.88, "c": 0.1}, {"b": 7.0, "c": 1.0})
    assert [hit.id for hit in ranked] == ["b", "a", "c"]


def test_meaning_outweighs_words_when_the_legs_disagree_equally() -> None:
    ranked = fuse({"meant": 1.0, "named": 0.0}, {"named": 5.0, "meant": 0.0})
    assert [hit.id for hit in ranked] == ["meant", "named"]


def test_equal_scores_are_ordered_by_id() -> None:
    ranked = fuse({"b": 0.5, "c": 0.5, "a": 0.5}, {})
    assert [hit.id for hit in ranked] == ["a", "b", "c"]


def test_a_leg_that_found_nothing_leaves_the_order_of_the_other() -> None:
    assert [hit.id for hit in fuse({"a": 0.1, "b": 0.9}, {})] == ["b", "a"]
    assert [hit.id for hit in fuse({}, {"a": 0.1, "b": 0.9})] == ["b", "a"]
    assert fuse({}, {}) == []


def test_each_hit_tells_what_each_leg_said_of_it() -> None:
    by_id = {hit.id: hit for hit in fuse({"a": 0.9}, {"b": 3.0})}
    assert (by_id["a"].dense, by_id["a"].lexical) == (0.9, None)
    assert (by_id["b"].dense, by_id["b"].lexical) == (None, 3.0)
