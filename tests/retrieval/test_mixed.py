"""Replay: random examples among those that a retriever finds."""

import numpy as np
import pytest

from recross_hf import DenseRetriever, MixedRetriever


def test_a_share_is_random_and_none_of_it_was_found(index, queries):
    dense = DenseRetriever(index)
    found = MixedRetriever(dense, share=0.25, seed=1).retrieve(queries, 16)
    assert found["id"][:12] == dense.retrieve(queries, 12)["id"][:]
    drawn = found.select(range(12, 16))
    assert not {*drawn["id"][:]} & {*found["id"][:12]} and len({*drawn["id"][:]}) == 4
    assert drawn["query"][:] == [-1] * 4 and np.isnan(drawn["distance"][:]).all()
    again, other = (MixedRetriever(dense, share=0.25, seed=seed).retrieve(queries, 16)["id"][:] for seed in (1, 2))
    assert again == found["id"][:]
    assert other[:12] == again[:12] and other[12:] != again[12:]


def test_what_is_excluded_is_neither_found_nor_drawn(index, queries):
    mixed = MixedRetriever(DenseRetriever(index, exclude_tasks=["sum"]), share=0.5)
    found = mixed.excluding(["colour"], ["sentiment/0"]).retrieve(queries, 22)
    assert {*found["task"][:]} == {"sentiment", "opposite"}
    assert "sentiment/0" not in found["id"][:]
    assert "colour" in mixed.retrieve(queries, 30)["task"][:]


def test_all_and_none_of_it(index, queries):
    dense = DenseRetriever(index)
    assert MixedRetriever(dense, share=0).retrieve(queries, 8)["id"][:] == dense.retrieve(queries, 8)["id"][:]
    assert MixedRetriever(dense, share=1).retrieve(queries, 8)["query"][:] == [-1] * 8
    with pytest.raises(ValueError, match=r"a share of random examples from 0 to 1, found 1\.5"):
        MixedRetriever(dense, share=1.5)
    assert MixedRetriever(dense, seed=1).identity() != MixedRetriever(dense, seed=2).identity()
