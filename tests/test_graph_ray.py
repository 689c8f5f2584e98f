"""The whole graph on a Ray cluster of two nodes, here on one machine: the same bytes as in one process."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import command, environment
from test_graph import MODEL_FREE, results, small_project

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'corpusmill[ray]'")

TRAINED = ("base", "pack", "finetune", "evaluate")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Two nodes, each a set of processes of its own; nothing of them stays on this machine."""
    from ray.cluster_utils import Cluster

    folder = Path(tempfile.mkdtemp(prefix="corpus-ray-"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))  # or the next Ray on this machine would look for this cluster
    (folder / "ray").mkdir()
    nodes = Cluster()
    for _ in range(2):
        nodes.add_node(num_cpus=1, object_store_memory=80_000_000, include_dashboard=False)
    yield nodes
    nodes.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def on_ray(folder: Path, address: str) -> Path:
    """Have a project's tasks done by a cluster."""
    params = yaml.safe_load((folder / "params.yaml").read_text("utf-8"))
    params["execution"] = {"engine": "ray", "address": address}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True, sort_keys=False), "utf-8")
    return folder


def test_every_stage_gives_the_same_bytes(cluster: object, tmp_path: Path) -> None:
    alone = small_project(tmp_path / "alone")
    together = on_ray(small_project(tmp_path / "together"), cluster.address)  # type: ignore[attr-defined]
    for folder, options in ((alone, ["--workers", "1"]), (together, [])):
        for stage in MODEL_FREE:
            command(folder, "corpus", stage, *options)
        for stage in TRAINED:
            command(folder, "train", stage, "--workers", "1")
    assert results(together) == results(alone)


def test_a_node_that_dies_costs_a_retry_and_no_document(cluster: object, tmp_path: Path) -> None:
    folder = small_project(tmp_path / "project")
    command(folder, "corpus", "scrape", "--workers", "1")
    command(folder, "corpus", "clean", "--workers", "1")
    command(folder, "corpus", "measure", "--workers", "1")
    undisturbed = results(folder)
    shutil.rmtree(folder / "data" / "measure")
    shutil.rmtree(folder / ".corpusmill" / "parts" / "measure")
    on_ray(folder, cluster.address)  # type: ignore[attr-defined]
    store = folder / ".corpusmill" / "parts" / "measure"
    victim = cluster.list_all_nodes()[-1]  # type: ignore[attr-defined]
    with subprocess.Popen(["corpus", "measure"], cwd=folder, env=environment(), stderr=subprocess.PIPE) as running:
        while not list(store.glob("*[0-9a-f]")):
            assert running.poll() is None, "it ended before its node could be killed"
            time.sleep(0.005)
        cluster.remove_node(victim, allow_graceful=False)  # type: ignore[attr-defined]
        assert running.wait(timeout=120) == 0, running.stderr.read() if running.stderr else ""
    assert results(folder) == undisturbed


def test_without_an_address_a_private_cluster_does_the_work_and_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="ray-"))  # of its own: other tests start clusters as well
    monkeypatch.setenv("TMPDIR", str(temporary))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"text": "Document {n} of a few, which says little."}}\n' for n in range(20)), "utf-8")
    options = ["--input", "documents", "--output", "signals", "--set", "execution.engine=ray", "--workers", "2"]
    command(tmp_path, "corpus", "clean", "--input", "rows.jsonl", "--output", "documents")
    said = command(tmp_path, "corpus", "measure", *options)
    assert said.stdout.startswith("measure: 20 in, 20 kept")
    assert said.stderr == ""
    assert not list(temporary.glob("corpus-ray-*"))
    shutil.rmtree(temporary)
