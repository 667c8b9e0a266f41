import copy
from collections import Counter

import numpy as np
import pytest
import tiny
from datasets import Dataset

from recross_hf import DenseRetriever, RandomRetriever, Retriever, UpstreamIndex
from recross_hf.data.schema import EXAMPLE_FEATURES
from recross_hf.retrieval.aggregation import Ranking, interleave_distinct, mean_distance
from recross_hf.retrieval.upstream_rows import RowsInMemory, gather_rows


class FirstRetriever(Retriever):
    """The least there is to write."""

    def rank(self, inputs, num_retrieved):
        positions = np.flatnonzero(self.allowed)[:num_retrieved]
        return Ranking(positions, np.zeros(len(positions), dtype=int), np.arange(len(positions), dtype=float))


def test_inputs_that_are_upstream_are_their_own_nearest_neighbours(index, examples):
    rows = [3, 17, 40]
    retrieved = DenseRetriever(index).retrieve([examples[row]["input"] for row in rows], 9)
    assert retrieved["id"][:3] == [examples[row]["id"] for row in rows]
    np.testing.assert_allclose(retrieved["distance"][:3], 0, atol=1e-3)


def test_retrieved_rows_have_the_schema_and_their_provenance(index, examples, queries):
    retrieved = DenseRetriever(index).retrieve(queries, 10)
    assert retrieved.column_names == [*EXAMPLE_FEATURES, "rank", "query", "distance"]
    assert {name: retrieved.features[name] for name in EXAMPLE_FEATURES} == examples.features
    assert retrieved["rank"][:] == list(range(10))
    assert retrieved["query"][:] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    by_id = {row["id"]: row for row in examples}
    for row in retrieved:
        assert {name: row[name] for name in EXAMPLE_FEATURES} == by_id[row["id"]]
    for query in range(4):
        distances = [row["distance"] for row in retrieved if row["query"] == query]
        assert distances == sorted(distances)
    hits = index.search(index.encoder.encode(queries), 3)
    expected = [examples[int(hits.positions[number % 4, number // 4])]["id"] for number in range(10)]
    assert retrieved["id"][:] == expected


def test_columns_keep_their_types_where_all_their_values_are_empty(examples):
    no_choices = examples.remove_columns("choices").add_column("choices", [[]] * len(examples))
    upstream = no_choices.cast(EXAMPLE_FEATURES)
    retrieved = FirstRetriever(upstream).retrieve(["x"], 3)
    assert {name: retrieved.features[name] for name in EXAMPLE_FEATURES} == EXAMPLE_FEATURES


@pytest.mark.parametrize("aggregation", [mean_distance, interleave_distinct])
def test_the_aggregation_is_a_parameter(aggregation, index, queries):
    retrieved = DenseRetriever(index, aggregation=aggregation).retrieve(queries, 12)
    assert len(set(retrieved["id"])) == 12
    assert (set(retrieved["query"]) == {-1}) == (aggregation is mean_distance)


class TwoPlaces(tiny.HashEncoder):
    def encode(self, texts):
        far = np.array([[100.0 * text.startswith("far")] for text in texts], dtype=np.float32)
        return super().encode(texts) + far


@pytest.fixture(scope="module")
def near_and_far():
    """2,000 examples of one task beside 40 of another that no query is near to."""
    rows = [{"id": f"n{n}", "task": "near", "input": f"near {n}"} for n in range(2000)]
    rows += [{"id": f"f{n}", "task": "far", "input": f"far {n}"} for n in range(40)]
    return Dataset.from_list([row | {"references": ["x"]} for row in rows])


@pytest.fixture(scope="module")
def large(near_and_far, tmp_path_factory):
    return UpstreamIndex.build(near_and_far, TwoPlaces(4), tmp_path_factory.mktemp("large"))


def test_what_is_excluded_never_comes_back_even_where_the_nearest_thousands_are(large):
    retriever = DenseRetriever(large, exclude_tasks=["near"], exclude_ids=["f0", "f7", "unknown id"])
    assert retriever.num_allowed == 38
    retrieved = retriever.retrieve(["near to all", "near to none"], 20)
    vectors = large.encoder.encode(["near to all", "near to none"])
    allowed = [row for row in large.dataset if row["task"] == "far" and row["id"] not in ("f0", "f7")]
    expected = np.linalg.norm(vectors[:, None] - large.encoder.encode([row["input"] for row in allowed]), axis=2)
    for query in range(2):
        ids = [row["id"] for row in retrieved if row["query"] == query]
        assert ids == [allowed[row]["id"] for row in np.argsort(expected[query])[:10]]


@pytest.mark.parametrize("factory", ["SQ8", "IVF4,Flat", "IVF4,PQ2x4np,Refine(SQfp16)", "PQ2x4np"])
def test_every_kind_of_index_finds_what_is_left_behind_a_large_excluded_task(factory, near_and_far, tmp_path):
    """Kinds that can pass over what is excluded, and kinds that are searched deeper."""
    nprobe = {"nprobe": 4} if factory.startswith("IVF") else {}
    index = UpstreamIndex.build(near_and_far, TwoPlaces(4), tmp_path, factory=factory, **nprobe)
    retrieved = DenseRetriever(index, exclude_tasks=["near"]).retrieve(["near to all", "near to none"], 60)
    for query in range(2):
        ids = {row["id"] for row in retrieved if row["query"] == query}
        assert len(ids) == 30
        assert all(name.startswith("f") for name in ids)


def test_the_index_is_not_copied_to_look_at_the_examples(index, queries, monkeypatch):
    """`Dataset` makes a deep copy of itself in most of its methods; an index within it would be written out and read for that."""

    def refuse(*_):
        raise AssertionError("The index was copied.")

    monkeypatch.setattr(type(index.faiss_index), "__getstate__", refuse)
    with pytest.raises(AssertionError, match="was copied"):
        copy.deepcopy(index.faiss_index)
    retrieved = DenseRetriever(index, exclude_tasks=["sum"]).excluding(["colour"]).retrieve(queries, 12)
    assert set(retrieved["task"]) <= {"sentiment", "opposite"}
    assert len(index.with_faiss_index()) == len(index.dataset.with_format("arrow")) == len(index)


def test_all_that_is_allowed_can_be_retrieved(large, caplog):
    retriever = DenseRetriever(large, exclude_tasks=["near"], aggregation=interleave_distinct)
    assert len(set(retriever.retrieve(["near 1", "near 2"], 40)["id"])) == 40
    assert not caplog.text
    assert len(retriever.retrieve(["near 1"], 41)) == 40
    assert (
        "Expected to retrieve 41 examples, found 40 among the 40 upstream examples that may be retrieved"
        in caplog.text
    )


def test_more_than_there_is_warns_and_gives_what_there_is(index, examples, caplog):
    for retriever in (DenseRetriever(index), RandomRetriever(examples)):
        caplog.clear()
        retrieved = retriever.retrieve(["x"], 100)
        assert sorted(retrieved["id"]) == sorted(examples["id"])
        assert "Expected to retrieve 100 examples, found 48" in caplog.text


# ---- random --------------------------------------------------------------------------------------------------------


def test_random_draws_depend_on_the_seed_alone_and_do_not_repeat(examples, queries):
    first = RandomRetriever(examples, seed=1).retrieve(queries, 20)
    assert len(set(first["id"])) == 20
    assert RandomRetriever(examples, seed=1).retrieve(["other"], 20)["id"][:] == first["id"][:]
    assert RandomRetriever(examples, seed=2).retrieve(queries, 20)["id"][:] != first["id"][:]
    assert set(first["query"]) == {-1}
    assert np.isnan(first["distance"]).all()


def test_random_draws_are_uniform_over_what_is_allowed(examples, queries):
    retrievers = [
        RandomRetriever(examples, seed=s, exclude_tasks=["sum"], exclude_ids=["colour/1"]) for s in range(200)
    ]
    counts = Counter(row for retriever in retrievers for row in retriever.rank(queries, 7).positions.tolist())
    allowed = [row for row, example in enumerate(examples) if example["task"] != "sum" and example["id"] != "colour/1"]
    assert sorted(counts) == allowed
    # 1,400 draws over 35 examples: 40 each, give or take; five standard deviations.
    assert all(40 - 5 * 6 < count < 40 + 5 * 6 for count in counts.values())


# ---- narrowing -------------------------------------------------------------------------------------------------------


def test_a_retriever_can_be_narrowed_and_stays_as_it_was(index, examples, queries):
    for retriever in (DenseRetriever(index, exclude_tasks=["sum"]), RandomRetriever(examples, exclude_tasks=["sum"])):
        assert retriever.tasks == {"sentiment", "colour", "opposite"}
        narrowed = retriever.excluding(["colour", "not upstream"])
        assert type(narrowed) is type(retriever)
        assert narrowed.tasks == {"sentiment", "opposite"}
        assert (narrowed.num_allowed, retriever.num_allowed) == (24, 36)
        assert set(narrowed.retrieve(queries, 96)["task"]) == {"sentiment", "opposite"}
        assert set(retriever.retrieve(queries, 144)["task"]) == {"sentiment", "colour", "opposite"}
        twice = narrowed.excluding(["opposite"])
        assert twice.tasks == {"sentiment"}
        assert narrowed.excluding([]).tasks == narrowed.tasks
        with pytest.raises(ValueError, match=r"Nothing is left to retrieve without opposite, sentiment\."):
            narrowed.excluding(["sentiment", "opposite"])


def test_a_narrowed_retriever_ranks_as_one_made_with_the_exclusion(index, queries):
    narrowed = DenseRetriever(index).excluding(["colour"]).retrieve(queries, 12)
    assert narrowed.to_list() == DenseRetriever(index, exclude_tasks=["colour"]).retrieve(queries, 12).to_list()


def test_a_task_all_of_whose_examples_are_excluded_is_none(examples):
    ids = [f"sum/{number}" for number in range(12)]
    assert FirstRetriever(examples, exclude_ids=ids[:-1]).tasks == set(tiny.TASKS)
    assert FirstRetriever(examples, exclude_ids=ids).tasks == tiny.TASKS.keys() - {"sum"}


# ---- your own, and errors --------------------------------------------------------------------------------------------


def test_a_retriever_of_ones_own_needs_rank_alone(examples):
    retriever = FirstRetriever(examples, exclude_tasks=["sentiment"], exclude_ids=["colour/0"])
    assert retriever.retrieve(["x"], 3)["id"][:] == ["colour/1", "colour/2", "colour/3"]
    with pytest.raises(TypeError, match="abstract"):
        Retriever(examples)


def test_a_rank_that_returns_what_is_excluded_is_stopped(examples):
    class Careless(FirstRetriever):
        def rank(self, inputs, num_retrieved):
            return Ranking(np.arange(num_retrieved), np.zeros(num_retrieved), np.zeros(num_retrieved))

    with pytest.raises(RuntimeError, match=r"Careless\.rank returned examples that are excluded"):
        Careless(examples, exclude_ids=["sentiment/2"]).retrieve(["x"], 5)
    assert len(Careless(examples).retrieve(["x"], 5)) == 5


@pytest.mark.parametrize(
    ("inputs", "num_retrieved", "error", "match"),
    [
        ("one", 3, TypeError, r"found one string. Pass `\[text\]`"),
        ([], 3, ValueError, "at least one query input, found none"),
        (["x"], 0, ValueError, "found num_retrieved=0"),
    ],
)
def test_wrong_queries_are_refused(inputs, num_retrieved, error, match, index, examples):
    for retriever in (DenseRetriever(index), RandomRetriever(examples)):
        with pytest.raises(error, match=match):
            retriever.retrieve(inputs, num_retrieved)


@pytest.mark.parametrize(
    ("excluded", "error", "match"),
    [
        (
            {"exclude_tasks": ["sum", "sums"]},
            ValueError,
            r"found sums, which are none. Upstream tasks: colour, opp.*sum",
        ),
        ({"exclude_tasks": list(tiny.TASKS)}, ValueError, "Nothing is left to retrieve: all 48 upstream examples"),
        ({"exclude_tasks": "sum"}, TypeError, "`exclude_tasks` to be a collection of strings, found one string"),
        ({"exclude_ids": "sum/1"}, TypeError, "`exclude_ids` to be a collection of strings"),
    ],
)
def test_wrong_exclusions_are_refused(excluded, error, match, index, examples):
    with pytest.raises(error, match=match):
        DenseRetriever(index, **excluded)
    with pytest.raises(error, match=match):
        RandomRetriever(examples, **excluded)


def test_rows_are_gathered_in_the_order_of_the_ranking_with_repetitions(examples):
    ranking = Ranking(np.array([5, 2, 5]), np.array([0, 1, 1]), np.array([0.5, 1.0, np.nan]))
    rows = gather_rows(RowsInMemory(examples.shuffle(seed=0)), ranking)
    assert rows["id"][:] == examples.shuffle(seed=0).select([5, 2, 5])["id"][:]
    assert rows["distance"][:2] == [0.5, 1.0]


class FaultyEncoder(tiny.HashEncoder):
    """Gives no number for texts with "faulty" in them."""

    value = np.nan

    def encode(self, texts):
        vectors = super().encode(texts)
        vectors[["faulty" in text for text in texts], 3] = self.value
        return vectors


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("inputs", [["a", "faulty one", "b"], ["faulty one"]])
def test_a_query_whose_vector_is_not_finite_is_named_and_so_is_its_encoder(value, inputs, examples, tmp_path):
    encoder = FaultyEncoder()
    encoder.value = value
    index = UpstreamIndex.build(examples, encoder, tmp_path)
    row = inputs.index("faulty one")
    expected = f"found NaN or infinity from FaultyEncoder for 1 of {len(inputs)} \\(query {row}: 'faulty one'\\)"
    with pytest.raises(ValueError, match=expected):
        DenseRetriever(index).retrieve(inputs, 8)
    with pytest.raises(ValueError, match=rf"first in that of query {row}: .*encoder FaultyEncoder"):
        index.search(encoder.encode(inputs), 3)
    assert len(DenseRetriever(index).retrieve(["a", "b"], 8)) == 8


def test_an_example_whose_vector_is_not_finite_is_named_and_not_indexed(examples, tmp_path):
    faulty = Dataset.from_list([*examples, examples[0] | {"id": "x/1", "input": "a faulty one"}], examples.features)
    with pytest.raises(ValueError, match="found NaN or infinity for the example 'x/1'"):
        UpstreamIndex.build(faulty, FaultyEncoder(), tmp_path)


def test_a_retriever_that_finds_nothing_is_refused(examples):
    class NoRetriever(FirstRetriever):
        def rank(self, inputs, num_retrieved):
            return Ranking(*(np.zeros(0, dtype=kind) for kind in (int, int, float)))

    with pytest.raises(ValueError, match=r"found none of 2 .* NoRetriever may retrieve \(query 0: 'x', 1: 'y'\)"):
        NoRetriever(examples).retrieve(["x", "y"], 3)
