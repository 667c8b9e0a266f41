"""The picture of an index: the same each time, and other texts in their places."""

import faiss
import numpy as np
import pytest
from datasets import Dataset

from recross_hf import LanceIndex, UpstreamIndex, load_examples
from recross_hf.retrieval.index_map import IndexMap


def test_texts_of_the_index_are_placed_where_the_index_has_them(index):
    index_map = IndexMap.of(index)
    assert len(index_map.points) == len(index_map.examples) == len(index)
    places = index_map.project(index.encoder.encode(index_map.examples["input"][:]))
    assert np.allclose(places, index_map.points, atol=1e-4)
    assert 0 < index_map.explained <= 1
    assert (IndexMap.of(index).points == index_map.points).all()
    vectors = index.encoder.encode(index.dataset["input"][:])
    spread = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)
    assert np.allclose(np.linalg.norm(index_map.points, axis=0), spread[:2], rtol=1e-3)


def test_a_sample_is_drawn_of_a_large_index(index):
    index_map = IndexMap.of(index, most_points=10)
    assert index_map.points.shape == (10, 2)
    ids = index_map.examples["id"][:]
    assert ids == [one for one in index.dataset["id"][:] if one in set(ids)]
    assert IndexMap.of(index, most_points=10, seed=1).examples["id"][:] != ids


def test_vectors_that_the_index_does_not_give_back_are_encoded(index, encoder, tmp_path):
    inverted = UpstreamIndex.build(index.dataset, encoder, tmp_path, factory="IVF4,Flat")
    with pytest.raises(RuntimeError):
        inverted.faiss_index.reconstruct(0)
    assert np.allclose(IndexMap.of(inverted).points, IndexMap.of(index).points, atol=1e-3)


def test_of_a_lance_data_set_the_sample_alone_is_read(index, encoder, tmp_path, monkeypatch):
    pytest.importorskip("lance", reason="pylance is absent: pip install 'recross_hf[cluster]'")
    built, read = LanceIndex.build(index.dataset, encoder, tmp_path / "index.lance"), []
    for name in ("rows", "vectors"):
        of_index = getattr(LanceIndex, name)

        def noticed(self, positions, *rest, of_index=of_index):
            read.append(len(positions))
            return of_index(self, positions, *rest)

        monkeypatch.setattr(LanceIndex, name, noticed)
    found, expected = (IndexMap.of(one, most_points=10) for one in (built, index))
    assert read == [10, 10]
    assert found.examples.to_list() == expected.examples.to_list()
    assert np.allclose(found.points, expected.points, atol=1e-5)
    assert np.allclose(found.project(encoder.encode(found.examples["input"][:])), found.points, atol=1e-4)


@pytest.mark.parametrize("factory", ["L2norm,Flat", "L2norm,IVF4,Flat"])
def test_an_index_by_cosine_has_other_texts_where_its_own_are(factory, index, encoder, tmp_path):
    index_map = IndexMap.of(UpstreamIndex.build(index.dataset, encoder, tmp_path, factory=factory))
    places = index_map.project(encoder.encode(index_map.examples["input"][:]))
    assert np.allclose(places, index_map.points, atol=1e-4)
    assert np.abs(places).max() < 2


def test_conversations_are_encoded_as_their_turns():
    class Turns:
        read = None

        def encode(self, texts):
            self.read = texts
            return np.random.default_rng(0).normal(size=(len(texts), 4)).astype(np.float32)

    turns = [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}] for text in ("one", "two")
    ]
    answered = [[*of_one, {"role": "assistant", "content": "yes"}] for of_one in turns]
    examples = load_examples(Dataset.from_dict({"messages": answered}), task="chat")
    encoder = Turns()
    quantizer = faiss.IndexFlatL2(4)
    inverted = faiss.IndexIVFFlat(quantizer, 4, 1)
    vectors = encoder.encode(["", ""])
    inverted.train(vectors)
    inverted.add(vectors)
    IndexMap.of(UpstreamIndex(examples, inverted, encoder, {}))
    assert [[*text.messages] for text in encoder.read] == turns


@pytest.mark.parametrize("number", [1, 2])
def test_an_index_of_few_examples_has_a_picture(number, index, encoder):
    vectors = encoder.encode(index.dataset["input"][:number])
    flat = faiss.IndexFlatL2(vectors.shape[1])
    flat.add(vectors)
    index_map = IndexMap.of(UpstreamIndex(index.dataset.select(range(number)), flat, encoder, {}))
    assert np.isfinite(index_map.points).all()
    assert np.isfinite(index_map.explained)
    assert index_map.points.shape == (number, 2)
