"""`LanceRetriever`: the same examples as `DenseRetriever`, with exclusions that the search applies."""

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from lance_cases import TextEncoder, rows

pytest.importorskip("lance", reason="pylance is absent: pip install 'recross_hf[cluster]'")

from recross_hf import (
    BM25Retriever,
    DenseRetriever,
    LanceIndex,
    LanceRetriever,
    MixedRetriever,
    RandomRetriever,
    UpstreamIndex,
    load_examples,
)
from recross_hf.retrieval.aggregation import round_robin
from recross_hf.retrieval.lance import retriever as lance_rows
from recross_hf.retrieval.lance import writing
from recross_hf.retrieval.lance.retriever import LanceRows, dense_retriever, rows_of
from recross_hf.retrieval.lance.search import leaving_out
from recross_hf.retrieval.lance.vector_index import IndexSettings

INDEXED = IndexSettings(fewest_indexed=1, num_partitions=8, refine_factor=16)


@pytest.fixture(scope="module")
def lance_index(examples, encoder, tmp_path_factory):
    return LanceIndex.build(examples, encoder, tmp_path_factory.mktemp("lance") / "index.lance")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """An index over the vectors of 2,000 examples."""
    storage = tmp_path_factory.mktemp("lance") / "index.lance"
    return LanceIndex.build(rows(2000), TextEncoder(), storage, settings=INDEXED)


EXCLUSIONS = [
    {},
    {"exclude_tasks": ["sum"]},
    {"exclude_ids": ["colour/1", "colour/2", "unknown id"]},
    {"exclude_tasks": ["sum", "opposite"], "exclude_ids": ["colour/1"]},
]


@pytest.mark.parametrize("excluded", EXCLUSIONS)
def test_it_retrieves_what_the_dense_retriever_does(lance_index, index, queries, excluded):
    found, expected = LanceRetriever(lance_index, **excluded), DenseRetriever(index, **excluded)
    assert (found.num_allowed, found.tasks) == (expected.num_allowed, expected.tasks)
    ours, theirs = found.retrieve(queries, 14), expected.retrieve(queries, 14)
    assert ours.features == theirs.features
    assert ours.remove_columns("distance").to_list() == theirs.remove_columns("distance").to_list()
    np.testing.assert_allclose(ours["distance"][:], theirs["distance"][:], rtol=1e-4)
    assert np.array_equal(found.nearest(queries, 60).positions, expected.nearest(queries, 60).positions)


def test_an_index_over_vectors_leaves_out_what_is_excluded_and_fills_the_places(large):
    ids = [f"row/{row}" for row in range(0, 2000, 3)]
    retriever = LanceRetriever(large, exclude_tasks=["task 1", "task 2"], exclude_ids=ids)
    found = retriever.retrieve([f"row {row}" for row in range(8)], 400)
    assert len(found) == 400 and not {"task 1", "task 2"} & {*found["task"][:]} and not {*ids} & {*found["id"][:]}
    few = LanceRetriever(large, exclude_ids=[f"row/{row}" for row in range(5, 2000)])
    assert sorted(few.retrieve(["row 9"], 5)["id"][:]) == [f"row/{row}" for row in range(5)]


def test_it_is_narrowed_as_other_retrievers_are(lance_index, index, queries):
    found = LanceRetriever(lance_index, exclude_tasks=["sum"]).excluding(["colour", "no task"], ["opposite/3"])
    expected = DenseRetriever(index, exclude_tasks=["sum"]).excluding(["colour", "no task"], ["opposite/3"])
    assert found.retrieve(queries, 9)["id"][:] == expected.retrieve(queries, 9)["id"][:]
    assert found.tasks == {"sentiment", "opposite"}
    with pytest.raises(ValueError, match="Nothing is left to retrieve without opposite, sentiment"):
        found.excluding(["opposite", "sentiment"])
    with pytest.raises(ValueError, match=r"found summ, which are none. Upstream tasks: colour"):
        LanceRetriever(lance_index, exclude_tasks=["summ"])
    with pytest.raises(TypeError, match="Expected `exclude_tasks` to be a collection of strings"):
        LanceRetriever(lance_index, exclude_tasks="sum")


@pytest.mark.parametrize("excluded", EXCLUSIONS)
def test_random_examples_are_those_that_are_drawn_of_a_data_set(lance_index, index, queries, excluded):
    for seed, number in ((0, 10), (1, 48)):
        ours = RandomRetriever(rows_of(lance_index), seed=seed, **excluded)
        theirs = RandomRetriever(index.dataset, seed=seed, **excluded)
        assert ours.retrieve(queries, number)["id"][:] == theirs.retrieve(queries, number)["id"][:]
        ours, theirs = (
            MixedRetriever(dense_retriever(one, **excluded), share=0.6, seed=seed).excluding(["colour"])
            for one in (lance_index, index)
        )
        assert ours.retrieve(queries, number)["id"][:] == theirs.retrieve(queries, number)["id"][:]


@pytest.fixture(scope="module")
def scattered(tmp_path_factory):
    """Examples in seven fragments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "SHARD_SIZE", 10)
        patch.setattr(writing, "_SHARDS_A_FRAGMENT", 1)
        return LanceIndex.build(rows(64), TextEncoder(), tmp_path_factory.mktemp("lance") / "index.lance")


def test_all_examples_are_read_in_their_order_and_few_at_a_time(scattered):
    assert len(scattered._lance.get_fragments()) == 7
    for upstream in (LanceRows(scattered).excluding(["task 1"], []), rows_of(scattered)):
        batches = list(upstream.batches(["task", "id"], 4))
        assert max(len(batch["id"]) for batch in batches) == 4
        assert [identity for batch in batches for identity in batch["id"]] == [f"row/{row}" for row in range(64)]
        assert {*batches[0]} == {"task", "id"}


def test_the_positions_that_are_allowed_are_those_of_the_examples(scattered, monkeypatch):
    monkeypatch.setattr(lance_rows, "_POSITIONS_AT_ONCE", 7)
    some = LanceRows(scattered).excluding(["task 1", "task 4"], ["row/60"])
    for upstream, expected in (
        (LanceRows(scattered), [*range(64)]),
        (some, [row for row in range(64) if row % 5 not in (1, 4) and row != 60]),
    ):
        found = list(upstream.allowed_positions())
        assert len(found) > 1 and np.concatenate(found).tolist() == expected
        drawn = upstream.draw(100, 0, without=np.array([3, 3, 62, 0]))
        assert sorted(drawn.tolist()) == sorted({*expected} - {0, 3, 62})


def test_an_example_that_is_excluded_is_noticed_whoever_ranks(lance_index):
    class Careless(LanceRetriever):
        def rank(self, inputs, num_retrieved):
            return LanceRetriever(self.index).rank(inputs, num_retrieved)

    with pytest.raises(RuntimeError, match=r"Careless\.rank returned examples that are excluded"):
        Careless(lance_index, exclude_tasks=["sum"]).retrieve(["Add one and three."], 48)


def test_its_identity_names_the_stored_content_and_what_is_excluded(lance_index, examples, encoder, tmp_path):
    def identity(**arguments):
        return LanceRetriever(lance_index, **arguments).identity()

    assert identity() == identity() and identity()["upstream"] == lance_index.content_hash
    others = [identity(exclude_tasks=["sum"]), identity(exclude_ids=["sum"]), identity(aggregation=round_robin)]
    again = LanceIndex.build(examples, encoder, tmp_path / "index.lance")
    others.append(LanceRetriever(again).identity())
    assert all(other != identity() for other in others)
    reopened = LanceIndex.from_pretrained(lance_index.location, encoder=encoder)
    assert LanceRetriever(reopened).identity() == identity()


def test_what_looks_at_all_examples_says_that_it_cannot(lance_index):
    retriever = LanceRetriever(lance_index)
    for name in ("upstream", "allowed"):
        with pytest.raises(TypeError, match=r"as a `Dataset`, found 48 in LanceRows, which are not read as a whole"):
            getattr(retriever, name)
    with pytest.raises(TypeError, match="found a LanceIndex of 48"):
        BM25Retriever(lance_index.dataset)


def test_the_retriever_of_an_index_is_chosen_by_its_kind(lance_index, index):
    assert type(dense_retriever(lance_index)) is LanceRetriever
    assert type(dense_retriever(index, exclude_tasks=["sum"])) is DenseRetriever


TEXTS = st.text(st.one_of(st.sampled_from("'\"\\%_;-\n\0`$"), st.characters(codec="utf-8")), max_size=12)


@pytest.fixture(scope="module")
def quoting_index(tmp_path_factory):
    """Examples whose tasks and ids are full of quotes."""
    names = [
        "'",
        "''",
        '"',
        "\\",
        "\\'",
        "a' OR '1'='1",
        "x'); DROP TABLE dataset; --",
        "%",
        "_",
        "\n",
        "\0",
        "ü'ö",
        " ",
        "task",
    ]
    examples = [
        {"id": f"{name}{number}", "task": name, "input": f"{name} {number}", "references": ["x"]}
        for name in names
        for number in range(2)
    ]
    folder = tmp_path_factory.mktemp("quoting")
    data, encoder = load_examples(Dataset.from_list(examples)), TextEncoder()
    return LanceIndex.build(data, encoder, folder / "lance"), UpstreamIndex.build(data, encoder, folder / "faiss")


@given(st.data())
def test_exclusions_are_what_they_say_whatever_characters_they_have(quoting_index, data):
    lance_index, index = quoting_index
    tasks, ids = sorted({*index.dataset["task"][:]}), index.dataset["id"][:]
    excluded = {
        "exclude_tasks": data.draw(st.lists(st.sampled_from(tasks), max_size=5)),
        "exclude_ids": data.draw(st.lists(st.sampled_from(ids) | TEXTS, max_size=5)),
    }
    found, expected = LanceRetriever(lance_index, **excluded), DenseRetriever(index, **excluded)
    assert found.num_allowed == expected.num_allowed
    assert found.retrieve(["a text"], 28)["id"][:] == expected.retrieve(["a text"], 28)["id"][:]


@given(TEXTS)
def test_a_text_that_is_no_task_leaves_nothing_out(quoting_index, text):
    lance_index, index = quoting_index
    if text not in index.dataset["task"][:]:
        assert lance_index.count(leaving_out("task", [text])) == len(index)


def test_a_search_visits_more_partitions_where_few_examples_are_left(tmp_path):
    shallow = IndexSettings(fewest_indexed=1, num_partitions=32, nprobes=1)
    index = LanceIndex.build(rows(2000), TextEncoder(), tmp_path / "index.lance", settings=shallow, min_recall=0.0)
    few = LanceRetriever(index, exclude_ids=[f"row/{row}" for row in range(5, 2000)])
    assert sorted(few.retrieve(["row 9"], 5)["id"][:]) == [f"row/{row}" for row in range(5)]
