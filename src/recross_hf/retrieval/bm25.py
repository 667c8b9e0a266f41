"""Retrieval by words: BM25, the baseline that needs no encoder."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset

from ..core.hashing import function_name
from .aggregation import Aggregation, Hits, Ranking, interleave
from .retriever import Retriever

logger = logging.getLogger(__name__)

# Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Tibetan, Burmese, Khmer), and emoji and other symbols: each
# character is a token, as a run of them would be a sentence and equal no other.
_CHARACTERS = (
    r"\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2190-\u21ff\u2600-\u27bf\u2b00-\u2bff\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U0001f000-\U0001faff\U00020000-\U0003ffff"
)
# Vowel signs and accents, which `\w` leaves out: without them, words of Hindi, Tamil, pointed Arabic or Hebrew fall to pieces.
_MARKS = r"\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u200c\u200d"
# The rest are words of two letters or more, as in `bm25s`.
_LETTER = rf"[^\W{_CHARACTERS}]"
TOKEN_PATTERN = rf"[{_CHARACTERS}]|(?:{_LETTER}|[{_MARKS}])(?:{_LETTER}+|[{_MARKS}]+)+"
"""Pattern of a word of BM25."""


class BM25Retriever(Retriever):
    """Upstream examples that share rare words with the inputs (Robertson and Zaragoza 2009); the package `bm25s` ranks them.

    ```python
    retriever = BM25Retriever(index.dataset)
    retriever.retrieve(inputs, num_retrieved=512)
    ```

    Words of two letters or more are compared in lower case, without English stop words; in Chinese, Japanese, Thai and other scripts
    without spaces, characters are, and so are emoji. An example that shares none with a query is no hit of it. The index is built in
    memory, anew each time.

    Args:
        upstream: Examples to retrieve from.
        k1: Constant of BM25: the smaller it is, the sooner a word's repetition stops counting.
        b: Constant of BM25: how much long examples are held back, from 0 to 1.
        aggregation: Function that makes one ranking of the hits of several inputs, such as `aggregation.interleave`.
        exclude_tasks: Tasks never to retrieve from.
        exclude_ids: Examples never to retrieve.

    Raises:
        ImportError: `bm25s` is not installed.
    """

    def __init__(
        self,
        upstream: Dataset,
        *,
        k1: float = 1.5,
        b: float = 0.75,
        aggregation: Aggregation = interleave,
        exclude_tasks: Collection[str] = (),
        exclude_ids: Collection[str] = (),
    ) -> None:
        super().__init__(upstream, exclude_tasks=exclude_tasks, exclude_ids=exclude_ids)
        bm25s = _bm25s()
        self.k1, self.b, self.aggregation = k1, b, aggregation
        self._tokenize = partial(bm25s.tokenize, token_pattern=TOKEN_PATTERN, show_progress=False)
        self._bm25 = bm25s.BM25(k1=k1, b=b)
        self._bm25.index(self._tokenize(upstream["input"][:]), show_progress=False)

    def identity(self) -> dict[str, Any]:
        """The identity of the base class, the constants of BM25 and the aggregation."""
        return super().identity() | {"k1": self.k1, "b": self.b, "aggregation": function_name(self.aggregation)}

    def rank(self, inputs: Sequence[str], num_retrieved: int) -> Ranking:
        words = self._tokenize(list(inputs), return_ids=False)
        silent = [text for text, of_text in zip(inputs, words, strict=True) if not of_text]
        if silent:
            logger.warning(
                "Expected words in each input, found none in %d of %d, such as %r: English stop words, single letters and punctuation "
                "are none. They find nothing; write longer inputs, or take a dense retriever.",
                len(silent),
                len(inputs),
                silent[0][:60],
            )
        scores = np.stack([self._scores(query) for query in words])
        return self.aggregation(lambda k: _best(scores, k), len(inputs), num_retrieved)

    def _scores(self, words: list[str]) -> np.ndarray:
        known = [word for word in words if word in self._bm25.vocab_dict]
        if not known:
            return np.zeros(len(self.upstream), dtype=np.float32)
        return np.where(self.allowed, self._bm25.get_scores(known), 0.0)


def _bm25s() -> Any:
    """The package `bm25s`, imported as if there were no JAX.

    Where there is, it would call JAX once as it is imported, which takes three quarters of a GPU's memory for as long as the process lives;
    the package's own choice of the best, which JAX speeds up, is not used here.
    """
    is_hidden = "jax" not in sys.modules
    if is_hidden:
        sys.modules["jax"] = None  # type: ignore[assignment]  # which stands for a module that cannot be imported
    try:
        import bm25s
    except ImportError as error:
        raise ImportError("BM25Retriever needs bm25s: pip install 'recross_hf[bm25]'.") from error
    finally:
        if is_hidden:
            del sys.modules["jax"]
    return bm25s


def _best(scores: np.ndarray, k: int) -> Hits:
    """The `k` highest scores above 0 of each query; among equals, the first example."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(scores, order, axis=1)
    return Hits(np.where(found > 0, order, -1), np.where(found > 0, -found, np.inf))
