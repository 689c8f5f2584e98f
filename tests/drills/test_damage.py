"""Files that were cut or changed on the disk: named and refused, or made anew; never read as if they were whole."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import command, environment
from drill_project import (
    account,
    assert_one_more_run_mends,
    copy_before,
    injected,
    make_project,
    output_of,
    result,
    run_stage,
    sentence_of,
    undisturbed,
)

from corpus.documents import list_parts

Damage = Callable[[bytes], bytes]


def cut(share: float) -> Damage:
    return lambda whole: whole[: int(share * len(whole))]


def flip(seed: int) -> Damage:
    def flipped(whole: bytes) -> bytes:
        place = random.Random(seed).randrange(4, len(whole) - 8)
        return whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :]

    return flipped


DAMAGES: dict[str, Damage] = {
    "nothing left": cut(0),
    "first bytes": lambda whole: whole[:3],
    "half": cut(0.5),
    "without its end": lambda whole: whole[:-1],
    "without its footer": lambda whole: whole[:-200],
    "zeros at the end": lambda whole: whole[:-500] + bytes(500),
    "zeros in the middle": lambda whole: whole[:300] + bytes(100) + whole[400:],
}
DAMAGES |= {f"flipped bit {seed}": flip(seed) for seed in range(5)}


def harm(path: Path, damage: Damage) -> None:
    """Damage a file alone, and not what shares its bytes by a hard link."""
    harmed = damage(path.read_bytes())
    path.unlink()
    path.write_bytes(harmed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("written_by", "read_by"), [("measure", "filter"), ("clean", "perplexity"), ("clean", "dedup"), ("filter", "shard")]
)
def test_a_damaged_part_is_refused_by_name_and_built_anew(
    undisturbed: Path, tmp_path: Path, written_by: str, read_by: str
) -> None:
    project = copy_before(undisturbed, tmp_path / "project", read_by)
    if read_by == "shard":
        shutil.copytree(output_of(undisturbed, "augment"), output_of(project, "augment"), dirs_exist_ok=True)
    part = list_parts(output_of(project, written_by))[1]
    whole = part.read_bytes()
    noticed = 0
    for name, damage in DAMAGES.items() if read_by == "filter" else list(DAMAGES.items())[2::3]:
        harm(part, damage)
        done = run_stage(project, read_by, "--workers", "1")
        if done.returncode == 0:  # what was harmed is nothing that this stage reads
            assert result(project, read_by) == result(undisturbed, read_by), name
            shutil.rmtree(output_of(project, read_by))
        else:
            sentence_of(done, str(part.relative_to(project)))
            assert not output_of(project, read_by).exists()
            noticed += 1
        part.write_bytes(whole)
    assert noticed >= 3
    harm(part, cut(0.7))
    command(project, "corpus", written_by, "--workers", "2")
    assert result(project, written_by) == result(undisturbed, written_by)
    assert_one_more_run_mends(project, undisturbed, read_by)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["measure", "dedup", "filter"])
def test_a_damaged_entry_of_the_store_is_made_anew(undisturbed: Path, tmp_path: Path, stage: str) -> None:
    project = tmp_path / "project"
    shutil.copytree(undisturbed, project)
    entries = sorted((project / ".corpusmill" / "parts" / stage).iterdir())
    harms: list[Callable[[Path], object]] = [
        lambda entry: harm(next(entry.glob("*.parquet")), cut(0.5)),
        lambda entry: harm(next(entry.glob("*.parquet")), flip(1)),
        lambda entry: next(entry.glob("*.parquet")).unlink(),
        lambda entry: (entry / "metrics.json").write_text("{}"),
    ]
    if stage == "filter":
        harms += [
            lambda entry: (entry / "metrics.json").unlink(),
            lambda entry: (entry / "files.json").unlink(),
            lambda entry: (entry / "files.json").write_text("{}"),
            lambda entry: harm(entry / "files.json", cut(0.4)),
            lambda entry: [path.unlink() for path in entry.iterdir()],
        ]
    while harms:
        for entry in entries[:4]:
            if harms:
                harms.pop()(entry)
        command(project, "corpus", stage, "--workers", "1")
        assert result(project, stage) == result(undisturbed, stage)
    assert sorted((project / ".corpusmill" / "parts" / stage).iterdir()) == entries
    account(project, stage)


def test_an_output_that_was_written_over_in_place_takes_nothing_of_the_store_with_it(
    undisturbed: Path, tmp_path: Path
) -> None:
    """Output and store are one file on the disk, of two names."""
    project = copy_before(undisturbed, tmp_path / "project", "filter")
    command(project, "corpus", "filter", "--workers", "1")
    for number, part in enumerate(list_parts(project / "data" / "filter")):
        assert part.stat().st_nlink == 2
        part.write_bytes(cut(0.2 * number)(part.read_bytes()))
    assert_one_more_run_mends(project, undisturbed, "filter")


def test_damaged_memory_of_digests_is_no_memory(undisturbed: Path, tmp_path: Path) -> None:
    project = copy_before(undisturbed, tmp_path / "project", "filter")
    command(project, "corpus", "filter", "--workers", "1")
    for known in (project / ".corpusmill" / "digests").iterdir():
        known.write_text("")
    with (project / "params.yaml").open("a") as file:
        file.write("filter: {bounds: {en: {n_chars: {min: 700}}}}\n")
    command(project, "corpus", "filter", "--workers", "1")
    assert result(project, "filter") != result(undisturbed, "filter")
    shutil.copy(undisturbed / "params.yaml", project)
    assert_one_more_run_mends(project, undisturbed, "filter")


@pytest.mark.parametrize("damage", ["half", "flipped bit 0", "nothing left"])
def test_damaged_edges_are_refused(undisturbed: Path, tmp_path: Path, damage: str) -> None:
    project = copy_before(undisturbed, tmp_path / "project", "split")
    harm(project / "data" / "dedup" / "edges" / "part-00000.parquet", DAMAGES[damage])
    done = run_stage(project, "split", "--workers", "1")
    if done.returncode:
        sentence_of(done, "data/dedup/edges/part-00000.parquet")
    else:
        assert result(project, "split") == result(undisturbed, "split")


@pytest.mark.parametrize("damage", ["half", "nothing left"])
def test_what_a_killed_scrape_left_and_is_damaged_is_read_again(undisturbed: Path, tmp_path: Path, damage: str) -> None:
    project = make_project(tmp_path / "project")
    kill = injected(DRILL_KILL=r"parts/scrape/.*partial/.*dropped", DRILL_ANYWHERE="1")
    for choose in (lambda paths: paths[0], lambda paths: paths[-2], lambda paths: paths[-1]):
        assert run_stage(project, "scrape", "--workers", "1", **kill).returncode == -signal.SIGKILL
        harm(choose(sorted((project / ".corpusmill" / "scrape").glob("*/*/*"))), DAMAGES[damage])
        assert "run again" in sentence_of(run_stage(project, "scrape", "--workers", "1"))
        assert_one_more_run_mends(project, undisturbed, "scrape")
        shutil.rmtree(output_of(project, "scrape"))
        shutil.rmtree(project / ".corpusmill" / "parts" / "scrape")


@pytest.mark.parametrize("damage", ["half", "zeros in the middle", "nothing left", "first bytes"])
def test_questions_name_a_damaged_file(undisturbed: Path, tmp_path: Path, damage: str) -> None:
    project = tmp_path / "project"
    shutil.copytree(undisturbed, project)
    part = list_parts(project / "data" / "filter")[0]
    harm(part, DAMAGES[damage])
    for words in (
        ["stats", "data/filter"],
        ["sample", "--stage", "filter", "--dropped"],
        ["export", "filter", f"out-{os.getpid()}"],
    ):
        done = subprocess.run(
            ["corpus", *words], cwd=project, env=environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        sentence_of(done, str(part.relative_to(project)))
