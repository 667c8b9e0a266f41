"""Retrieval by words."""

import os
import subprocess
import sys

import bm25s
import numpy as np
import pytest
from datasets import Dataset

from recross_hf import BM25Retriever, load_examples
from recross_hf.retrieval.bm25 import TOKEN_PATTERN

TEXTS = {
    "sky": ["the blue sky over the river", "a sky without clouds"],
    "sea": ["the blue sea", "fish in the sea and in the river", "the sea, the sea"],
    "pan": ["fish in a hot pan"],
}


@pytest.fixture(scope="module")
def upstream():
    rows = [{"task": task, "input": text, "references": ["x"]} for task, texts in TEXTS.items() for text in texts]
    return load_examples(Dataset.from_list(rows))


def test_examples_that_share_rare_words_come_first(upstream):
    found = BM25Retriever(upstream).retrieve(["Which pan for fish?"], 2)
    assert found["task"][:] == ["pan", "sea"]
    assert found["distance"][0] < found["distance"][1] < 0
    assert found["query"][:] == [0, 0]


def test_scores_are_those_of_the_formula(upstream):
    """Robertson and Zaragoza 2009 with Lucene's inverse document frequency, by hand for one word."""
    found = BM25Retriever(upstream, k1=1.2, b=0.5).retrieve(["sky"], 2)
    lengths = np.array([4, 3, 2, 3, 2, 3])  # without stop words and words of one letter
    idf = np.log(1 + (6 - 2 + 0.5) / (2 + 0.5))
    expected = [idf / (1 + 1.2 * (0.5 + 0.5 * length / lengths.mean())) for length in lengths[:2]]
    assert found["input"][:] == TEXTS["sky"][::-1]
    np.testing.assert_allclose(-np.array(found["distance"][:]), expected[::-1], rtol=1e-5)


def test_queries_take_turns_and_those_without_known_words_bring_nothing(upstream):
    found = BM25Retriever(upstream).retrieve(["sea", "zzz", "sky"], 6)
    assert found["query"][:] == [0, 2, 0, 2]
    assert set(found["task"][:]) == {"sea", "sky"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("我想喝茶", "他喜歡喝茶"),
        ("お茶が好き", "緑茶が好きです"),
        ("ดื่มชา", "ฉันดื่มชา"),
        ("हिन्दी में", "यह हिन्दी है"),
        ("தமிழ்", "தமிழ் மொழி"),
        ("한국어", "한국어 문장"),
        ("👍", "good 👍🏽"),
        ("nai\u0308ve", "a nai\u0308ve plan"),
        ("Привет", "привет мир"),
    ],
)
def test_words_of_every_script_are_found(query, expected):
    texts = [expected, "nothing of this", "其他", "ภู", "और", "❄ snow", "ve nai"]
    upstream = load_examples(Dataset.from_list([{"input": text, "references": ["x"]} for text in texts]))
    assert BM25Retriever(upstream).retrieve([query], 1)["input"][:] == [expected]


def test_tokens_of_latin_text_are_those_of_bm25s(examples):
    texts = [*examples["input"], "don't stop, it's 3 o'clock at No. 12_b (naïve café)", "X y ZZ", ""]
    kept, theirs = (
        bm25s.tokenize(texts, return_ids=False, show_progress=False, **pattern)
        for pattern in ({"token_pattern": TOKEN_PATTERN}, {})
    )
    assert kept == theirs
    assert any(kept)


def test_inputs_without_a_word_are_named(upstream, caplog):
    BM25Retriever(upstream).retrieve(["sea", "to be or not", "?"], 2)
    assert "found none in 2 of 3, such as 'to be or not': English stop words, single letters" in caplog.text


def test_excluded_examples_are_not_found(upstream):
    retriever = BM25Retriever(upstream, exclude_tasks=["sea"])
    assert set(retriever.retrieve(["fish in the sea"], 3)["task"]) == {"pan"}
    assert set(retriever.excluding(["pan"]).retrieve(["blue fish"], 3)["task"]) == {"sky"}


def test_its_identity_says_what_it_depends_on(upstream):
    one = BM25Retriever(upstream)
    assert one.identity() == BM25Retriever(upstream).identity()
    for other in (BM25Retriever(upstream, b=0.1), BM25Retriever(upstream.select(range(4))), one.excluding(["sky"])):
        assert other.identity() != one.identity()


def test_the_package_that_it_needs_is_named(upstream, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bm25s", None)
    with pytest.raises(ImportError, match=r"pip install 'recross_hf\[bm25\]'"):
        BM25Retriever(upstream)


def test_queries_without_a_hit_are_named(upstream, caplog):
    with pytest.raises(ValueError, match=r"none of 2 among the 6 .*BM25Retriever.*query 0: 'zzz', 1: 'qqq'"):
        BM25Retriever(upstream).retrieve(["zzz", "qqq"], 4)
    BM25Retriever(upstream).retrieve(["sea", "zzz", "sky"], 6)
    assert "No example was found for query 1: 'zzz'." in caplog.text


def test_jax_is_left_alone(tmp_path):
    """As `bm25s` is imported it would call JAX, which then holds three quarters of a GPU's memory."""
    package = tmp_path / "jax"
    package.mkdir()
    (package / "__init__.py").write_text(f"open({str(tmp_path / 'called')!r}, 'w').close()\n")
    (package / "lax.py").write_text("def top_k(values, k): return values, values\n")
    program = (
        "from recross_hf import BM25Retriever, load_examples\n"
        "from datasets import Dataset\n"
        "rows = Dataset.from_list([{'task': 'a', 'input': 'blue sky', 'references': ['x']}])\n"
        "print(BM25Retriever(load_examples(rows)).retrieve(['a sky'], 1)['input'][0])\n"
        "import os, sys\n"
        f"assert not os.path.exists({str(tmp_path / 'called')!r}) and 'jax' not in sys.modules\n"
        "import jax.lax\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    found = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (found.returncode, found.stdout) == (0, "blue sky\n"), found.stderr
