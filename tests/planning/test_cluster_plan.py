import cluster_encoders
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recross_hf import LanceIndex, load_examples
from recross_hf.planning import cluster
from recross_hf.planning.cluster import ClusterPlan, IndexingTime, plan_cluster_index
from recross_hf.planning.plan import TimeEstimate
from recross_hf.retrieval.lance.vector_index import IndexSettings


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    """Examples of two tasks, sorted by task: those of the second are ten times as long."""
    folder = tmp_path_factory.mktemp("upstream")
    for number in range(2):
        texts = [f"text {row} " * (1 + 9 * number) for row in range(2000)]
        columns = {"input": texts, "references": [["yes", "no"]] * 2000, "task": [f"task {number}"] * 2000}
        pq.write_table(pa.table(columns), folder / f"{number}.parquet", row_group_size=500)
    return str(folder)


@pytest.mark.parametrize("settings", [IndexSettings(fewest_indexed=1000), IndexSettings()])
def test_a_plan_has_the_bytes_of_the_index(settings, upstream, tmp_path):
    pytest.importorskip("lance", reason="Lance is not installed: pip install 'recross_hf[cluster]'")
    encoder = cluster_encoders.Encoder(dimension=64)
    plan = plan_cluster_index(upstream, encoder, settings=settings, vector_dtype="float16")
    assert (plan.num_examples, plan.dimension) == (4000, 64)
    LanceIndex.build(
        load_examples(upstream), encoder, tmp_path / "index", settings=settings, vector_dtype="float16", min_recall=0
    )
    stored = {name: sum(path.stat().st_size for path in (tmp_path / "index" / name).rglob("*")) for name in _FOLDERS}
    assert plan.disk["vectors"] + plan.disk["examples"] == pytest.approx(stored["data"], rel=0.1)
    if settings.fewest_indexed < 4000:
        assert plan.disk["index"] == pytest.approx(stored["_indices"], rel=0.35)
        assert plan.indexing.training > 0 < plan.indexing.assigning
    else:
        assert plan.disk["index"] == 0 == plan.seconds_on(1) - plan.encoding.expected


_FOLDERS = ("data", "_indices")


def test_the_examples_that_are_tried_out_are_from_all_over_the_files(upstream, monkeypatch):
    monkeypatch.setattr(cluster, "SHARD_SIZE", 100)
    pytest.importorskip("lance", reason="Lance is not installed: pip install 'recross_hf[cluster]'")
    encoder = cluster_encoders.Encoder()
    plan_cluster_index(upstream, encoder)
    tried = encoder.encoded[66:]  # the longest come first
    assert {len(text) > 50 for text in tried} == {True, False}


def test_what_one_node_does_alone_is_not_shared():
    plan = ClusterPlan(
        num_examples=3600 * 100,
        dimension=8,
        num_tried=10,
        encoding=TimeEstimate(3600.0, 3500.0, 3700.0),
        indexing=IndexingTime(training=60.0, assigning=720.0),
        disk={"vectors": 10**9, "index": 10**6},
        price_per_hour=2.0,
    )
    assert plan.seconds_on(1) == 3600 + 720 + 60
    assert plan.seconds_on(8) == 450 + 90 + 60
    assert plan.cost_on(8) == pytest.approx(600 / 3600 * 8 * 2)
    rows = {line.split()[0]: line.split()[1:] for line in str(plan).splitlines() if line[:1].isdigit()}
    assert rows["8"] == ["7.5", "min", "2.5", "min", "10", "min", "2.67"]
    assert set(rows) == {"1", "8", "64"}
    assert "360,000 examples" in str(plan) and "storage: 1 GB (vectors 1 GB, index 1 MB)" in str(plan)
    free = ClusterPlan(**{name: value for name, value in vars(plan).items() if name != "price_per_hour"})
    assert "cost" not in str(free)
    with pytest.raises(ValueError, match="a plan with `price_per_hour`, found one without"):
        free.cost_on(1)
