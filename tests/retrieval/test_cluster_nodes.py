import functools
import os
import threading
import time
from pathlib import Path

import cluster_encoders
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recross_hf.retrieval.cluster import indexing
from recross_hf.retrieval.cluster.build import build_cluster_index

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'recross_hf[cluster]'")
lance = pytest.importorskip("lance", reason="Lance is not installed: pip install 'recross_hf[cluster]'")
pytest.importorskip("lance_ray", reason="lance-ray is not installed: pip install 'recross_hf[cluster]'")

from ray.cluster_utils import Cluster  # noqa: E402

from recross_hf.retrieval.lance.index import LanceIndex  # noqa: E402
from recross_hf.retrieval.lance.recall import RecallError  # noqa: E402
from recross_hf.retrieval.lance.vector_index import IndexSettings  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:lance is not fork-safe")]

TESTS = Path(__file__).parents[1]
NUM_ROWS = 20_000


@pytest.fixture(scope="module")
def cluster():
    """Two nodes on this machine, of two and one logical CPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent / "src")]))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    folder = tmp_path_factory.mktemp("upstream")
    for number, start in enumerate(range(0, NUM_ROWS, 7000)):
        rows = range(start, min(start + 7000, NUM_ROWS))
        columns = {"input": [f"text {row}" for row in rows], "references": [["yes"]] * len(rows)}
        columns["task"] = [f"task {row % 7}" for row in rows]
        pq.write_table(pa.table(columns), folder / f"{number}.parquet", row_group_size=1000)
    return f"{folder}/*.parquet"


def test_two_nodes_share_the_chunks_and_the_index(cluster, upstream, monkeypatch, tmp_path):
    monkeypatch.setattr(indexing, "FEWEST_SPREAD", 1)
    make_encoder = functools.partial(cluster_encoders.RecordingEncoder, str(tmp_path))
    build = functools.partial(
        build_cluster_index, upstream, make_encoder, tmp_path / "index", num_workers=2, address=cluster.address
    )
    settings = IndexSettings(num_partitions=8, fewest_indexed=1000, nprobes=8, refine_factor=16)
    with pytest.raises(RecallError, match=r"at least 1\.01 of the 64 nearest examples, found [01]\.\d+"):
        build(settings=settings, min_recall=1.01)
    with pytest.raises(FileNotFoundError):
        LanceIndex.from_pretrained(tmp_path / "index", encoder=make_encoder())
    assert len(list(tmp_path.glob("*.node"))) == 2
    version = build(settings=settings)
    index = LanceIndex.from_pretrained(tmp_path / "index", encoder=make_encoder())
    assert (index.version, len(index)) == (version, NUM_ROWS)
    vectors = make_encoder().encode([f"text {row}" for row in (0, 6999, 7000, 19_999)])
    hits = index.search(vectors, k=1)
    assert hits.positions[:, 0].tolist() == [0, 6999, 7000, 19_999]
    assert index.rows(hits.positions[:, 0])["id"][:] == ["task 0/0", "task 6/6999", "task 0/7000", "task 0/19999"]
    assert index.config["index"] == {"kind": "IVF_RQ", "num_partitions": 8, "num_bits": 2}
    assert index.config["recall"]["value"] >= 0.9
    dataset = lance.dataset(str(tmp_path / "index"), version=version)
    segments = dataset.stats.index_stats("vector_idx")
    assert segments["num_indices"] == 2
    assert segments["num_indexed_rows"] == NUM_ROWS
    assert np.isfinite(hits.distances).all()


def test_a_node_that_goes_away_is_made_up_for_by_the_others(cluster, upstream, tmp_path):
    make_encoder = functools.partial(cluster_encoders.RecordingEncoder, str(tmp_path), seconds=0.3)
    chunks = tmp_path / "index" / "_recross_hf" / "chunks"

    def lose() -> None:
        while len(list(chunks.glob("*.json"))) < 4 or len(list(tmp_path.glob("*.node"))) < 2:
            time.sleep(0.05)
        cluster.remove_node(cluster.list_all_nodes()[1], allow_graceful=False)

    loss = threading.Thread(target=lose)
    loss.start()
    build_cluster_index(
        upstream,
        make_encoder,
        tmp_path / "index",
        num_workers=2,
        address=cluster.address,
        chunk_size=500,
    )
    loss.join()
    index = LanceIndex.from_pretrained(tmp_path / "index", encoder=make_encoder())
    assert index.rows(np.arange(0, NUM_ROWS, 499))["input"][:] == [f"text {row}" for row in range(0, NUM_ROWS, 499)]


def test_an_address_without_a_cluster_is_told(upstream, tmp_path):
    with pytest.raises(ConnectionError, match=r"Expected a Ray cluster at 127\.0\.0\.1:1, found none"):
        build_cluster_index(upstream, cluster_encoders.Encoder, tmp_path / "index", address="127.0.0.1:1")
