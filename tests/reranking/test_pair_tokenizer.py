import functools

import pytest
import tiny
from hypothesis import example, given
from hypothesis import strategies as st

from recross_hf.reranking.pair_tokenizer import PairTokenizer

KINDS = ["roberta", "bert"]
TEXTS = st.one_of(
    st.text(max_size=40),
    st.builds(lambda word, times: word * times, st.sampled_from(["a", "good ", "é✓ ", "</s>"]), st.integers(0, 200)),
)


@functools.cache
def tokenizer_of(kind):
    return tiny.pair_tokenizer(kind)


@pytest.mark.parametrize("kind", KINDS)
@given(TEXTS, TEXTS, st.integers(6, 80))
@example("a" * 50, "a" * 50, 21)
@example("a" * 50, "a" * 50, 20)
@example("a" * 50, "b" * 51, 21)
@example("b" * 51, "a" * 50, 21)
@example("a" * 9, "b" * 4000, 21)
@example("", "b" * 99, 21)
@example("a", "", 21)
def test_pairs_are_joined_as_the_tokenizer_joins_them(kind, first, second, max_length):
    tokenizer = tokenizer_of(kind)
    pairs = PairTokenizer(tokenizer, max_length)
    ids = pairs.tokenize([first, second])
    joined = pairs.join(*ids)
    # In lists: alone, the tokenizer takes an empty second text for none.
    expected = tokenizer([first], [second], truncation=True, max_length=max_length, return_attention_mask=False)
    assert joined == {name: values[0] for name, values in expected.items()}
    assert pairs.length(*map(len, ids)) == len(joined["input_ids"]) <= max_length


@given(st.integers(0, 300), st.integers(0, 300), st.integers(6, 80))
def test_no_side_is_cut_away_and_the_room_is_used(first, second, max_length):
    pairs = PairTokenizer(tokenizer_of("roberta"), max_length)
    kept = pairs.cut(first, second)
    assert sum(kept) == min(first + second, max_length - 4)
    assert min(first, 1) <= kept[0] <= first
    assert min(second, 1) <= kept[1] <= second


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_the_tokenizers(kind):
    tokenizer = tokenizer_of(kind)
    pairs = PairTokenizer(tokenizer, 64)
    texts = [("one", "a longer one"), ("", "x"), ("sky", "grass " * 50)]
    batch = pairs.pad([pairs.join(*pairs.tokenize(pair)) for pair in texts])
    expected = tokenizer(*map(list, zip(*texts, strict=True)), truncation=True, padding=True, return_tensors="pt")
    assert {name: values.tolist() for name, values in batch.items()} == {
        name: values.tolist() for name, values in expected.items()
    }


def test_pairs_of_one_length_need_no_mask():
    pairs = PairTokenizer(tokenizer_of("bert"), 64)
    assert set(pairs.pad([pairs.join([5, 6], [7]), pairs.join([5], [6, 7])])) == {"input_ids", "token_type_ids"}


def test_texts_are_tokenised_whole_and_in_order():
    tokenizer = tokenizer_of("roberta")
    pairs = PairTokenizer(tokenizer, 10)
    texts = [f"text {number}" for number in range(520)] + ["word " * 100]
    assert pairs.tokenize(texts) == [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert pairs.tokenize([]) == []


def test_a_tokenizer_that_runs_texts_together_is_refused(tokenizer):
    match = r"puts a separator between the two texts of a pair, found .* Choose an encoder with pair support"
    with pytest.raises(ValueError, match=match):
        PairTokenizer(tokenizer, 64)


@pytest.mark.parametrize("kind, least", [("roberta", 6), ("bert", 5)])
def test_a_pair_needs_room_for_a_token_of_each_text(kind, least):
    assert len(PairTokenizer(tokenizer_of(kind), least).join([5] * 9, [6] * 9)["input_ids"]) == least
    with pytest.raises(ValueError, match=f"Expected `max_length` to be at least {least}, found {least - 1}"):
        PairTokenizer(tokenizer_of(kind), least - 1)
