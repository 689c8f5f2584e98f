"""Placing documents: groups as slow and obvious code finds them, shares, and what never moves."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from corpus.split.groups import BRIDGE, Placed, components, cut, place, position

RATIOS = (0.7, 0.1, 0.2)
COUNT = 24
NAMES = [f"{number:02x}" for number in range(COUNT)]
PAIRS = st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1)), max_size=40)
BATCHES = st.lists(st.integers(0, 2), min_size=COUNT, max_size=COUNT).map(sorted)


def arrays(pairs: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([a for a, _ in pairs], np.int64), np.array([b for _, b in pairs], np.int64)


def placed(batches: list[int], pairs: Sequence[tuple[int, int]], seed: int = 0) -> Placed:
    return place(NAMES[: len(batches)], np.array(batches), arrays(pairs), RATIOS, seed)


@given(PAIRS)
def test_groups_are_what_can_be_reached(pairs: list[tuple[int, int]]) -> None:
    groups = components(np.arange(COUNT), arrays(pairs))
    for start in range(COUNT):
        reached, before = {start}, set()
        while reached != before:
            before = set(reached)
            reached |= {b for a, b in pairs if a in before} | {a for a, b in pairs if b in before}
        assert groups[start] == min(reached)


@given(BATCHES, PAIRS)
def test_no_pair_joins_two_sides(batches: list[int], pairs: list[tuple[int, int]]) -> None:
    sides = placed(batches, pairs).sides
    assert ((sides >= 0) | (sides == BRIDGE)).all()
    assert all(sides[a] == sides[b] for a, b in pairs if sides[a] >= 0 and sides[b] >= 0)


@given(BATCHES, PAIRS)
def test_a_later_batch_moves_nothing(batches: list[int], pairs: list[tuple[int, int]]) -> None:
    whole = placed(batches, pairs)
    for last in set(batches):
        count = batches.index(last) + batches.count(last)
        part = placed(batches[:count], [(a, b) for a, b in pairs if max(a, b) < count])
        assert part.sides.tolist() == whole.sides[:count].tolist()
        assert part.groups.tolist() == whole.groups[:count].tolist()


@given(BATCHES, PAIRS)
def test_a_bridge_resembles_documents_on_two_sides(batches: list[int], pairs: list[tuple[int, int]]) -> None:
    result = placed(batches, pairs)
    assert set(result.bridged) == set(np.flatnonzero(result.sides == BRIDGE).tolist())
    for bridge, (one, other) in result.bridged.items():
        assert {result.sides[one], result.sides[other]} <= {0, 1, 2} and result.sides[one] != result.sides[other]
        assert all((bridge, end) in pairs or (end, bridge) in pairs for end in (one, other))


@given(BATCHES, PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_pairs_does_not_matter(
    batches: list[int], pairs: list[tuple[int, int]], generator: object
) -> None:
    shuffled = [(b, a) for a, b in pairs]
    generator.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = placed(batches, pairs), placed(batches, shuffled)
    assert one.sides.tolist() == other.sides.tolist() and one.bridged == other.bridged


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
    sides = place(names, np.zeros(5_000, np.int64), arrays([]), RATIOS, 3).sides
    assert np.bincount(sides).tolist() == [3_500, 500, 1_000]


def test_shares_stay_when_new_documents_join_one_side() -> None:
    batches = np.repeat([0, 1], 500)
    names = [f"{number:04d}" for number in range(1_000)]
    before = place(names[:500], batches[:500], arrays([]), RATIOS, 0).sides
    train = np.flatnonzero(before == 0)[:100]
    pairs = (train, np.arange(500, 600))
    after = place(names, batches, pairs, RATIOS, 0).sides
    assert np.bincount(after).tolist() == [700, 100, 200]


def test_a_large_group_goes_to_train_and_costs_no_share() -> None:
    for seed in range(20):
        pairs = (np.zeros(99, np.int64), np.arange(1, 100))
        sides = place([str(number) for number in range(1_000)], np.zeros(1_000, np.int64), pairs, RATIOS, seed).sides
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
        sides = place(some, np.zeros(len(some), np.int64), arrays([]), RATIOS, 0).sides
        return dict(zip(some, sides.tolist(), strict=True))

    before, after = sides_of(names), sides_of([*names, *(f"new {number}" for number in range(10))])
    assert sum(before[name] != after[name] for name in names) <= 10


def test_another_seed_is_another_split() -> None:
    assert placed([0] * COUNT, []).sides.tolist() != placed([0] * COUNT, [], seed=1).sides.tolist()
    assert position("a", 0) != position("a", 1)
