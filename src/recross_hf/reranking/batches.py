"""Batches of mined pairs, tokenised once."""

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
    """Pairs as token ids; each distinct text is tokenised once, and pairs are joined when they are asked for."""

    def __init__(self, pairs: Dataset, pair_tokenizer: PairTokenizer, include_answers: bool) -> None:
        columns = pairs.to_dict()
        self.pair_tokenizer = pair_tokenizer
        candidates = [
            candidate_text(text, answer, include_answers)
            for text, answer in zip(columns["candidate"], columns["answer"], strict=True)
        ]
        place_of = {text: place for place, text in enumerate(dict.fromkeys([*columns["query"], *candidates]))}
        self.token_ids = pair_tokenizer.tokenize(list(place_of))
        self.first = [place_of[text] for text in columns["query"]]
        self.second = [place_of[text] for text in candidates]
        self.labels = columns["label"]
        self.utilities = _standardized(np.array(columns["utility"]), rows_by_set(pairs))
        queries = list(zip(columns["set"], columns["query"], strict=True))
        number_of = {query: number for number, query in enumerate(dict.fromkeys(queries))}
        self.query_of = [number_of[query] for query in queries]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that is learned from, in its order."""
        held = (self.token_ids, self.first, self.second, self.labels, self.utilities.tolist(), self.query_of)
        return hashlib.sha256(json.dumps(held).encode()).hexdigest()

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
    """Utilities less their set's mean, in units of its standard deviation."""
    result = np.zeros(len(utilities))
    for rows in rows_of.values():
        of_set = utilities[rows]
        if np.ptp(of_set) > 0:  # the deviation of equal numbers need not be 0 in floating point
            result[rows] = (of_set - of_set.mean()) / of_set.std()
    return result


class QuerySampler(torch.utils.data.Sampler[int]):
    """All pairs of one query after another, the queries in an order that changes with the epoch."""

    def __init__(self, query_of: list[int], seed: int) -> None:
        self.rows: dict[int, list[int]] = {}
        for row, query in enumerate(query_of):
            self.rows.setdefault(query, []).append(row)
        self.num_pairs, self.seed, self.epoch = len(query_of), seed, 0

    def __len__(self) -> int:
        return self.num_pairs

    def __iter__(self) -> Iterator[int]:
        queries = list(self.rows)
        for place in np.random.default_rng([self.seed, self.epoch]).permutation(len(queries)):
            yield from self.rows[queries[place]]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
