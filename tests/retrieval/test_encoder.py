import copy

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertModel

from recross_hf import MeanPooledEncoder, encode_in_processes

TEXTS = [
    "short",
    "Is the review good? It was a lovely film, and rather a long one at that.",
    "",
    "Which colour has the sky?",
    "ünïcödé ✓",
    "short",
    "Add one and three. " * 4,
]


def naive(model, tokenizer, text: str, max_length: int) -> np.ndarray:
    """One text alone, so without padding: the plain mean over its tokens."""
    ids = tokenizer(text)["input_ids"]
    if len(ids) > max_length:
        ids = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
    with torch.no_grad():
        hidden = model.get_encoder()(torch.tensor([ids])).last_hidden_state[0]
    return np.stack([row.numpy() for row in hidden]).astype(np.float64).mean(axis=0)


def test_vectors_are_the_mean_of_the_last_layer_of_each_text_alone(any_model, tokenizer):
    encoder = MeanPooledEncoder(any_model, tokenizer)
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), encoder.dimension) == (len(TEXTS), 32)
    expected = [naive(any_model, tokenizer, text, encoder.max_length) for text in TEXTS]
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-2


@given(st.permutations(range(len(TEXTS))), st.sampled_from([1, 50, 100_000]))
@settings(max_examples=20)
def test_vectors_depend_on_neither_order_nor_batch(encoder, order, token_budget):
    other = MeanPooledEncoder.__new__(MeanPooledEncoder)
    other.__dict__ = encoder.__dict__ | {"token_budget": token_budget}
    vectors = other.encode([TEXTS[row] for row in order])
    np.testing.assert_allclose(vectors, encoder.encode(TEXTS)[list(order)], atol=1e-5)


def test_repeated_texts_are_encoded_once(encoder, monkeypatch):
    batches = []
    pool = encoder._pool
    monkeypatch.setattr(encoder, "_pool", lambda batch: batches.append(len(batch)) or pool(batch))
    vectors = encoder.encode(["a", "b", "a", "a"])
    assert sum(batches) == 2
    assert np.array_equal(vectors[0], vectors[2])
    assert np.array_equal(vectors[0], vectors[3])
    assert not np.array_equal(vectors[0], vectors[1])


def test_no_texts_give_no_vectors(encoder):
    vectors = encoder.encode([])
    assert vectors.shape == (0, 32)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize(("texts", "match"), [("one", "found one string"), (["one", 2], "strings, found int")])
def test_what_is_no_list_of_texts_is_refused(texts, match, encoder):
    with pytest.raises(TypeError, match=match):
        encoder.encode(texts)


def test_a_model_without_an_encoder_is_refused(tokenizer):
    model = BertModel(tiny.bert_config(tokenizer))
    with pytest.raises(TypeError, match=r"decoder-only one .*found BertModel"):
        MeanPooledEncoder(model, tokenizer)


def test_long_texts_are_cut(bart, tokenizer):
    encoder = MeanPooledEncoder(bart, tokenizer, max_length=8)
    long, cut = encoder.encode(["abcdef and so on", "abcdef but not so"])
    assert len(tokenizer("abcdef and so on")["input_ids"]) > 8
    np.testing.assert_allclose(long, naive(bart, tokenizer, "abcdef and so on", 8), atol=1e-5)
    np.testing.assert_allclose(long, cut, atol=1e-5)


def test_the_longest_input_is_what_the_model_can_take(any_model, tokenizer):
    encoder = MeanPooledEncoder(any_model, tokenizer)
    # T5's positions are relative: what the tokenizer says, 128 as for the others, is no limit of the model.
    assert encoder.max_length == {"encoder-decoder": 96, "bart": 128, "t5": 512}[any_model.config.model_type]
    assert np.isfinite(encoder.encode(["word " * 1000])).all()
    unlimited = copy.deepcopy(tokenizer)
    unlimited.model_max_length = int(1e30)
    expected = {"bart": 128, "t5": 512, "encoder-decoder": 96}[any_model.config.model_type]
    assert MeanPooledEncoder(any_model, unlimited).max_length == expected


def test_bfloat16_gives_float32_arrays_near_the_float32_vectors(bart, tokenizer, encoder):
    half = MeanPooledEncoder(copy.deepcopy(bart).to(torch.bfloat16), tokenizer)
    vectors = half.encode(TEXTS)
    assert vectors.dtype == np.float32
    exact = encoder.encode(TEXTS)
    assert 0 < np.abs(vectors - exact).max() < 0.1 * np.abs(exact).max()
    assert half.identity()["dtype"] == "bfloat16"


def test_the_mode_of_the_model_is_restored_and_dropout_is_off(bart, tokenizer, encoder):
    model = copy.deepcopy(bart)
    training = MeanPooledEncoder(model, tokenizer)
    model.train()
    np.testing.assert_allclose(training.encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)
    assert all(module.training for module in model.modules())
    model.eval()
    training.encode(TEXTS)
    assert not any(module.training for module in model.modules())


def test_the_identity_changes_with_whatever_changes_vectors(bart, tokenizer, encoder):
    assert MeanPooledEncoder(copy.deepcopy(bart), tokenizer).identity() == encoder.identity()
    changed = copy.deepcopy(bart)
    with torch.no_grad():
        changed.get_encoder().layers[1].fc1.bias[3] += 1e-6
    identity = MeanPooledEncoder(changed, tokenizer).identity()
    assert {name for name in identity if identity[name] != encoder.identity()[name]} == {"weights"}
    shorter = MeanPooledEncoder(bart, tokenizer, max_length=16).identity()
    assert {name for name in shorter if shorter[name] != encoder.identity()[name]} == {"max_length"}


def test_the_side_that_is_cut_is_part_of_the_identity_where_it_is_not_the_right(bart, tokenizer):
    other = copy.deepcopy(tokenizer)
    other.truncation_side = "left"
    right, left = (MeanPooledEncoder(bart, one, max_length=8) for one in (tokenizer, other))
    assert np.abs(right.encode(TEXTS) - left.encode(TEXTS)).max() > 1e-2
    assert left.identity() == right.identity() | {"truncation_side": "left"}
    assert "truncation_side" not in right.identity()  # indexes of earlier versions have none


def test_a_saved_model_encodes_as_before(any_model, tokenizer, tmp_path):
    any_model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = MeanPooledEncoder.from_pretrained(tmp_path, device="cpu", token_budget=64)
    original = MeanPooledEncoder(any_model, tokenizer)
    assert loaded.identity() == original.identity()
    np.testing.assert_allclose(loaded.encode(TEXTS), original.encode(TEXTS), atol=1e-5)
    short = MeanPooledEncoder.from_pretrained(tmp_path, device="cpu", dtype=torch.bfloat16, max_length=5)
    assert (short.identity()["dtype"], short.max_length) == ("bfloat16", 5)


@pytest.mark.parametrize("shard_size", [1, 3, 100])
def test_one_process_encodes_as_encode_does(shard_size, encoder):
    vectors = encode_in_processes(encoder, TEXTS, shard_size=shard_size)
    np.testing.assert_allclose(vectors, encoder.encode(TEXTS), atol=1e-5)
    assert encode_in_processes(encoder, []).shape == (0, 32)


def test_autocast_is_close_and_is_part_of_the_identity(bart, tokenizer):
    texts = ["one text", "another text that is longer", "a third"]
    exact = MeanPooledEncoder(bart, tokenizer)
    half = MeanPooledEncoder(bart, tokenizer, autocast_dtype=torch.bfloat16)
    difference = np.abs(half.encode(texts) - exact.encode(texts)).max()
    assert 0 < difference < 0.05
    assert half.encode(texts).dtype == np.float32
    assert half.identity() != exact.identity()
    again = MeanPooledEncoder.from_settings(bart, tokenizer, half.settings)
    assert again.identity() == half.identity()


def test_a_length_beyond_the_models_positions_is_refused(bart, tokenizer):
    with pytest.raises(ValueError, match="at most 128, the positions that this model has, found 129"):
        MeanPooledEncoder(bart, tokenizer, max_length=129)
