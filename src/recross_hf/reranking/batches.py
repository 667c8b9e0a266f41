"""Batches of mined pairs: texts that are tokenised once, and an order that keeps the pairs of a query together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from .evaluation import candidate_text, rows_by_set
from .pair_tokenizer import PairTokenizer


class TokenizedPairs(torch.utils.data.Dataset):
    """Pairs as token ids; each distinct text is tokenised once, and a pair is joined when it is asked for.

    Args:
        pairs: Pairs of [`mine_supervision`].
        pair_tokenizer: Tokenizer of the pairs.
        include_answers: Whether candidates are read with their answers.
    """

    def __init__(self, pairs: Dataset, pair_tokenizer: PairTokenizer, include_answers: bool) -> None:
        columns = pairs.to_dict()
        self.pair_tokenizer = pair_tokenizer
        candidates = [
            candidate_text(text, answer, include_answers)
            for text, answer in zip(columns["candidate"], columns["answer"], strict=True)
        ]
        row_of = {text: row for row, text in enumerate(dict.fromkeys([*columns["query"], *candidates]))}
        self.token_ids = pair_tokenizer.tokenize(list(row_of))
        self.first = [row_of[text] for text in columns["query"]]
        self.second = [row_of[text] for text in candidates]
        self.labels = columns["label"]
        self.utilities = _standardized(np.array(columns["utility"]), rows_by_set(pairs))
        queries = list(zip(columns["set"], columns["query"], strict=True))
        number_of = {query: number for number, query in enumerate(dict.fromkeys(queries))}
        self.query_of = [number_of[query] for query in queries]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all token ids and targets, in their order."""
        content = (self.token_ids, self.first, self.second, self.labels, self.utilities.tolist(), self.query_of)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, item: int) -> dict[str, Any]:
        joined = self.pair_tokenizer.join(self.token_ids[self.first[item]], self.token_ids[self.second[item]])
        return joined | {
            "label": self.labels[item],
            "utility": self.utilities[item],
            "query": self.query_of[item],
        }


def _standardized(utilities: np.ndarray, rows_of: dict[Any, list[int]]) -> np.ndarray:
    """Utilities less the mean of their set, in units of its standard deviation."""
    standardized = np.zeros(len(utilities))
    for rows in rows_of.values():
        of_set = utilities[rows]
        if np.ptp(of_set) > 0:  # the deviation of equal numbers need not be 0 in floating point
            standardized[rows] = (of_set - of_set.mean()) / of_set.std()
    return standardized


class QuerySampler(torch.utils.data.Sampler[int]):
    """Sampler that keeps the pairs of a query together; the order of the queries changes with the epoch.

    Args:
        query_of: Number of each pair's query.
        seed: Seed of the order.
    """

    def __init__(self, query_of: list[int], seed: int) -> None:
        self.rows: dict[int, list[int]] = {}
        for row, query in enumerate(query_of):
            self.rows.setdefault(query, []).append(row)
        self.num_pairs, self.seed, self.epoch = len(query_of), seed, 0

    def __len__(self) -> int:
        return self.num_pairs

    def __iter__(self) -> Iterator[int]:
        queries = list(self.rows)
        for number in np.random.default_rng([self.seed, self.epoch]).permutation(len(queries)):
            yield from self.rows[queries[number]]

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch whose order comes next."""
        self.epoch = epoch
