"""`LanceIndex`: building, opening by version, searching, and what goes wrong with it."""

import json
import resource
import tempfile
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from lance_cases import TextEncoder, give_up, rows

pytest.importorskip("lance", reason="pylance is absent: pip install 'recross_hf[cluster]'")

from recross_hf import LanceIndex, UpstreamIndex
from recross_hf.data.schema import ExampleError
from recross_hf.retrieval.lance import partitions
from recross_hf.retrieval.lance.layout import BuildConflictError, commit, current_version, finish
from recross_hf.retrieval.lance.location import Location, load_lance
from recross_hf.retrieval.lance.partitions import float32_partitions
from recross_hf.retrieval.lance.recall import RecallError, measured_recall
from recross_hf.retrieval.lance.search import nearest_rows
from recross_hf.retrieval.lance.vector_index import IndexSettings, SearchDepth
from recross_hf.retrieval.vector_shards import IndexMismatchError

INDEXED = IndexSettings(fewest_indexed=1, num_partitions=8, code_size=1)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An index over the vectors of 3,000 examples; not to be changed."""
    storage = tmp_path_factory.mktemp("lance") / "index.lance"
    return LanceIndex.build(rows(3000), TextEncoder(), storage, settings=INDEXED)


def config_of(storage):
    return json.loads(load_lance().dataset(str(storage), version="recross_hf").schema.metadata[b"recross_hf"])


def test_it_has_the_examples_and_hits_of_an_upstream_index(examples, index, encoder, tmp_path, queries):
    found = LanceIndex.build(examples, encoder, tmp_path / "index.lance")
    vectors = encoder.encode(queries)
    hits, expected = found.search(vectors, 60), index.search(vectors, 60)
    assert np.array_equal(hits.positions[:, :48], expected.positions[:, :48])
    np.testing.assert_allclose(hits.distances[:, :48], expected.distances[:, :48], rtol=1e-5, atol=1e-5)
    assert (hits.positions[:, 48:] == -1).all() and np.isinf(hits.distances[:, 48:]).all()
    assert found.rows(np.array([5, 0, 5])).to_list() == index.dataset.select([5, 0, 5]).to_list()
    assert found.rows(np.array([0])).features == index.dataset.features


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_stored_vectors_are_those_of_the_encoder(tmp_path, dtype):
    examples, encoder = rows(50), TextEncoder()
    LanceIndex.build(examples, encoder, tmp_path / "index.lance", vector_dtype=dtype)
    stored = load_lance().dataset(str(tmp_path / "index.lance")).to_table()
    vectors = np.array(stored["vector"].to_pylist(), dtype=np.float32)
    np.testing.assert_allclose(
        vectors, encoder.encode(examples["input"][:]), atol=1e-5 if dtype == np.float32 else 2e-3
    )
    assert stored["id"].to_pylist() == examples["id"][:]


def test_an_index_over_vectors_finds_what_the_recall_in_its_configuration_says(built):
    assert built.config["index"] == {"kind": "IVF_RQ", "num_partitions": 8, "num_bits": 1}
    assert 0.9 <= built.config["recall"]["value"] < 1
    vectors = built.encoder.encode([f"row {row}" for row in range(64)])
    exact = UpstreamIndex.build(rows(3000), built.encoder, built.location.folder.with_name("flat")).search(vectors, 64)
    hits = built.search(vectors, 64)
    shares = [np.isin(*pair).mean() for pair in zip(exact.positions, hits.positions, strict=True)]
    assert abs(np.mean(shares) - built.config["recall"]["value"]) < 0.03
    assert (np.diff(hits.distances) >= 0).all()
    np.testing.assert_allclose(hits.distances[:, 0], 0, atol=1e-4)


class ClusteredEncoder(TextEncoder):
    """Vectors that lie around six centres far apart."""

    def encode(self, texts):
        centres = 10 * np.eye(6, self.dimension, dtype=np.float32)
        return super().encode(texts) + centres[[sum(text.encode()) % 6 for text in texts]]


@pytest.mark.parametrize("metric", ["l2", "inner_product"])
@pytest.mark.parametrize("kind", ["IVF_RQ", "IVF_PQ"])
def test_float16_vectors_lie_in_partitions_that_are_found_in_float32(tmp_path, kind, metric):
    settings = IndexSettings(metric=metric, kind=kind, fewest_indexed=1, num_partitions=6, nprobes=1, refine_factor=16)
    index = LanceIndex.build(
        rows(900), ClusteredEncoder(), tmp_path / "index", settings=settings, vector_dtype=np.float16
    )
    vectors = index.encoder.encode([f"row {row}" for row in range(900)])
    exact = vectors @ vectors[::90].T
    exact = exact - (vectors**2).sum(axis=1, keepdims=True) / 2 if metric == "l2" else exact
    # A search that visits one of six partitions finds what is nearest of all.
    hits = index.search(vectors[::90], 5).positions
    shares = [np.isin(*pair).mean() for pair in zip(np.argsort(-exact.T)[:, :5], hits, strict=True)]
    assert np.mean(shares) > 0.9
    for _ in range(2):
        with float32_partitions(load_lance().dataset(index.location.uri), metric, 6) as found:
            stored = load_lance().dataset(found["precomputed_partition_dataset"]).to_table()
            centres = np.array(found["ivf_centroids"].to_pylist(), dtype=np.float32)
        assert stored["row_id"].to_pylist() == list(range(900))
        assert (np.diff(np.sort(centres.argmax(axis=1))) == 1).all()
        products = vectors @ centres.T
        nearness = products - (centres**2).sum(axis=1) / 2 if metric == "l2" else products
        assert stored["partition"].to_pylist() == nearness.argmax(axis=1).tolist()


def test_partitions_of_any_number_of_float16_vectors_are_one_fragment(tmp_path):
    number = (1 << 20) + 1000  # by default Lance begins another fragment after a million rows
    vectors = np.random.default_rng(0).standard_normal((number, 8)).astype(np.float16)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8)
    dataset = load_lance().write_dataset(pa.table({"vector": column}), str(tmp_path / "index.lance"))
    with float32_partitions(dataset, "l2", 4) as found:
        dataset.create_index("vector", "IVF_RQ", metric="l2", num_partitions=4, num_bits=1, **found)
    assert dataset.stats.index_stats("vector_idx")["num_indexed_rows"] == number


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_partitions_may_be_more_than_vectors(tmp_path, dtype):
    index = LanceIndex.build(rows(5), TextEncoder(), tmp_path / "index", settings=INDEXED, vector_dtype=dtype)
    hits = index.search(index.encoder.encode(["row 0", "row 4"]), 5)
    assert np.sort(hits.positions).tolist() == [[0, 1, 2, 3, 4]] * 2


def test_centres_of_the_largest_float16_vectors_are_finite(tmp_path):
    vectors = np.full((64, 8), np.finfo(np.float16).max)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8)
    dataset = load_lance().write_dataset(pa.table({"vector": column}), str(tmp_path / "index.lance"))
    with float32_partitions(dataset, "inner_product", 8) as found:
        assert np.isfinite(np.array(found["ivf_centroids"].to_pylist())).all()


def test_a_failing_folder_for_temporary_files_is_told_from_the_index(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    settings = IndexSettings(fewest_indexed=1, num_partitions=2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(name):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, limits[1]))
        return Location(name)

    monkeypatch.setattr(partitions, "Location", full, raising=False)
    try:
        with pytest.raises(
            OSError, match=r"Expected to write the partition of each vector to .*temporary/recross_hf_"
        ):
            LanceIndex.build(rows(5000), TextEncoder(), tmp_path / "i", settings=settings, vector_dtype=np.float16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "temporary").iterdir())


def test_float32_vectors_are_left_to_lance(built):
    with float32_partitions(load_lance().dataset(built.location.uri), "l2", 8) as found:
        assert found == {}


@pytest.mark.parametrize("kind", ["IVF_RQ", "IVF_PQ"])
def test_inner_products_fall_with_relevance(tmp_path, kind):
    settings = IndexSettings(metric="inner_product", kind=kind, fewest_indexed=1, num_partitions=2, refine_factor=32)
    index = LanceIndex.build(rows(600), TextEncoder(), tmp_path / "index.lance", settings=settings)
    query = index.encoder.encode(["another text"])
    products = index.encoder.encode([f"row {row}" for row in range(600)]) @ query[0]
    hits = index.search(query, 3)
    assert hits.positions[0].tolist() == np.argsort(-products)[:3].tolist()
    np.testing.assert_allclose(hits.distances[0], np.sort(-products)[:3], rtol=1e-4)


def test_the_hits_are_the_same_however_many_queries_are_searched_at_once(built):
    vectors = built.encoder.encode([f"query {number}" for number in range(70)])
    together = built.search(vectors, 9)
    for row in (0, 63, 64, 69):
        alone = built.search(vectors[row : row + 1], 9)
        assert np.array_equal(alone.positions[0], together.positions[row])


def test_an_old_version_stays_as_it_is_while_a_new_one_is_written_and_after(tmp_path):
    storage, encoder = tmp_path / "index.lance", TextEncoder()
    old = LanceIndex.build(rows(40), encoder, storage)
    vectors = encoder.encode(["row 7"])
    before = old.search(vectors, 5)
    seen, watching = [], TextEncoder()

    def encode(texts):
        seen.append(len(LanceIndex.from_pretrained(storage, encoder=encoder)))
        return encoder.encode(texts)

    watching.encode = encode
    new = LanceIndex.build(rows(30, "new"), watching, storage)
    assert set(seen) == {40}
    assert np.array_equal(old.search(vectors, 5).positions, before.positions)
    assert old.rows(before.positions[0])["id"][0] == "row/7"
    assert len(LanceIndex.from_pretrained(storage, encoder=encoder)) == len(new) == 30
    reopened = LanceIndex.from_pretrained(storage, encoder=encoder, version=old.version)
    assert reopened.rows(np.array([7]))["id"] == ["row/7"]
    assert (reopened.content_hash == old.content_hash) and (new.content_hash != old.content_hash)


def test_a_version_that_is_not_finished_is_not_opened(tmp_path):
    storage, encoder = tmp_path / "index.lance", TextEncoder()
    index = LanceIndex.build(rows(20), encoder, storage)
    location = Location.of(storage)
    dataset = load_lance().dataset(location.uri, version=index.version)
    fragments = [json.dumps(fragment.metadata.to_json()) for fragment in dataset.get_fragments()]
    plain = dataset.schema.remove_metadata()
    version = commit(location, fragments, plain, read_version=current_version(location))
    assert LanceIndex.from_pretrained(storage, encoder=encoder).version == index.version
    with pytest.raises(FileNotFoundError, match=rf"version {version} of .* a version without a configuration"):
        LanceIndex.from_pretrained(storage, encoder=encoder, version=version)


def test_what_is_not_there_is_an_error(tmp_path):
    encoder = TextEncoder()
    with pytest.raises(FileNotFoundError, match=r"Expected a Lance data set at .* found none\. Build one"):
        LanceIndex.from_pretrained(tmp_path / "none", encoder=encoder)
    index = LanceIndex.build(rows(20), encoder, tmp_path / "index.lance")
    with pytest.raises(FileNotFoundError, match=r"Expected version 77 of .* found 1, 2"):
        LanceIndex.from_pretrained(tmp_path / "index.lance", encoder=encoder, version=77)
    dataset = load_lance().dataset(index.location.uri)
    dataset.tags.delete("recross_hf")
    with pytest.raises(
        FileNotFoundError, match=r"Expected a finished index at .* no tag 'recross_hf'\. A build is going on"
    ):
        LanceIndex.from_pretrained(tmp_path / "index.lance", encoder=encoder)


def test_a_finished_version_stays_when_old_ones_are_cleaned_up(tmp_path):
    storage, encoder = tmp_path / "index.lance", TextEncoder()
    old = LanceIndex.build(rows(20), encoder, storage).version
    LanceIndex.build(rows(30, "new"), encoder, storage)
    dataset = load_lance().dataset(str(storage))
    with pytest.raises(OSError, match=rf"tagged version.*recross_hf-{old}"):
        dataset.cleanup_old_versions(timedelta(0))
    cleanup = {"delete_unverified": True, "error_if_tagged_old_versions": False}
    assert dataset.cleanup_old_versions(timedelta(0), **cleanup).old_versions == 2
    assert len(LanceIndex.from_pretrained(storage, encoder=encoder, version=old)) == 20
    assert len(LanceIndex.from_pretrained(storage, encoder=encoder)) == 30


def test_a_version_that_was_cleaned_up_is_an_error(tmp_path):
    storage, encoder = tmp_path / "index.lance", TextEncoder()
    old = LanceIndex.build(rows(20), encoder, storage).version
    new = LanceIndex.build(rows(20), encoder, storage).version
    give_up(storage, old)
    assert len(LanceIndex.from_pretrained(storage, encoder=encoder)) == 20
    with pytest.raises(FileNotFoundError, match=rf"Expected version {old} of .*, found {new}: it was cleaned up"):
        LanceIndex.from_pretrained(storage, encoder=encoder, version=old)


def test_another_encoder_is_refused(tmp_path, examples, encoder):
    LanceIndex.build(rows(20), TextEncoder(), tmp_path / "texts")
    with pytest.raises(
        IndexMismatchError, match="was built with another encoder: for the same texts it gave other vectors"
    ):
        LanceIndex.from_pretrained(tmp_path / "texts", encoder=TextEncoder(seed=1))
    LanceIndex.build(examples, encoder, tmp_path / "model")
    with pytest.raises(
        IndexMismatchError, match=rf"The index in {tmp_path}.* was built with another encoder \(.*class: "
    ):
        LanceIndex.from_pretrained(tmp_path / "model", encoder=TextEncoder())


def test_two_builds_into_one_place_at_once(tmp_path):
    storage = tmp_path / "index.lance"

    class Overtaken(TextEncoder):
        """While it encodes, another build writes to the same place."""

        def encode(self, texts):
            if "row 1" in texts and not current_version(Location.of(storage)):
                LanceIndex.build(rows(20, "other"), TextEncoder(), storage)
            return super().encode(texts)

    with pytest.raises(
        BuildConflictError, match=r"another build wrote there meanwhile\. Nothing of this build is visible"
    ):
        LanceIndex.build(rows(30), Overtaken(), storage)
    assert LanceIndex.from_pretrained(storage, encoder=TextEncoder()).rows(np.array([0]))["id"] == ["other/0"]
    again = LanceIndex.build(rows(30), TextEncoder(), storage)
    assert len(again) == 30


def test_a_build_whose_recall_is_too_low_is_refused_and_stays_unseen(built, tmp_path):
    storage, encoder = tmp_path / "index.lance", TextEncoder()
    before = LanceIndex.build(rows(20), encoder, storage)
    shallow = IndexSettings(fewest_indexed=1, num_partitions=8, code_size=1, refine_factor=1, nprobes=1)
    with pytest.raises(
        RecallError, match=r"at least 0\.90 of the 64 nearest examples, found 0\.\d+ .* Raise `refine_factor` \(1\)"
    ):
        LanceIndex.build(rows(3000), encoder, storage, settings=shallow)
    assert LanceIndex.from_pretrained(storage, encoder=encoder).version == before.version
    low = LanceIndex.build(rows(3000), encoder, storage, settings=shallow, min_recall=0.1)
    assert 0.1 < low.config["recall"]["value"] < 0.9


def test_recall_rises_with_the_depth_of_the_search(built):
    dataset = load_lance().dataset(built.location.uri, version=built.version)
    found = [
        measured_recall(dataset, metric="l2", depth=SearchDepth(nprobes, refine))
        for nprobes, refine in ((1, 1), (4, 4), (8, 16))
    ]
    assert found[0] < found[1] < found[2] <= 1
    built.depth, kept = SearchDepth(1, 1), built.depth
    try:
        assert np.isinf(built.search(built.encoder.encode(["x"]), 64).distances).sum() == 0
    finally:
        built.depth = kept


def test_a_row_that_finds_itself_does_not_count_as_recall(built, monkeypatch):
    def itself_alone(*args, depth, **kwargs):
        hits = nearest_rows(*args, depth=None, **kwargs)
        if depth is not None:
            hits.positions[:, 1:] = -1
        return hits

    monkeypatch.setattr("recross_hf.retrieval.lance.recall.nearest_rows", itself_alone)
    dataset = load_lance().dataset(built.location.uri, version=built.version)
    assert measured_recall(dataset, metric="l2", depth=SearchDepth(1)) == 0


def test_a_vector_that_is_not_finite_ends_the_build(tmp_path):
    class Broken(TextEncoder):
        def encode(self, texts):
            vectors = super().encode(texts)
            vectors[[text == "row 7" for text in texts]] = np.nan
            return vectors

    with pytest.raises(ValueError, match="found NaN or infinity for the example 'row/7'"):
        LanceIndex.build(rows(20), Broken(), tmp_path / "index.lance")
    assert current_version(Location.of(tmp_path / "index.lance")) == 0


def test_a_full_disk_ends_the_build_and_the_rerun_completes_it(tmp_path):
    resource = pytest.importorskip("resource")
    storage, encoder = tmp_path / "index.lance", TextEncoder()
    before = LanceIndex.build(rows(20), encoder, storage)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="Make sure that there is room"):
            LanceIndex.build(rows(2000), encoder, storage)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert LanceIndex.from_pretrained(storage, encoder=encoder).version == before.version
    assert len(LanceIndex.build(rows(2000), encoder, storage)) == 2000


def test_examples_and_settings_are_checked_before_anything_is_encoded(tmp_path):
    class Counting(TextEncoder):
        def encode(self, texts):
            assert not any(text.startswith("row") for text in texts), "an example was encoded"
            return super().encode(texts)

    storage = tmp_path / "index.lance"
    with pytest.raises(ExampleError, match="Expected the columns id, task, input and references"):
        LanceIndex.build(rows(5).remove_columns("references"), Counting(), storage)
    with pytest.raises(
        ValueError, match=r"Expected vectors of a dimension that 8 divides for IVF_RQ, found 12\. Choose IVF_PQ"
    ):
        LanceIndex.build(rows(5), Counting(12), storage, settings=INDEXED)
    with pytest.raises(ValueError, match="Expected `kind` to be one of IVF_RQ, IVF_PQ, found 'HNSW'"):
        IndexSettings(kind="HNSW")
    with pytest.raises(ValueError, match="Expected `refine_factor` to be at least 1"):
        LanceIndex.build(rows(5), Counting(), storage, settings=IndexSettings(fewest_indexed=1, refine_factor=0))


def test_queries_are_checked(built):
    with pytest.raises(ValueError, match=r"Expected vectors \[n, 16\], found \[1, 4\]"):
        built.search(np.zeros((1, 4)), 3)
    with pytest.raises(ValueError, match="Expected finite vectors, found NaN"):
        built.search(np.full((1, 16), np.nan), 3)
    with pytest.raises(ValueError, match="at least 1 example, found k=0"):
        built.search(np.zeros((1, 16)), 0)
    with pytest.raises(IndexError, match="Expected positions from 0 to 2,999"):
        built.rows(np.array([3000]))
    with pytest.raises(TypeError, match=r"Expected an `UpstreamIndex`, .* found a LanceIndex of 3,000"):
        built.dataset  # noqa: B018


def test_a_query_that_is_too_large_for_the_stored_type_is_refused(tmp_path):
    index = LanceIndex.build(rows(20), TextEncoder(), tmp_path / "index.lance", vector_dtype=np.float16)
    vectors = index.encoder.encode(["row 1", "row 2"])
    vectors[1, 0] = -1e5
    with pytest.raises(ValueError, match=r"vectors that float16 can hold, .* found 1e\+05 in that of query 1"):
        index.search(vectors, 3)
    assert index.search(vectors[:1], 1).positions.tolist() == [[1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 9}, "Expected an index of format 1, found 9"),
        ({"metric": "cosine"}, "Expected metric of an index"),
        ({"search": {"nprobes": -1}}, "Expected search of an index"),
        ({"dimension": 7}, r"Expected the columns .*vector \(fixed_size_list"),
        ({"num_examples": 3}, "Expected 3 rows in version .* found 20: rows were added"),
        ({"probes": "x"}, "Expected probes of an index"),
    ],
)
def test_a_configuration_that_is_malformed_is_refused(tmp_path, change, message):
    index = LanceIndex.build(rows(20), TextEncoder(), tmp_path / "index.lance")
    finish(index.location, index.version, index.config | change)
    with pytest.raises(IndexMismatchError, match=message):
        LanceIndex.from_pretrained(tmp_path / "index.lance", encoder=TextEncoder())


def test_a_changed_chat_format_is_noticed_by_a_search(tmp_path, examples, encoder, monkeypatch):
    index = LanceIndex.build(examples, encoder, tmp_path / "index.lance")
    vectors = encoder.encode(["x"])
    monkeypatch.setattr(encoder.processing_class, "truncation_side", "left")
    with pytest.raises(IndexMismatchError, match="found another truncation_side"):
        index.search(vectors, 3)
