from hypothesis import given
from hypothesis import strategies as st

from corpus.split.groups import assign, group_by_edges, position

RATIOS = {"train": 0.7, "validation": 0.1, "test": 0.2}
IDS = [f"{number:02x}" for number in range(30)]
EDGES = st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from(IDS)), max_size=40)


@given(EDGES)
def test_groups_are_what_can_be_reached(edges: list[tuple[str, str]]) -> None:
    groups = group_by_edges(IDS, edges)
    for start in IDS:
        reached, before = {start}, set()
        while reached != before:
            before = set(reached)
            reached |= {b for a, b in edges if a in before} | {a for a, b in edges if b in before}
        assert groups[start] == min(reached)


@given(EDGES, st.randoms(use_true_random=False))
def test_the_order_of_edges_does_not_matter(edges: list[tuple[str, str]], generator: object) -> None:
    shuffled = list(edges)
    generator.shuffle(shuffled)  # type: ignore[attr-defined]
    assert group_by_edges(IDS, edges) == group_by_edges(reversed(IDS), shuffled)


@given(st.sets(st.text(min_size=1, max_size=8), min_size=3, max_size=12), st.integers(0, 5))
def test_three_groups_give_every_split_one(groups: set[str], seed: int) -> None:
    splits, moved = assign(groups, RATIOS, seed)
    assert set(splits) == groups
    assert set(splits.values()) == set(RATIOS)
    by_position = {group: position(group, seed) for group in groups}
    expected = {g: "train" if p < 0.7 else "validation" if p < 0.8 else "test" for g, p in by_position.items()}
    assert sum(splits[group] != expected[group] for group in groups) <= moved <= 2


def test_fewer_groups_than_splits_stay_where_they_fall() -> None:
    assert assign(["one"], RATIOS, 0)[1] == 0
    assert assign([], RATIOS, 0) == ({}, 0)


def test_a_split_of_ratio_zero_stays_empty() -> None:
    splits, moved = assign(IDS, {"train": 0.9, "validation": 0.1, "test": 0.0}, 0)
    assert set(splits.values()) == {"train", "validation"}
    assert moved == 0


def test_many_groups_follow_the_ratios() -> None:
    splits, moved = assign([str(number) for number in range(20_000)], RATIOS, 3)
    assert moved == 0
    for name, ratio in RATIOS.items():
        assert abs(sum(split == name for split in splits.values()) / 20_000 - ratio) < 0.01


def test_new_groups_move_no_old_one() -> None:
    groups = [str(number) for number in range(200)]
    before, _ = assign(groups, RATIOS, 0)
    after, _ = assign([*groups, "another", "0a"], RATIOS, 0)
    assert before == {group: after[group] for group in groups}


def test_another_seed_is_another_split() -> None:
    assert assign(IDS, RATIOS, 0) != assign(IDS, RATIOS, 1)
