"""Examples that share a source, a text or n-grams with target tasks are found (Brown et al. 2020, appendix C)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from datasets import Dataset

_WORD = re.compile(r"\w+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
# An n-gram in so large a share of a template's examples, where there are so many, is the template's wording and no content.
_WORDING_SHARE = 0.5
_WORDING_EXAMPLES = 10
# Where templates have no names, an n-gram in this share of a task's examples is wording.
_UNNAMED_SHARE = 0.05


class ContaminationError(ValueError):
    """Upstream examples share text or source with a target task, and `on_overlap` is "fail"."""


class Overlap(NamedTuple):
    """The text or the source that an example shares with an example of a target task.

    Attributes:
        kind: "id" (the same source example), "exact" (the same words) or "ngram".
        target_task: Name of the target task.
        target_id: Id of the target task's example.
        shared: Words that both have; for "id" the source example.
    """

    kind: str
    target_task: str
    target_id: str
    shared: str


class Decontaminator:
    """Finds the examples that share a source or text with target tasks.

    ```python
    decontaminator = Decontaminator.of([load_examples("test.parquet")])
    overlaps = decontaminator.find(ids, inputs, references)  # an `Overlap` or None for each example
    ```

    Words are compared in lower case and without punctuation; in scripts without spaces a word is a whole phrase. N-grams
    are kept as hashes of 64 bits: each takes eight bytes and a row number. An empty Decontaminator is falsy.

    Args:
        ngram_size: Words in a row that two texts must share; 13 by default, as in Brown et al. 2020.

    Raises:
        ValueError: `ngram_size` is below 2.
    """

    def __init__(self, ngram_size: int = 13) -> None:
        if ngram_size < 2:
            raise ValueError(f"Expected `ngram_size` to be at least 2 words, found {ngram_size}.")
        self.ngram_size = ngram_size
        self._ids: list[str] = []
        self._tasks: list[str] = []
        self._sources: dict[str, int] = {}
        self._exact = _OwnedHashes()
        self._ngrams = _OwnedHashes()

    @classmethod
    def of(cls, targets: Iterable[Dataset], *, ngram_size: int = 13) -> Decontaminator:
        """A Decontaminator of the texts of target tasks.

        An n-gram that many of a template's examples have is the template's wording, and no content. A template with fewer than ten
        examples has no known wording: an upstream example with the same wording then counts as an overlap.

        Args:
            targets: Data sets of target examples or query sets; a task may be spread over several.
            ngram_size: Words in a row that two texts must share.

        Returns:
            The Decontaminator.
        """
        decontaminator = cls(ngram_size)
        parts: dict[str, list[Dataset]] = {}
        for dataset in targets:
            wanted = [
                name for name in ("id", "task", "template", "input", "references") if name in dataset.column_names
            ]
            tasks = np.asarray(dataset["task"][:])
            for task in dict.fromkeys(tasks.tolist()):
                parts.setdefault(task, []).append(dataset.select_columns(wanted).select(np.flatnonzero(tasks == task)))
        for datasets in parts.values():
            decontaminator._add(datasets)
        return decontaminator

    def __len__(self) -> int:
        return len(self._ids)

    def identity(self) -> str:
        """A hash of all texts and sources that examples are compared with."""
        digest = blake2b(f"{self.ngram_size}".encode(), digest_size=16)
        for part in (self._exact.hashes, self._ngrams.hashes):
            digest.update(part.tobytes())
        digest.update("\n".join(sorted(self._sources)).encode())
        return digest.hexdigest()

    def _add(self, datasets: list[Dataset]) -> None:
        first = len(self._ids)
        ids: list[str] = []
        inputs: list[str] = []
        references: list[list[str]] = []
        templates: list[str] = []
        for examples in datasets:
            nothing = [""] * len(examples)
            ids += examples["id"][:]
            inputs += examples["input"][:]
            references += examples["references"][:] if "references" in examples.column_names else [[] for _ in nothing]
            templates += examples["template"][:] if "template" in examples.column_names else nothing
            self._tasks += examples["task"][:]
        self._ids += ids
        for row, identity in enumerate(ids):
            self._sources.setdefault(source_example(identity), first + row)
        words = [_words(text) for text in inputs]
        self._exact.add(*_exact_hashes(words), first)
        parts, owners = _parts(words, references)
        hashes, _, part_of = _ngram_hashes(parts, self.ngram_size)
        rows = owners[part_of]
        keep = ~_is_wording(hashes, rows, templates, [source_example(identity) for identity in ids])
        self._ngrams.add(hashes[keep], rows[keep], first)

    def find(
        self,
        ids: Sequence[str],
        inputs: Sequence[str],
        references: Sequence[Sequence[str]] = (),
        *,
        ngrams: bool = True,
    ) -> list[Overlap | None]:
        """The overlap of each example with a target task, or None: the first of id, exact and n-gram that holds.

        Args:
            ids: Ids of the examples.
            inputs: Inputs of the examples.
            references: Answers of the examples; without them only inputs are compared.
            ngrams: Whether to look for n-grams, which takes most of the time.

        Returns:
            An [`Overlap`] or None for each example.
        """
        found: list[Overlap | None] = [None] * len(ids)
        if not self._ids:
            return found
        words = [_words(text) for text in inputs]
        if ngrams:
            self._find_ngrams(words, references, found)
        hashes, owners = _exact_hashes(words)
        for example, row in zip(owners, self._exact.rows_of(hashes), strict=True):
            if row >= 0:
                found[example] = self._overlap("exact", int(row), " ".join(words[example]))
        for example, identity in enumerate(ids):
            source = source_example(identity)
            if source in self._sources:
                found[example] = self._overlap("id", self._sources[source], source)
        return found

    def _find_ngrams(
        self, words: list[list[str]], references: Sequence[Sequence[str]], found: list[Overlap | None]
    ) -> None:
        parts, owners = _parts(words, references)
        hashes, starts, part_of = _ngram_hashes(parts, self.ngram_size)
        rows = self._ngrams.rows_of(hashes)
        for window in np.flatnonzero(rows >= 0)[::-1]:  # the first of an example is written last
            part, start = int(part_of[window]), int(starts[window])
            shared = " ".join(parts[part][start : start + self.ngram_size])
            found[owners[part]] = self._overlap("ngram", int(rows[window]), shared)

    def _overlap(self, kind: str, row: int, shared: str) -> Overlap:
        return Overlap(kind, self._tasks[row], self._ids[row], shared)


def source_example(identity: str) -> str:
    """The row that an example was made of, by its id: `task|split|#n` of `task|split|template|#n`; any other id stands for itself."""
    parts = identity.split("|")
    return "|".join([*parts[:2], parts[-1]]) if len(parts) >= 4 and parts[-1].startswith("#") else identity


def _is_wording(hashes: np.ndarray, rows: np.ndarray, templates: list[str], sources: list[str]) -> np.ndarray:
    """Whether each n-gram is the wording of its example's template."""
    template_of, source_of = (np.unique(names, return_inverse=True)[1] for names in (templates, sources))
    names = np.unique(templates)
    found = np.zeros(len(hashes), dtype=bool)
    for template, name in enumerate(names.tolist()):
        here = template_of == template
        # Several prompts of one source example are one occurrence.
        number = len(np.unique(source_of[here]))
        least = max(_WORDING_EXAMPLES, (_WORDING_SHARE if name else _UNNAMED_SHARE) * number)
        mine = np.flatnonzero(here[rows])
        pairs = np.stack([hashes[mine], source_of[rows[mine]].astype(np.uint64)])
        distinct, counts = np.unique(np.unique(pairs, axis=1)[0], return_counts=True)
        wording = distinct[counts >= least] if name else distinct[counts > least]
        found[mine] = np.isin(hashes[mine], wording)
    return found


class _OwnedHashes:
    """Hashes in order, each with the row of an example that contains it."""

    def __init__(self) -> None:
        self.hashes = np.zeros(0, dtype=np.uint64)
        self.rows = np.zeros(0, dtype=np.int32)

    def add(self, hashes: np.ndarray, rows: np.ndarray, first: int) -> None:
        hashes = np.concatenate([self.hashes, hashes])
        rows = np.concatenate([self.rows, (rows + first).astype(np.int32)])
        self.hashes, position = np.unique(hashes, return_index=True)
        self.rows = rows[position]

    def rows_of(self, hashes: np.ndarray) -> np.ndarray:
        """The row for each hash, -1 where there is none."""
        if not len(self.hashes):
            return np.full(len(hashes), -1, dtype=np.int32)
        position = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[position] == hashes, self.rows[position], -1)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _parts(words: list[list[str]], references: Sequence[Sequence[str]]) -> tuple[list[list[str]], np.ndarray]:
    """The texts that no n-gram crosses, which are inputs and answers, and the example of each."""
    parts, owners = list(words), list(range(len(words)))
    for example, answers in enumerate(references):
        for answer in answers:
            parts.append(_words(answer))
            owners.append(example)
    return parts, np.asarray(owners, dtype=np.int64)


@lru_cache(maxsize=1 << 16)
def _word_hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")


def _exact_hashes(words: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """A hash of each text that has words, and the number of the text."""
    owners = [number for number, text in enumerate(words) if text]
    hashes = [
        int.from_bytes(blake2b(" ".join(words[number]).encode(), digest_size=8).digest(), "little")
        for number in owners
    ]
    return np.asarray(hashes, dtype=np.uint64), np.asarray(owners, dtype=np.int64)


def _ngram_hashes(parts: list[list[str]], size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hash of every n-gram, the word that it starts at and the text that it is in."""
    words = np.fromiter((_word_hash(word) for part in parts for word in part), dtype=np.uint64)
    lengths = np.asarray([len(part) for part in parts], dtype=np.int64)
    part_of = np.repeat(np.arange(len(parts)), lengths)
    number = max(len(words) - size + 1, 0)
    hashes = np.zeros(number, dtype=np.uint64)
    for offset in range(size):  # a polynomial in the words' hashes, modulo 2^64
        hashes = hashes * _MULTIPLIER + words[offset : offset + number]
    within = np.flatnonzero(part_of[:number] == part_of[size - 1 :]) if number else np.zeros(0, dtype=np.int64)
    starts = within - (np.cumsum(lengths) - lengths)[part_of[within]]
    return hashes[within], starts, part_of[within]
