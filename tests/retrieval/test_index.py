import copy
import json
import os
import shutil
import tempfile
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from datasets import Dataset, load_from_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertModel

from recross_hf import MeanPooledEncoder, UpstreamIndex
from recross_hf.data.schema import ExampleError
from recross_hf.hub.errors import ArtifactError
from recross_hf.retrieval.faiss_io import names_another_file
from recross_hf.retrieval.vector_shards import IndexMismatchError

QUERIES = ["Which colour has the sun?", "Add nine and three.", "Is it good?"]
FILES = {"examples.parquet", "index.faiss", "index.json"}
METRICS = {"l2": faiss.METRIC_L2, "inner_product": faiss.METRIC_INNER_PRODUCT}


def files_in(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def exact_distances(queries: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    if metric == "l2":
        return ((queries[:, None, :].astype(np.float64) - vectors[None, :, :]) ** 2).sum(axis=2)
    return -queries.astype(np.float64) @ vectors.T.astype(np.float64)


def vectors_of(index: UpstreamIndex) -> np.ndarray:
    return index.faiss_index.reconstruct_n(0, len(index))


@pytest.fixture
def random_encoder():
    return tiny.HashEncoder()


@pytest.fixture(scope="session")
def many():
    return tiny.examples(per_task=75)


# ---- building and searching ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shard_size", [7, 4096])
def test_flat_search_is_brute_force(metric, shard_size, examples, random_encoder, tmp_path):
    index = UpstreamIndex.build(examples, random_encoder, tmp_path, metric_type=METRICS[metric], shard_size=shard_size)
    queries = random_encoder.encode(QUERIES)
    expected = exact_distances(queries, tiny.HashEncoder().encode(examples["input"][:]), metric)
    hits = index.search(queries, k=10)
    order = np.argsort(expected, axis=1)[:, :10]
    assert np.array_equal(hits.positions, order)
    np.testing.assert_allclose(hits.distances, np.take_along_axis(expected, order, axis=1), rtol=1e-4, atol=1e-4)
    assert np.all(np.diff(hits.distances, axis=1) >= 0)
    assert index.metric_type == METRICS[metric]
    assert files_in(tmp_path) == FILES


@pytest.mark.parametrize(
    ("factory", "least_recall"),
    [("Flat", 1.0), ("SQ8", 0.9), ("IVF8,Flat", 1.0), ("IVF4,PQ4x4np", 0.2), ("HNSW8", 0.8)],
)
@pytest.mark.parametrize("metric", METRICS)
def test_every_kind_of_index_finds_neighbours_and_reloads(factory, least_recall, metric, many, tmp_path):
    encoder = tiny.HashEncoder()
    nprobe = 8 if factory.startswith("IVF") else None
    built = UpstreamIndex.build(
        many, encoder, tmp_path, factory=factory, metric_type=METRICS[metric], nprobe=nprobe, shard_size=64
    )
    queries = encoder.encode(QUERIES * 5)
    hits = built.search(queries, k=10)
    exact = np.argsort(exact_distances(queries, encoder.encode(many["input"][:]), metric), axis=1)[:, :10]
    shared = [len(set(a) & set(b)) for a, b in zip(hits.positions.tolist(), exact.tolist(), strict=True)]
    assert np.mean(shared) / 10 >= least_recall
    assert np.all(np.diff(hits.distances, axis=1) >= 0)
    for memory_map in (True, False):
        loaded = UpstreamIndex.from_pretrained(tmp_path, encoder=encoder, memory_map=memory_map)
        again = loaded.search(queries, k=10)
        assert np.array_equal(again.positions, hits.positions)
        assert np.array_equal(again.distances, hits.distances)
        assert (loaded.metric_type, len(loaded)) == (METRICS[metric], len(many))


def test_an_ivf_index_visits_a_sixteenth_of_its_lists_and_the_search_can_ask_for_more(many, random_encoder, tmp_path):
    index = UpstreamIndex.build(many, random_encoder, tmp_path, factory="IVF32,Flat", train_size=200)
    assert faiss.extract_index_ivf(index.faiss_index).nprobe == 2
    queries = random_encoder.encode(QUERIES)
    exact = np.argsort(exact_distances(queries, random_encoder.encode(many["input"][:]), "l2"), axis=1)[:, :5]
    everywhere = index.search(queries, k=5, params=faiss.SearchParametersIVF(nprobe=32))
    assert np.array_equal(everywhere.positions, exact)
    assert not np.array_equal(index.search(queries, k=5).positions, exact)


def test_training_vectors_are_drawn_from_all_shards(many, random_encoder, tmp_path):
    trained_on = []
    build = {"factory": "SQ8", "train_size": 60, "shard_size": 50}

    class Spy(faiss.IndexScalarQuantizer):
        def train(self, vectors):
            trained_on.append(np.array(vectors))
            super().train(vectors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faiss, "index_factory", lambda d, *_: Spy(d, faiss.ScalarQuantizer.QT_8bit))
        UpstreamIndex.build(many, random_encoder, tmp_path, **build)
    (sample,) = trained_on
    everything = tiny.HashEncoder().encode(many["input"][:])
    rows = [int(np.flatnonzero((everything == vector).all(axis=1))[0]) for vector in sample]
    assert len(rows) == len(set(rows)) == 60
    assert {row // 50 for row in rows} == set(range(6))


def test_more_than_all_gives_all_and_then_minus_one(index):
    hits = index.search(index.encoder.encode(QUERIES), k=len(index) + 2)
    assert hits.positions.shape == hits.distances.shape == (3, len(index) + 2)
    assert all(sorted(row[:-2]) == list(range(len(index))) for row in hits.positions.tolist())
    assert (hits.positions[:, -2:] == -1).all()
    assert np.isinf(hits.distances[:, -2:]).all()


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat"])
def test_with_its_faiss_index_the_dataset_searches_as_any_dataset_that_has_one(
    factory, examples, random_encoder, tmp_path
):
    index = UpstreamIndex.build(examples, random_encoder, tmp_path, factory=factory)
    searching = index.with_faiss_index()
    vectors = random_encoder.encode(examples["input"][5:8])
    scores, rows = searching.get_nearest_examples("embeddings", vectors[0], 3)
    assert rows["id"][0] == examples[5]["id"]
    hits = index.search(vectors, 3)
    assert rows["id"] == [examples[row]["id"] for row in hits.positions[0].tolist()]
    assert scores.tolist() == hits.distances[0].tolist()
    assert [of_query["id"] for of_query in searching.get_nearest_examples_batch("embeddings", vectors, 3)[1]] == [
        [examples[row]["id"] for row in of_query] for of_query in hits.positions.tolist()
    ]
    # Neither vectors nor rows are copied, and the index's own data set stays as it is.
    assert searching.get_index("embeddings").faiss_index is index.faiss_index
    assert searching.data.table is index.dataset.data.table
    assert not index.dataset.list_indexes()


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat"])
def test_the_examples_of_an_index_are_a_plain_dataset(factory, examples, random_encoder, tmp_path):
    index = UpstreamIndex.build(examples, random_encoder, tmp_path / "index", factory=factory)
    assert index.dataset.select([7, 3])["id"][:] == [examples[7]["id"], examples[3]["id"]]
    assert set(index.dataset.filter(lambda row: row["task"] == "sum")["task"]) == {"sum"}
    assert sorted(index.dataset.shuffle(seed=0)["id"]) == sorted(examples["id"])
    index.dataset.save_to_disk(tmp_path / "saved")
    assert load_from_disk(tmp_path / "saved").to_list() == examples.to_list()


def test_the_dataset_that_an_index_is_made_of_stays_as_it_is(index, examples):
    rows = examples.select(range(len(examples)))
    made = UpstreamIndex(rows, index.faiss_index, index.encoder, index.config)
    assert not rows.list_indexes()
    assert made.dataset is rows
    with pytest.raises(IndexMismatchError, match="a vector for each of the 3 examples, found 48 vectors"):
        UpstreamIndex(rows.select(range(3)), index.faiss_index, index.encoder, index.config)


def test_an_index_saved_elsewhere_and_over_itself_is_the_same(examples, random_encoder, tmp_path):
    index = UpstreamIndex.build(examples, random_encoder, tmp_path / "a")
    for folder in (tmp_path / "b", tmp_path / "a"):
        index.save_pretrained(folder)
        assert files_in(folder) == FILES
        loaded = UpstreamIndex.from_pretrained(folder, encoder=random_encoder)
        assert loaded.dataset.to_list() == examples.to_list()
        assert np.array_equal(vectors_of(loaded), vectors_of(index))
        assert loaded.config == index.config


def test_a_selection_of_a_dataset_is_indexed_in_its_order(examples, random_encoder, tmp_path):
    selected = examples.shuffle(seed=1).select(range(20))
    index = UpstreamIndex.build(selected, random_encoder, tmp_path, shard_size=6)
    assert index.dataset["id"][:] == selected["id"][:]
    assert np.array_equal(vectors_of(index), tiny.HashEncoder().encode(selected["input"][:]))


# ---- builds that stop ------------------------------------------------------------------------------------------------


class StoppingEncoder(tiny.HashEncoder):
    """Fails at the n-th call."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def encode(self, texts):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return super().encode(texts)


@pytest.fixture
def interrupted(examples, tmp_path):
    """A build of 48 examples in shards of 10 that stopped after two of them (and the probes)."""
    with pytest.raises(KeyboardInterrupt):
        UpstreamIndex.build(examples, StoppingEncoder(3), tmp_path / "i", shard_size=10)
    return tmp_path / "i"


def resume(examples: Dataset, folder, **kwargs) -> tuple[UpstreamIndex, list[str]]:
    encoder = StoppingEncoder(1000)
    return UpstreamIndex.build(examples, encoder, folder, **{"shard_size": 10, **kwargs}), encoder.encoded


def test_a_killed_build_encodes_only_what_is_missing(examples, interrupted, tmp_path, caplog):
    index, encoded = resume(examples, interrupted)
    inputs = examples["input"][:]
    assert [text for text in encoded if text in inputs] == inputs[20:]
    assert "Continuing the unfinished build" in caplog.text
    unbroken, _ = resume(examples, tmp_path / "unbroken")
    assert np.array_equal(vectors_of(index), vectors_of(unbroken))
    assert index.config == unbroken.config
    assert files_in(interrupted) == FILES


def test_what_a_kill_left_half_written_is_not_read(examples, interrupted, tmp_path):
    (interrupted / "vectors.partial" / ".000002.npy.123.partial").write_bytes(b"\x93NUMPY half")
    (interrupted / ".index.faiss.123.partial").write_bytes(b"half")
    index, encoded = resume(examples, interrupted)
    assert examples[20]["input"] in encoded
    assert np.array_equal(vectors_of(index), tiny.HashEncoder().encode(examples["input"][:]))


def test_an_unfinished_build_is_no_index(examples, interrupted):
    with pytest.raises(FileNotFoundError, match=r"found no index\.json.*A build was interrupted here: run it again"):
        UpstreamIndex.from_pretrained(interrupted, encoder=tiny.HashEncoder())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda examples: (examples.select(range(40)), {}), r"other data or settings .*num_examples"),
        (lambda examples: (examples.shuffle(seed=0), {}), r"ids_sha256, texts_sha256"),
        (lambda examples: (examples, {"shard_size": 12}), r"\(shard_size\).*choose another folder, or delete"),
        (lambda examples: (examples, {"vector_dtype": np.float16}), r"\(vector_dtype\)"),
    ],
)
def test_an_unfinished_build_does_not_go_on_with_other_data_or_settings(change, match, examples, interrupted):
    changed, settings = change(examples)
    with pytest.raises(IndexMismatchError, match=match):
        resume(changed, interrupted, **settings)


def test_an_unfinished_build_may_go_on_with_another_factory_and_metric(examples, interrupted):
    index, encoded = resume(examples, interrupted, factory="HNSW8", metric_type=faiss.METRIC_INNER_PRODUCT)
    assert examples[0]["input"] not in encoded
    assert (index.config["factory"], index.metric_type) == ("HNSW8", faiss.METRIC_INNER_PRODUCT)


def test_a_rebuild_that_stops_while_writing_leaves_no_index_of_mixed_parts(examples, tmp_path, monkeypatch):
    before = tiny.HashEncoder(seed=0)
    UpstreamIndex.build(examples, before, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(
            "recross_hf.retrieval.index_files.write_parquet", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            UpstreamIndex.build(examples, tiny.HashEncoder(seed=1), tmp_path)
    try:
        index = UpstreamIndex.from_pretrained(tmp_path, encoder=before)
    except (FileNotFoundError, IndexMismatchError):
        return
    assert np.array_equal(vectors_of(index), tiny.HashEncoder(seed=0).encode(examples["input"][:]))


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_an_index_of_another_encoder_is_refused(index, bart, tokenizer, tmp_path):
    index.save_pretrained(tmp_path)
    changed = copy.deepcopy(bart)
    with torch.no_grad():
        changed.get_encoder().layers[0].fc1.bias[0] += 1e-6
    for encoder, match in [
        (MeanPooledEncoder(changed, tokenizer), r"another encoder \(weights: .* != .*; index first\)"),
        (MeanPooledEncoder(bart, tokenizer, max_length=9), r"\(max_length: 128 != 9; index first\)"),
        (tiny.HashEncoder(32), r"class: MeanPooledEncoder != HashEncoder"),
    ]:
        with pytest.raises(IndexMismatchError, match=match):
            UpstreamIndex.from_pretrained(tmp_path, encoder=encoder)
    same = MeanPooledEncoder(copy.deepcopy(bart), tokenizer)
    assert len(UpstreamIndex.from_pretrained(tmp_path, encoder=same)) == len(index)


@pytest.mark.parametrize("other", [tiny.HashEncoder(16, seed=1), tiny.HashEncoder(17)], ids=["values", "dimension"])
def test_an_encoder_without_an_identity_is_known_by_its_vectors(other, examples, random_encoder, tmp_path):
    UpstreamIndex.build(examples, random_encoder, tmp_path)
    with pytest.raises(IndexMismatchError, match="another encoder: for the same texts it gave other vectors"):
        UpstreamIndex.from_pretrained(tmp_path, encoder=other)


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("spoil", "error", "match"),
    [
        (lambda f: edit_json(f / "index.json", format_version=9), IndexMismatchError, "format 1, found 9"),
        (lambda f: (f / "index.json").unlink(), FileNotFoundError, r"found no index\.json\.$"),
        (lambda f: (f / "index.faiss").unlink(), FileNotFoundError, r"found no index\.faiss"),
        (lambda f: (f / "examples.parquet").unlink(), FileNotFoundError, r"found no examples\.parquet"),
        (lambda f: (f / "index.json").write_text('{"a": '), ValueError, r"Expected JSON in .*index\.json"),
        (
            lambda f: faiss.write_index(faiss.IndexFlatL2(16), str(f / "index.faiss")),
            IndexMismatchError,
            "found 0 vectors of 16 dimensions in place of 48 of 16",
        ),
    ],
    ids=["format", "no config", "no vectors", "no examples", "broken config", "other vectors"],
)
def test_spoilt_folders_are_refused(spoil, error, match, examples, random_encoder, tmp_path):
    UpstreamIndex.build(examples, random_encoder, tmp_path)
    spoil(tmp_path)
    with pytest.raises(error, match=match):
        UpstreamIndex.from_pretrained(tmp_path, encoder=random_encoder)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.sort("id", reverse=True),
        lambda rows: rows.select(range(47)),
        lambda rows: rows.map(lambda row: {"id": row["id"].replace("sum/3", "sum/99")}),
        lambda rows: rows.map(lambda row: {"input": row["input"].replace("sky", "sea")}),
    ],
    ids=["order", "fewer", "id", "input"],
)
def test_changed_examples_are_refused(change, examples, random_encoder, tmp_path):
    UpstreamIndex.build(examples, random_encoder, tmp_path)
    change(examples).to_parquet(str(tmp_path / "examples.parquet"))
    with pytest.raises(IndexMismatchError, match="changed"):
        UpstreamIndex.from_pretrained(tmp_path, encoder=random_encoder)


def test_another_metric_than_the_callers_is_refused(examples, random_encoder, tmp_path):
    UpstreamIndex.build(examples, random_encoder, tmp_path)
    with pytest.raises(IndexMismatchError, match="Expected the metric inner_product, found an index with l2"):
        UpstreamIndex.from_pretrained(tmp_path, encoder=random_encoder, metric_type=faiss.METRIC_INNER_PRODUCT)
    loaded = UpstreamIndex.from_pretrained(tmp_path, encoder=random_encoder, metric_type=faiss.METRIC_L2)
    assert loaded.metric_type == faiss.METRIC_L2


@pytest.mark.parametrize(
    ("vectors", "k", "match"),
    [
        (np.zeros((2, 31)), 1, r"Expected vectors \[n, 32\], found \[2, 31\]"),
        (np.zeros(32), 1, r"found \[32\]"),
        (np.zeros((1, 32)), 0, "at least 1 example, found k=0"),
    ],
)
def test_wrong_searches_are_refused(vectors, k, match, index):
    with pytest.raises(ValueError, match=match):
        index.search(vectors, k)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"factory": "Flap"}, "FAISS takes no index 'Flap' for vectors of 16 dimensions"),
        ({"factory": "PQ5x4np"}, "FAISS takes no index|could not be trained"),
        ({"factory": "IVF100,Flat"}, "'IVF100,Flat' could not be trained on 48 vectors.*Choose fewer lists"),
        ({"factory": "IVF4,Flat", "train_size": 2}, "could not be trained on 2 vectors"),
        ({"nprobe": 4}, "`nprobe` is for IVF indexes, found the factory string 'Flat'"),
        ({"metric_type": faiss.METRIC_L1}, "Expected faiss.METRIC_L2 or faiss.METRIC_INNER_PRODUCT"),
    ],
)
def test_wrong_settings_are_refused_and_can_be_mended(settings, match, examples, random_encoder, tmp_path):
    with pytest.raises(ValueError, match=match):
        UpstreamIndex.build(examples, random_encoder, tmp_path, **settings)
    assert len(UpstreamIndex.build(examples, random_encoder, tmp_path)) == len(examples)


def test_data_without_the_schema_or_without_rows_is_refused(examples, random_encoder, tmp_path):
    with pytest.raises(ExampleError, match="Expected the columns id, task, input and references, found id, task"):
        UpstreamIndex.build(examples.remove_columns("references"), random_encoder, tmp_path)
    with pytest.raises(ExampleError, match="at least one example to index, found none"):
        UpstreamIndex.build(examples.select([]), random_encoder, tmp_path)


class OddEncoder:
    def __init__(self, spoil):
        self.spoil = spoil

    def encode(self, texts):
        return self.spoil(tiny.HashEncoder().encode(texts), texts)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (
            lambda vectors, texts: np.where([["lovely film. (No. 4)" in text] for text in texts], np.nan, vectors),
            "found NaN or infinity for the example 'sentiment/4'",
        ),
        (lambda vectors, texts: vectors[:, 0], r"vectors \[4, d\], found \[4\] from OddEncoder"),
        (lambda vectors, texts: vectors[:2], r"vectors \[4, d\], found \[2, 16\] from OddEncoder"),
    ],
    ids=["NaN", "one dimension", "too few"],
)
def test_odd_vectors_are_refused(spoil, match, examples, tmp_path):
    with pytest.raises(ValueError, match=match):
        UpstreamIndex.build(examples, OddEncoder(spoil), tmp_path, shard_size=10)


# ---- unfinished builds -----------------------------------------------------------------------------------------------


def test_an_unfinished_build_is_not_continued_with_another_encoder(examples, tmp_path):
    """Encoders without an identity differ in nothing but what they do."""
    with pytest.raises(KeyboardInterrupt):
        UpstreamIndex.build(examples, InterruptedEncoder(seed=0, calls=3), tmp_path, shard_size=10)
    with pytest.raises(IndexMismatchError, match="unfinished build with another encoder"):
        UpstreamIndex.build(examples, InterruptedEncoder(seed=1, calls=100), tmp_path, shard_size=10)
    index = UpstreamIndex.build(examples, InterruptedEncoder(seed=0, calls=100), tmp_path, shard_size=10)
    assert np.array_equal(vectors_of(index), tiny.HashEncoder(seed=0).encode(examples["input"][:]))


class InterruptedEncoder(tiny.HashEncoder):
    """Raises at the given call."""

    def __init__(self, seed, calls):
        super().__init__(seed=seed)
        self.calls = calls

    def encode(self, texts):
        self.calls -= 1
        if not self.calls:
            raise KeyboardInterrupt
        return super().encode(texts)


def test_shards_without_the_settings_of_their_build_are_not_taken_over(examples, tmp_path):
    folder = tmp_path / "vectors.partial"
    folder.mkdir()
    np.save(folder / "000000.npy", np.zeros((len(examples), tiny.HashEncoder().encode(["x"]).shape[1]), np.float32))
    index = UpstreamIndex.build(examples, tiny.HashEncoder(), tmp_path)
    assert np.array_equal(vectors_of(index), tiny.HashEncoder().encode(examples["input"][:]))
    assert not folder.exists()


def test_inverted_lists_stay_on_disk_when_mapped(examples, tmp_path):
    index = UpstreamIndex.build(examples, tiny.HashEncoder(), tmp_path, factory="IVF4,Flat")
    lists = faiss.downcast_InvertedLists(faiss.extract_index_ivf(index.faiss_index).invlists)
    assert isinstance(lists, faiss.OnDiskInvertedLists)


@pytest.mark.parametrize("settings", [{"factory": "Nonsense"}, {"nprobe": 4}])
def test_what_faiss_does_not_take_is_said_before_anything_is_encoded(settings, examples, tmp_path):
    encoder = InterruptedEncoder(seed=0, calls=2)  # the probes are the first call
    with pytest.raises(ValueError, match=r"FAISS takes no index 'Nonsense'|`nprobe` is for IVF indexes"):
        UpstreamIndex.build(examples, encoder, tmp_path, **settings)


def test_a_sentence_transformer_is_an_encoder_as_it_is(examples, tokenizer, tmp_path):
    BertModel(tiny.bert_config(tokenizer)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    transformer = Transformer(str(tmp_path / "bert"), max_seq_length=64)
    encoder = SentenceTransformer(
        modules=[transformer, Pooling(transformer.get_embedding_dimension(), "mean")], device="cpu"
    )
    index = UpstreamIndex.build(examples, encoder, tmp_path / "index", shard_size=10)
    expected = encoder.encode(examples["input"][:])
    assert np.allclose(vectors_of(index), expected, atol=1e-5)
    hits = index.search(encoder.encode(examples["input"][:3]), k=1)
    assert hits.positions[:, 0].tolist() == [0, 1, 2]


# ---- files of others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_map", [True, False])
@pytest.mark.parametrize("factory", ["Flat", "SQ8", "IVF4,Flat", "HNSW8", "PCA8,IVF4,Flat", "IVF4,SQ8"])
def test_a_faiss_file_that_is_cut_or_claims_too_much_is_refused(
    factory, memory_map, examples, random_encoder, tmp_path
):
    UpstreamIndex.build(examples, random_encoder, tmp_path, factory=factory)
    path = tmp_path / "index.faiss"
    whole = path.read_bytes()

    def refused(content, match):
        path.write_bytes(content)
        with pytest.raises(IndexMismatchError, match=match):
            UpstreamIndex.from_pretrained(tmp_path, encoder=random_encoder, memory_map=memory_map)

    refused(b"", "a file of 0 bytes")
    refused(whole[:36], "a file of 36 bytes")
    refused(whole[: len(whole) - 1], "malformed|too few")
    refused(b"XXXX" + whole[4:], "malformed file")
    refused(whole[:8] + (2**40).to_bytes(8, "little") + whole[16:], "found 1099511627776 vectors of 16 dimensions")
    # Every number of 64 bits might be a length; none of them may make FAISS ask for more memory than the file has.
    limit = faiss.get_deserialization_vector_byte_limit()
    for place in range(37, min(len(whole) - 8, 400)):
        if int.from_bytes(whole[place : place + 8], "little") in (48, 48 * 16, 48 * 16 * 4, 16, 4, 64, 32):
            path.write_bytes(whole[:place] + (2**38).to_bytes(8, "little") + whole[place + 8 :])
            try:
                UpstreamIndex.from_pretrained(tmp_path, encoder=random_encoder, memory_map=memory_map)
            except IndexMismatchError:
                continue
    assert faiss.get_deserialization_vector_byte_limit() == limit
    path.write_bytes(whole)
    assert len(UpstreamIndex.from_pretrained(tmp_path, encoder=random_encoder, memory_map=memory_map)) == 48


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"dimension": "16"}, "Expected dimension of an index"),
        ({"factory": None, "probes": {}}, "Expected factory, probes of an index"),
        ({"dimension": 17}, "48 vectors of 16 dimensions in place of 48 of 17"),
        ({"filler": "x" * (17 << 20)}, r"at most 16,777,216 bytes in .*index\.json"),
    ],
)
def test_a_configuration_that_is_malformed_is_refused(change, match, examples, random_encoder, tmp_path):
    UpstreamIndex.build(examples, random_encoder, tmp_path)
    edit_json(tmp_path / "index.json", **change)
    with pytest.raises(IndexMismatchError, match=match):
        UpstreamIndex.from_pretrained(tmp_path, encoder=random_encoder)


def test_parquet_that_is_malformed_is_refused(examples, random_encoder, tmp_path):
    UpstreamIndex.build(examples, random_encoder, tmp_path)
    path = tmp_path / "examples.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(IndexMismatchError, match=r"Expected parquet in .*malformed file.*save or build it again"):
        UpstreamIndex.from_pretrained(tmp_path, encoder=random_encoder)


def test_lists_in_another_file_are_found_wherever_their_record_is(tmp_path):
    """FAISS opens the file that such a record names, to read and to write."""
    vectors = np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32)
    quantizer = faiss.IndexFlatL2(16)
    index = faiss.IndexIVFFlat(quantizer, 16, 8)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "plain.faiss"))
    index.reset()
    lists = faiss.OnDiskInvertedLists(8, index.code_size, str(tmp_path / "lists.ivfdata"))
    index.replace_invlists(lists, False)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "on_disk.faiss"))
    nested = faiss.IndexPreTransform(faiss.RandomRotationMatrix(16, 16), index)
    faiss.write_index(nested, str(tmp_path / "nested.faiss"))
    found = {name: names_another_file(tmp_path / f"{name}.faiss") for name in ("plain", "on_disk", "nested")}
    assert found == {"plain": False, "on_disk": True, "nested": True}


@pytest.mark.parametrize("memory_map", [True, False])
@pytest.mark.parametrize("factory", ["IVF4,Flat", "PCA8,IVF4,SQ8"])
def test_inverted_lists_that_hold_other_vectors_are_refused(factory, memory_map, examples, random_encoder, tmp_path):
    index = UpstreamIndex.build(examples, random_encoder, tmp_path, factory=factory, nprobe=4)
    inverted = faiss.extract_index_ivf(index.faiss_index)
    sizes = np.array([inverted.invlists.list_size(number) for number in range(4)], dtype=np.int64)
    path, numbers = tmp_path / "index.faiss", np.arange(48)
    whole = path.read_bytes()

    def opened(content):
        path.write_bytes(content)
        return UpstreamIndex.from_pretrained(tmp_path, encoder=random_encoder, memory_map=memory_map)

    fewer = sizes - np.eye(4, dtype=np.int64)[np.argmax(sizes)]
    with pytest.raises(IndexMismatchError, match="inverted lists of 47 vectors in place of 48"):
        opened(whole.replace(sizes.tobytes(), fewer.tobytes()))
    # The numbers beside the vectors are those of examples that are not there.
    number = faiss.rev_swig_ptr(inverted.invlists.get_ids(0), int(sizes[0])).astype(np.int64)
    assert set(number) < set(numbers)
    for moved in (number + 1000, number - 1000):
        with pytest.raises(IndexMismatchError, match=r"positions of 48 examples, found -?\d+ beside a vector"):
            opened(whole.replace(number.tobytes(), moved.tobytes())).search(
                random_encoder.encode(examples["input"][:]), k=48
            )


# ---- vectors on disk -------------------------------------------------------------------------------------------------


def test_vectors_of_another_type_are_refused(examples, random_encoder, tmp_path):
    with pytest.raises(ValueError, match=r"in float32 or float16, found int8\. For 8 bits, see the factory SQ8"):
        UpstreamIndex.build(examples, random_encoder, tmp_path, vector_dtype=np.int8)


def test_an_index_that_ranks_again_by_vectors_on_disk_finds_what_exact_search_finds(many, tmp_path):
    encoder = tiny.HashEncoder()
    built = UpstreamIndex.build(many, encoder, tmp_path, factory="IVF4,PQ4x4np,Refine(SQfp16)", nprobe=4)
    queries = encoder.encode(QUERIES)
    exact = np.argsort(exact_distances(queries, encoder.encode(many["input"][:]), "l2"), axis=1)[:, :5]
    assert np.mean([np.isin(e, f) for e, f in zip(exact, built.search(queries, 5).positions, strict=True)]) > 0.8


def test_a_small_index_of_many_lists_and_codes_opens(many, random_encoder, tmp_path):
    """The table that FAISS makes of them is larger than the file."""
    index = UpstreamIndex.build(many, random_encoder, tmp_path, factory="IVF64,PQ8np")
    assert 5 * (tmp_path / "index.faiss").stat().st_size < 64 * 8 * 256 * 4
    assert len(index) == len(many)


# ---- saving what was opened ------------------------------------------------------------------------------------------

FACTORIES = ["Flat", "SQ8", "IVF4,Flat", "IVF4,PQ4x4np", "IVF4,PQ4x4np,Refine(SQfp16)", "HNSW8", "OPQ4,IVF4,PQ4x4np"]


def hits_of(index):
    return [column.tolist() for column in index.search(tiny.HashEncoder().encode(QUERIES * 3), k=7)]


@pytest.mark.parametrize("memory_map", [True, False])
@pytest.mark.parametrize("factory", FACTORIES)
def test_an_opened_index_saved_again_is_the_same(factory, memory_map, many, tmp_path):
    encoder, first, second = tiny.HashEncoder(), tmp_path / "a", tmp_path / "b"
    expected = hits_of(UpstreamIndex.build(many, encoder, first, factory=factory))
    content = (first / "index.faiss").read_bytes()
    index = UpstreamIndex.from_pretrained(first, encoder=encoder, memory_map=memory_map)
    for folder in (second, first, first, second):
        index.save_pretrained(folder)
        assert files_in(folder) == FILES
        assert (folder / "index.faiss").read_bytes() == content
        assert hits_of(index) == expected
        for mapped in (True, False):
            again = UpstreamIndex.from_pretrained(folder, encoder=encoder, memory_map=mapped)
            assert hits_of(again) == expected
            assert again.dataset.to_list() == many.to_list()
    shutil.rmtree(first)
    index.save_pretrained(first)  # what it was opened from is gone
    assert (first / "index.faiss").read_bytes() == content


@pytest.mark.parametrize("memory_map", [True, False])
@pytest.mark.parametrize(
    ("factory", "set_depth", "depth_of"),
    [
        ("IVF8,Flat", lambda i: setattr(faiss.extract_index_ivf(i), "nprobe", 5), lambda i: faiss.extract_index_ivf(i).nprobe),
        ("HNSW8", lambda i: setattr(i.hnsw, "efSearch", 5), lambda i: i.hnsw.efSearch),
        ("IVF4,PQ4x4np,Refine(SQfp16)", lambda i: setattr(i, "k_factor", 5), lambda i: i.k_factor),
    ],
)  # fmt: skip
def test_how_deep_it_searches_is_saved_with_an_opened_index(
    factory, set_depth, depth_of, memory_map, many, random_encoder, tmp_path
):
    UpstreamIndex.build(many, random_encoder, tmp_path / "a", factory=factory)
    index = UpstreamIndex.from_pretrained(tmp_path / "a", encoder=random_encoder, memory_map=memory_map)
    assert depth_of(index.faiss_index) != 5
    set_depth(index.faiss_index)
    index.save_pretrained(tmp_path / "b")
    again = UpstreamIndex.from_pretrained(tmp_path / "b", encoder=random_encoder)
    assert depth_of(again.faiss_index) == 5
    assert hits_of(again) == hits_of(index)


def test_lists_that_somebody_else_mapped_replace_nothing(many, random_encoder, tmp_path):
    index = UpstreamIndex.build(many, random_encoder, tmp_path / "a", factory="IVF4,Flat")
    before = {name: (tmp_path / "a" / name).read_bytes() for name in FILES}
    mapped = faiss.read_index(str(tmp_path / "a" / "index.faiss"), faiss.IO_FLAG_MMAP)
    own = UpstreamIndex(many.select(range(len(many))), mapped, random_encoder, index.config)
    with pytest.raises(
        IndexMismatchError,
        match=r"Expected to write an index that can be opened, found one that cannot.*Nothing was replaced",
    ):
        own.save_pretrained(tmp_path / "a")
    assert {name: (tmp_path / "a" / name).read_bytes() for name in FILES} == before
    assert files_in(tmp_path / "a") == FILES


@settings(max_examples=25)
@given(
    st.sampled_from(FACTORIES[:-1]),  # OPQ is trained on 256 vectors and more
    st.sampled_from(sorted(METRICS)),
    st.integers(80, 200),
    st.integers(0, 9),
    st.booleans(),
    st.booleans(),
)
def test_hits_survive_saving_and_opening(factory, metric, size, seed, memory_map, onto_itself):
    encoder, rows = tiny.HashEncoder(seed=seed), tiny.examples(per_task=50).select(range(size))
    queries = encoder.encode(QUERIES)
    with tempfile.TemporaryDirectory() as name:
        built = UpstreamIndex.build(rows, encoder, Path(name) / "a", factory=factory, metric_type=METRICS[metric])
        expected = [column.tolist() for column in built.search(queries, k=5)]
        target = Path(name) / ("a" if onto_itself else "b")
        opened = UpstreamIndex.from_pretrained(Path(name) / "a", encoder=encoder, memory_map=memory_map)
        opened.save_pretrained(target)
        again = UpstreamIndex.from_pretrained(target, encoder=encoder, memory_map=memory_map)
        assert [column.tolist() for column in again.search(queries, k=5)] == expected


@pytest.mark.parametrize("factory", ["Flat", "SQ8", "IVF4,Flat"])
@pytest.mark.parametrize("memory_map", [True, False])
def test_a_copy_of_an_opened_index_needs_no_file(factory, memory_map, examples, encoder, queries, tmp_path):
    UpstreamIndex.build(examples, encoder, tmp_path / "index", factory=factory)
    index = UpstreamIndex.from_pretrained(tmp_path / "index", encoder=encoder, memory_map=memory_map)
    vectors = encoder.encode(queries)
    expected = index.search(vectors, k=5)
    copied = copy.deepcopy(index)
    copied.save_pretrained(tmp_path / "copy")
    again = UpstreamIndex.from_pretrained(tmp_path / "copy", encoder=encoder)
    for other in (copied, again):
        assert np.array_equal(other.search(vectors, k=5).positions, expected.positions)


# ---- what a careless user gives ------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, -1, 2.0, "3", None, True, 10**9])
def test_a_number_of_hits_is_a_whole_number_that_memory_has_room_for(k, index, encoder):
    with pytest.raises(ValueError, match=r"Expected (to search for at least 1 example|k to be at most the 48)"):
        index.search(encoder.encode(["a"]), k)


def test_numbers_of_numpy_are_numbers_of_hits(index, encoder):
    assert index.search(encoder.encode(["a"]), np.int64(3)).positions.shape == (1, 3)
    with pytest.raises(ValueError, match="Encode texts first"):
        index.search(["a text"], 3)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"references": ["yes", "no"]}, "lists of texts in the column 'references'"),
        ({"references": [["yes"], []]}, "a reference in every row, found none in row 1"),
        ({"input": ["a", None]}, "an input in every row, found none in row 1"),
        ({"id": [1, 2]}, "texts in the column 'id'"),
    ],
)
def test_examples_that_could_not_be_learned_from_are_not_indexed(columns, message, tmp_path):
    whole = {"id": ["x", "y"], "task": ["t", "t"], "input": ["a", "b"], "references": [["c"], ["d"]]}
    encoder = tiny.HashEncoder()
    with pytest.raises(ExampleError, match=message):
        UpstreamIndex.build(Dataset.from_dict(whole | columns), encoder, tmp_path)
    assert not encoder.encoded


@pytest.mark.parametrize("encoder", [None, "a-name"])
def test_what_cannot_encode_is_told_before_the_build(encoder, examples, tmp_path):
    with pytest.raises(TypeError, match=r"an encoder with the method `encode\(texts\)`"):
        UpstreamIndex.build(examples, encoder, tmp_path)
    with pytest.raises(TypeError, match="examples as a `Dataset`, found str"):
        UpstreamIndex.build("examples.jsonl", tiny.HashEncoder(), tmp_path)


def _foreign(change, examples, encoder, folder):
    """An index whose examples somebody changed."""
    UpstreamIndex.build(examples, encoder, folder)
    path = folder / "examples.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def _with(name, values, type_=None):
    return lambda table: table.set_column(
        table.column_names.index(name), name, pa.array([values] * len(table), type=type_)
    )


@pytest.mark.parametrize(
    "change",
    [
        _with("input", None, pa.string()),
        _with("input", 3),
        _with("id", None, pa.string()),
        _with("references", "yes"),
        _with("references", [], pa.list_(pa.string())),
        _with("references", None, pa.list_(pa.string())),
        _with("references", [None], pa.list_(pa.string())),
        lambda table: table.drop_columns(["references"]),
        lambda table: table.drop_columns(["input"]),
        lambda table: table.replace_schema_metadata({"huggingface": '{"info": 3}'}),
        lambda table: table.replace_schema_metadata({"huggingface": '{"info":' + "[" * 10**5 + "]" * 10**5 + "}"}),
        lambda table: table.replace_schema_metadata(
            {"huggingface": '{"info": {"features": {"input": {"_type": "Nonsense"}}}}'}
        ),
    ],
    ids=range(12),
)
def test_examples_of_a_foreign_index_are_checked_before_they_are_used(change, examples, encoder, tmp_path):
    _foreign(change, examples, encoder, tmp_path)
    with pytest.raises(ArtifactError, match=r"examples\.parquet.*(download|build it again)"):
        UpstreamIndex.from_pretrained(tmp_path, encoder=encoder)


@pytest.mark.parametrize("name", ["config.json", "recross.json", "model.safetensors"])
def test_an_index_is_not_mixed_into_a_model(name, index, tmp_path):
    (tmp_path / name).write_text("{}")
    with pytest.raises(FileExistsError, match=f"found {name} of a model or a pipeline"):
        index.save_pretrained(tmp_path)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("IVF99999,Flat", "could not be trained on 48 vectors: it needs at least 99,999"),
        ("PQ8", "could not be trained on 48 vectors: it needs at least 256"),
        ("IVF4,PQ4x8np", "could not be trained on 48 vectors: it needs at least 256"),
        ("OPQ8,PQ8", "could not be trained on 48 vectors: it needs at least 256"),
        ("PCA64,Flat", "cannot output 64 dimensions from 16"),
        ("IDMap,Flat", "add_with_ids"),
        ("NSG16", "smaller than 100"),
        ("IVF0,Flat", "at least one list"),
        ("PQ7", "should be a multiple"),
        ("OPQ3,PQ48", "should be a multiple"),
        ("nonsense", "could not parse"),
    ],
)
def test_an_index_that_cannot_be_built_is_refused_before_the_encoding(factory, message, examples, tmp_path):
    encoder = tiny.HashEncoder()
    with pytest.raises(ValueError, match=message):
        UpstreamIndex.build(examples, encoder, tmp_path, factory=factory)
    assert not set(encoder.encoded) & set(examples["input"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factory": "IVF4,Flat", "nprobe": 0}, "`nprobe` to be at least 1"),
        ({"factory": "IVF4,Flat", "nprobe": -1}, "`nprobe` to be at least 1"),
        ({"factory": "IVF4,Flat", "nprobe": 2.0}, "`nprobe` to be at least 1"),
        ({"factory": "IVF4,Flat", "train_size": -5}, "`train_size` to be at least 1"),
        ({"shard_size": 0}, "`shard_size` to be at least 1"),
        ({"seed": -1}, "`seed` to be at least 0"),
        ({"factory": None}, "a factory string, found None"),
        ({"vector_dtype": "bf16"}, "float32 or float16, found 'bf16'"),
    ],
)
def test_numbers_that_no_index_has_are_refused_before_the_encoding(arguments, message, examples, tmp_path):
    encoder = tiny.HashEncoder()
    with pytest.raises(ValueError, match=message):
        UpstreamIndex.build(examples, encoder, tmp_path, **arguments)
    assert not set(encoder.encoded) & set(examples["input"])


def test_a_folder_has_no_revision(index, encoder, tmp_path):
    index.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`revision` of a repository on the Hub, found 'v1' of the folder"):
        UpstreamIndex.from_pretrained(tmp_path, encoder=encoder, revision="v1")


def test_ids_that_repeat_are_refused_before_the_encoding(examples, tmp_path):
    encoder = tiny.HashEncoder()
    ids = [f"x{row}" for row in range(len(examples))]
    ids[7] = ids[30] = "x3"
    repeated = examples.remove_columns("id").add_column("id", ids)
    with pytest.raises(ExampleError, match="found 1 that repeat, first 'x3' in the rows 3 and 7"):
        UpstreamIndex.build(repeated, encoder, tmp_path)
    assert not encoder.encoded


def test_examples_that_take_the_place_of_the_indexed_ones_are_the_same_ones(index, examples, encoder, tmp_path):
    index.save_pretrained(tmp_path)
    opened = UpstreamIndex.from_pretrained(tmp_path, encoder=encoder)
    more = opened.dataset.add_column("length", [len(text) for text in examples["input"]])
    opened.dataset = more
    assert opened.dataset is more
    for others in (examples.select(range(9)), examples.shuffle(seed=0), examples.remove_columns("id"), "examples"):
        with pytest.raises(IndexMismatchError, match=r"Expected the 48 examples that were indexed, .*`exclude_ids`"):
            opened.dataset = others
    assert opened.dataset is more
    assert copy.deepcopy(opened).dataset.column_names == more.column_names


def test_vectors_that_were_added_to_an_index_are_noticed(examples, random_encoder, tmp_path):
    index = UpstreamIndex.build(examples, random_encoder, tmp_path)
    other = faiss.IndexFlatL2(index.faiss_index.d)
    other.add(np.zeros((49, other.d), dtype=np.float32))
    index.faiss_index = other
    with pytest.raises(IndexMismatchError, match="a vector for each of the 48 examples, found 49"):
        index.search(random_encoder.encode(["a"]), k=49)


def test_an_index_is_written_to_a_folder_of_the_home_and_to_no_file(index, examples, encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("notes")
    index.save_pretrained("~/saved")
    UpstreamIndex.build(examples, encoder, "~/built")
    assert sorted(os.listdir(tmp_path / "home")) == ["built", "saved"]
    assert not (tmp_path / "~").exists()
    for path in ("taken", "taken/below"):
        with pytest.raises(NotADirectoryError, match=r"Expected a folder to write to at .*found the file taken"):
            index.save_pretrained(path)
        with pytest.raises(NotADirectoryError, match="found the file taken"):
            UpstreamIndex.build(examples, tiny.HashEncoder(), path)
    assert (tmp_path / "taken").read_text() == "notes"


@pytest.mark.parametrize("memory_map", [True, False])
def test_an_index_is_not_saved_inside_itself_and_keeps_what_lies_beside_it(memory_map, index, encoder, tmp_path):
    index.save_pretrained(tmp_path / "index")
    opened = UpstreamIndex.from_pretrained(tmp_path / "index", encoder=encoder, memory_map=memory_map)
    with pytest.raises(ValueError, match=r"a folder apart from the index, .* which lies inside it"):
        opened.save_pretrained(tmp_path / "index" / "copy")
    assert files_in(tmp_path / "index") == FILES
    (tmp_path / "index" / "notes.txt").write_text("mine")
    opened.save_pretrained(tmp_path / "index")
    assert files_in(tmp_path / "index") == FILES | {"notes.txt"}
    assert len(UpstreamIndex.from_pretrained(tmp_path / "index", encoder=encoder)) == len(opened.dataset) == len(index)
