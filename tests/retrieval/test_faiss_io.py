import faiss
import numpy as np
import pytest

from recross_hf.retrieval import faiss_indexes
from recross_hf.retrieval.faiss_indexes import HITS_PER_RESULT, empty_index, selecting, train
from recross_hf.retrieval.faiss_io import HEADER, fill_and_write

VECTORS = np.random.default_rng(0).normal(size=(600, 16)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(30, 16)).astype(np.float32)
SHARDS = [VECTORS[start : start + 250] for start in range(0, 600, 250)]
METRICS = [faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT]
FILTERING = ["Flat", "SQ8", "SQfp16", "IVF4,Flat", "PCA8,IVF4,SQ8", "PCA8,SQ8", "IVF4,PQ4x4np,Refine(SQfp16)"]


def trained(factory, metric=faiss.METRIC_L2):
    index = empty_index(16, factory, metric)
    train(index, VECTORS, factory)
    return index


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "factory", [*FILTERING, "SQ4", "PQ4x4np", "IVF4,PQ4x4np", "IVF4,PQ4x4np,RFlat", "PCA8,IVF4,PQ4x4np,Refine(SQ8)"]
)
def test_the_file_is_that_of_faiss_byte_for_byte(factory, metric, tmp_path):
    index = trained(factory, metric)
    fill_and_write(index, SHARDS, len(VECTORS), tmp_path / "i")
    assert index.ntotal == 0
    for shard in SHARDS:
        index.add(shard)
    faiss.write_index(index, str(tmp_path / "of_faiss"))
    assert (tmp_path / "i").read_bytes() == (tmp_path / "of_faiss").read_bytes()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("factory", "kind"),
    [
        *(("Flat", b"IxF"), ("SQ8", b"IxSQ"), ("IVF4,Flat", b"IwFl"), ("PCA8,IVF4,SQ8", b"IxPT"), ("HNSW8", b"IHNf")),
        ("IVF4,PQ4x4np,Refine(SQfp16)", b"IxRF"),
    ],
)
def test_every_file_of_the_installed_faiss_begins_with_the_header(factory, kind, metric):
    """A file is refused by its header before FAISS reads it."""
    index = trained(factory, metric)
    index.add(VECTORS)
    found, dimension, number, _, _, is_trained, of_metric = HEADER.unpack_from(faiss.serialize_index(index).tobytes())
    assert found.startswith(kind)
    assert (dimension, number, is_trained, of_metric) == (16, 600, True, metric)


@pytest.mark.parametrize("factory", ["Flat", "SQ8", "IVF4,PQ4x4np,Refine(SQfp16)"])
def test_codes_that_stand_last_are_not_held(factory, tmp_path, monkeypatch):
    """What is added to an index is held by it: of these kinds one vector at a time, to see what a file looks like."""
    index = trained(factory)
    held = faiss.downcast_index(index.refine_index) if isinstance(index, faiss.IndexRefine) else index
    add, added = type(held).add, []
    monkeypatch.setattr(type(held), "add", lambda self, x: (added.append(len(x)), add(self, x)))
    fill_and_write(index, SHARDS, len(VECTORS), tmp_path / "i")
    assert added == [1]
    assert faiss.read_index(str(tmp_path / "i")).ntotal == 600


@pytest.mark.parametrize("factory", FILTERING)
def test_a_search_passes_over_what_is_not_allowed_and_finds_the_rest(factory):
    index = trained(factory)
    index.add(VECTORS)
    allowed = np.random.default_rng(2).random(600) < 0.1
    deep = index.search(QUERIES, 600)[1]
    found = index.search(QUERIES, 5, params=selecting(index, allowed))[1]
    if "Refine" in factory:  # which deep hits come up differs with the depth
        assert allowed[found].all()
        return
    for row, everything in zip(found, deep, strict=True):
        expected = [position for position in everything if position >= 0 and allowed[position]][:5]
        assert [position for position in row if position >= 0] == expected


def test_a_selecting_search_visits_as_many_lists_as_the_index_says():
    index = empty_index(16, "IVF4,Flat", faiss.METRIC_L2, nprobe=4)
    train(index, VECTORS, "IVF4,Flat")
    index.add(VECTORS)
    allowed = np.arange(600) % 50 == 0
    found = index.search(QUERIES, 12, params=selecting(index, allowed))[1]
    assert all(sorted(row) == np.flatnonzero(allowed).tolist() for row in found)


@pytest.mark.parametrize("factory", ["HNSW8", "HNSW8,Refine(SQfp16)", "PCA8,HNSW8"])
def test_kinds_that_would_find_fewer_have_no_selecting_search(factory):
    assert selecting(trained(factory), np.ones(600, dtype=bool)) is None


def test_refinement_ranks_more_hits_than_are_asked_for():
    index = trained("IVF4,PQ4x4np,Refine(SQfp16)")
    index.add(VECTORS)
    assert index.k_factor == HITS_PER_RESULT
    faiss.extract_index_ivf(index).nprobe = 4
    exact = faiss.knn(QUERIES, VECTORS, 10)[1]
    without = index.search(QUERIES, 10, params=faiss.IndexRefineSearchParameters(k_factor=1))[1]
    shared = [
        [len(set(a) & set(b)) for a, b in zip(exact, f, strict=True)] for f in (index.search(QUERIES, 10)[1], without)
    ]
    assert np.mean(shared[0]) > 8 > 6 > np.mean(shared[1])


@pytest.mark.parametrize(("limit", "hits"), [(600, HITS_PER_RESULT), (599, 2 * HITS_PER_RESULT)])
def test_of_many_vectors_more_hits_are_ranked(limit, hits, tmp_path, monkeypatch):
    monkeypatch.setattr(faiss_indexes, "MANY_VECTORS", limit)
    index = empty_index(16, "IVF4,PQ4x4np,Refine(SQfp16)", faiss.METRIC_L2, num_vectors=len(VECTORS))
    train(index, VECTORS, "IVF4,PQ4x4np,Refine(SQfp16)")
    fill_and_write(index, [VECTORS], len(VECTORS), tmp_path / "index.faiss")
    assert faiss.read_index(str(tmp_path / "index.faiss")).k_factor == hits
