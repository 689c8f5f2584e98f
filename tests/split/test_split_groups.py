"""Placing documents: groups as slow and obvious code finds them, shares, and what never moves."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from corpus.split.groups import BRIDGE, Members, Placed, components, cut, place, position

RATIOS = (0.7, 0.1, 0.2)
COUNT = 24
NAMES = [f"{number:02x}" for number in range(COUNT)]
PAIRS = st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1)), max_size=40)
KEYS = st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(0, 5)), max_size=20, unique=True)
BATCHES = st.lists(st.integers(0, 2), min_size=COUNT, max_size=COUNT).map(sorted)


def arrays(pairs: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([a for a, _ in pairs], np.int64), np.array([b for _, b in pairs], np.int64)


NO_KEYS = Members(np.zeros(0, np.int64), np.zeros(0, np.int64))


def placed(
    batches: list[int], pairs: Sequence[tuple[int, int]], keys: Sequence[tuple[int, int]] = (), seed: int = 0
) -> Placed:
    documents = NAMES[: len(batches)]
    return place(documents, np.array(batches), arrays(pairs), Members(*arrays(keys)), RATIOS, seed)


def spelled_out(pairs: Sequence[tuple[int, int]], keys: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    """Pairs, and with each key a pair of any two that have it."""
    common = {(a, b) for a, key in keys for b, other in keys if key == other and a < b}
    return common | {(min(pair), max(pair)) for pair in pairs}


@given(PAIRS, KEYS)
def test_groups_are_what_can_be_reached(pairs: list[tuple[int, int]], keys: list[tuple[int, int]]) -> None:
    groups = components(np.arange(COUNT), arrays(pairs), Members(*arrays(keys)))
    both = spelled_out(pairs, keys)
    for start in range(COUNT):
        reached, before = {start}, set()
        while reached != before:
            before = set(reached)
            reached |= {b for a, b in both if a in before} | {a for a, b in both if b in before}
        assert groups[start] == min(reached)


@given(BATCHES, PAIRS, KEYS)
def test_no_pair_joins_two_sides(batches: list[int], pairs: list[tuple[int, int]], keys: list[tuple[int, int]]) -> None:
    sides = placed(batches, pairs, keys).sides
    assert ((sides >= 0) | (sides == BRIDGE)).all()
    assert all(sides[a] == sides[b] for a, b in spelled_out(pairs, keys) if sides[a] >= 0 and sides[b] >= 0)


@given(BATCHES, PAIRS, KEYS)
def test_a_key_does_what_all_its_pairs_would_do(
    batches: list[int], pairs: list[tuple[int, int]], keys: list[tuple[int, int]]
) -> None:
    by_key, by_pairs = placed(batches, pairs, keys), placed(batches, sorted(spelled_out(pairs, keys)))
    assert by_key.sides.tolist() == by_pairs.sides.tolist()


@given(BATCHES, PAIRS, KEYS)
def test_a_later_batch_moves_nothing(
    batches: list[int], pairs: list[tuple[int, int]], keys: list[tuple[int, int]]
) -> None:
    whole = placed(batches, pairs, keys)
    for last in set(batches):
        count = batches.index(last) + batches.count(last)
        own = [(a, b) for a, b in pairs if max(a, b) < count]
        part = placed(batches[:count], own, [(a, key) for a, key in keys if a < count])
        assert part.sides.tolist() == whole.sides[:count].tolist()
        assert part.groups.tolist() == whole.groups[:count].tolist()


@given(BATCHES, PAIRS, KEYS)
def test_a_bridge_belongs_to_documents_on_two_sides(
    batches: list[int], pairs: list[tuple[int, int]], keys: list[tuple[int, int]]
) -> None:
    result, both = placed(batches, pairs, keys), spelled_out(pairs, keys)
    assert set(result.bridged) == set(np.flatnonzero(result.sides == BRIDGE).tolist())
    for bridge, (one, other) in result.bridged.items():
        assert {result.sides[one], result.sides[other]} <= {0, 1, 2} and result.sides[one] != result.sides[other]
        assert all((min(bridge, end), max(bridge, end)) in both for end in (one, other))


@given(BATCHES, PAIRS, KEYS, st.randoms(use_true_random=False))
def test_the_order_of_pairs_is_nothing(
    batches: list[int], pairs: list[tuple[int, int]], keys: list[tuple[int, int]], generator: object
) -> None:
    shuffled, others = [(b, a) for a, b in pairs], list(keys)
    generator.shuffle(shuffled)  # type: ignore[attr-defined]
    generator.shuffle(others)  # type: ignore[attr-defined]
    assert placed(batches, pairs, keys).sides.tolist() == placed(batches, shuffled, others).sides.tolist()


def test_a_new_document_joins_the_side_of_the_old_one() -> None:
    old = placed([0] * 20, [])
    for number in range(20):
        after = placed([0] * 20 + [1, 1], [(number, 21), (20, 21)])
        assert after.sides[20] == after.sides[21] == old.sides[number]
        assert after.groups[20] == after.groups[21] == number


def test_of_a_chain_between_two_sides_one_link_is_dropped() -> None:
    sides = placed([0] * 20, []).sides.tolist()
    train, test = sides.index(0), sides.index(2)
    chain = placed([0] * 20 + [1] * 4, [(train, 20), (20, 21), (21, 22), (22, test)])
    assert chain.sides[20] == 0 and chain.sides[22] == 2
    assert chain.sides[21] == BRIDGE and set(chain.bridged) == {21}
    assert chain.sides[23] >= 0
    lone = placed([0] * 20 + [1] * 3, [(train, 20), (20, test), (20, 21), (21, 22)])
    assert lone.sides[20] == BRIDGE and lone.sides[21] == lone.sides[22] >= 0, "what only a bridge led to is free"


def test_many_groups_follow_the_ratios() -> None:
    names = [str(number) for number in range(5_000)]
    sides = place(names, np.zeros(5_000, np.int64), arrays([]), NO_KEYS, RATIOS, 3).sides
    assert np.bincount(sides).tolist() == [3_500, 500, 1_000]


def test_shares_stay_when_new_documents_join_one_side() -> None:
    batches = np.repeat([0, 1], 500)
    names = [f"{number:04d}" for number in range(1_000)]
    before = place(names[:500], batches[:500], arrays([]), NO_KEYS, RATIOS, 0).sides
    train = np.flatnonzero(before == 0)[:100]
    pairs = (train, np.arange(500, 600))
    after = place(names, batches, pairs, NO_KEYS, RATIOS, 0).sides
    assert np.bincount(after).tolist() == [700, 100, 200]


def test_a_large_group_goes_to_train_and_costs_no_share() -> None:
    for seed in range(20):
        pairs = (np.zeros(99, np.int64), np.arange(1, 100))
        sides = place(
            [str(number) for number in range(1_000)], np.zeros(1_000, np.int64), pairs, NO_KEYS, RATIOS, seed
        ).sides
        assert np.bincount(sides).tolist() == [700, 100, 200] and sides[0] == 0


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.tuples(*[st.integers(0, 9)] * 3))
def test_a_cut_is_in_order_and_gives_every_empty_side_a_group(sizes: list[int], held: tuple[int, int, int]) -> None:
    sides = cut(sizes, held, RATIOS).tolist()
    assert sides == sorted(sides)
    empty = {side for side in range(3) if not held[side]}
    if len(sizes) >= len(empty):
        assert empty <= set(sides)


def test_a_side_of_ratio_zero_stays_empty() -> None:
    assert set(cut([1] * 30, [0, 0, 0], (0.9, 0.1, 0.0)).tolist()) == {0, 1}
    assert set(cut([1] * 30, [0, 0, 0], (0.8, 0.0, 0.2)).tolist()) == {0, 2}


def test_few_more_documents_move_few() -> None:
    names = [str(number) for number in range(1_000)]

    def sides_of(some: list[str]) -> dict[str, int]:
        sides = place(some, np.zeros(len(some), np.int64), arrays([]), NO_KEYS, RATIOS, 0).sides
        return dict(zip(some, sides.tolist(), strict=True))

    before, after = sides_of(names), sides_of([*names, *(f"new {number}" for number in range(10))])
    assert sum(before[name] != after[name] for name in names) <= 10


def test_another_seed_is_another_split() -> None:
    assert placed([0] * COUNT, []).sides.tolist() != placed([0] * COUNT, [], seed=1).sides.tolist()
    assert position("a", 0) != position("a", 1)


def test_who_shares_a_key_with_a_bridge_stays_together() -> None:
    sides = placed([0] * 20, []).sides.tolist()
    train, test = sides.index(0), sides.index(2)
    result = placed([0] * 20 + [1] * 4, [(train, 20), (20, test)], [(20, 0), (21, 0), (22, 0), (23, 0)])
    assert result.sides[20] == BRIDGE and result.sides[21] == result.sides[22] == result.sides[23] >= 0
