"""Scores of answers, and answers that need no model, to be scored beside them."""

from __future__ import annotations

import string
from collections import Counter, defaultdict
from collections.abc import Sequence

from datasets import Dataset

from ..soft_em import answer_key, exact_match, normalize_answer, soft_match, warn_of_unmatchable

# A template's answers are taken for a fixed set if there are no more than so many, each so often on average. Three answers of
# NLI occur in 14 rows of a small test set; the names and spans of open questions do not repeat.
_LARGEST_ANSWER_SET = 10
_LEAST_REPETITION = 4
# The search for the best constant tries the most frequent references; a join of more of them gains next to nothing.
_FREQUENT_REFERENCES = 300
_LONGEST_JOIN = 12


def answer_sets(examples: Dataset) -> list[list[str]]:
    """The answers that each example may have: its `choices`, else the fixed set of its template, else none.

    A template has a fixed set if its references are few and repeat: at most ten distinct ones, each four times on average.
    The set holds the references of the test examples, the most frequent first.
    """
    nothing: list[list[str]] = [[] for _ in range(len(examples))]
    choices = examples["choices"][:] if "choices" in examples.column_names else nothing
    rows_of: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, group in enumerate(zip(examples["task"][:], _templates(examples), strict=True)):
        rows_of[group].append(row)
    references = examples["references"][:]
    answers = [list(given or ()) for given in choices]
    for rows in rows_of.values():
        counts, spelling = _counted([text for row in rows for text in references[row]])
        if len(counts) <= _LARGEST_ANSWER_SET and len(rows) >= _LEAST_REPETITION * len(counts):
            fixed = [spelling[key] for key, _ in counts.most_common()]
            for row in rows:
                answers[row] = answers[row] or fixed
    return answers


def score_answers(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    answers: Sequence[Sequence[str]],
    choices: Sequence[str | None],
) -> dict[str, list]:
    """Scores of each prediction, by the names of [`PREDICTION_FEATURES`].

    Args:
        predictions: Answers to score.
        references: Accepted answers of each example; the best one counts.
        answers: Answers that each example may have ([`answer_sets`]); empty where they are not known.
        choices: The answer of `answers` that the model finds most likely (rank classification); None where it is not known.

    Returns:
        Scores `soft_em`, `exact_match` and `num_words`; `in_answers`, which is None where no answers are known; and `rank_correct`,
            which is None where there is no choice, no answers are known, or no reference is one of them.
    """
    names = ("soft_em", "exact_match", "rank_correct", "in_answers", "num_words")
    scores: dict[str, list] = {name: [] for name in names}
    warn_of_unmatchable(references)
    for prediction, accepted, allowed, choice in zip(predictions, references, answers, choices, strict=True):
        keys, right = {answer_key(text) for text in allowed}, {answer_key(text) for text in accepted}
        scores["soft_em"].append(soft_match(prediction, list(accepted)))
        scores["exact_match"].append(exact_match(prediction, list(accepted)))
        scores["rank_correct"].append(None if choice is None or not keys & right else answer_key(choice) in right)
        scores["in_answers"].append(answer_key(prediction) in keys if keys else None)
        scores["num_words"].append(len(prediction.split()))
    return scores


def floor_answers(examples: Dataset) -> dict[str, list[str]]:
    """Answers to the examples that need no model, by name; a method must beat them to have learned anything.

    The `best constant` is the text with the highest SoftEM among those that are tried, see [`best_constant`]. The `majority answer` is
    the most frequent reference of each template, in exact match the best constant for it. The `echo` is the input. The first two are
    chosen with the references at hand.
    """
    references, templates = examples["references"][:], _templates(examples)
    by_template: dict[str, list[str]] = defaultdict(list)
    for template, accepted in zip(templates, references, strict=True):
        by_template[template] += accepted
    majority = {}
    for template, accepted in by_template.items():
        counts, spelling = _counted(accepted)
        majority[template] = spelling[counts.most_common(1)[0][0]]
    return {
        "best constant": [best_constant(references)] * len(examples),
        "majority answer": [majority[template] for template in templates],
        "echo": examples["input"][:],
    }


def best_constant(references: Sequence[Sequence[str]]) -> str:
    """The text that SoftEM scores highest for all examples together, among those that are tried.

    The search tries each frequent reference, single letters and digits (any reference that contains one matches it), and joins of
    references, each time with the one that gains most: "yes no maybe true false" contains the answer of every NLI example.
    """
    rows = [{key for text in accepted if (key := normalize_answer(text))} for accepted in references]
    counts = Counter(key for keys in rows for key in keys)
    if not counts:
        return ""
    frequent = [key for key, _ in counts.most_common(_FREQUENT_REFERENCES)]
    characters = [letter for letter in string.ascii_lowercase + string.digits if normalize_answer(letter)]
    tried = [*frequent, *characters]
    uncovered, joined = rows, ""
    for _ in range(_LONGEST_JOIN):
        gains = Counter(key for keys in uncovered for key in keys)
        if not gains:
            break
        joined = f"{joined} {gains.most_common(1)[0][0]}".strip()
        tried.append(joined)
        uncovered = [keys for keys in uncovered if not any(key in joined for key in keys)]

    def matched(text: str) -> int:
        matching = {key for key in counts if key in text or text in key}
        return sum(not matching.isdisjoint(keys) for keys in rows)

    return max(tried, key=lambda text: (matched(text), -len(text)))


def _templates(examples: Dataset) -> list[str]:
    return examples["template"][:] if "template" in examples.column_names else [""] * len(examples)


def _counted(texts: Sequence[str]) -> tuple[Counter[str], dict[str, str]]:
    """The number of times that each answer occurs, and its most frequent spelling."""
    spellings = Counter(texts)
    counts: Counter[str] = Counter()
    spelling: dict[str, str] = {}
    for text, count in spellings.most_common():
        key = answer_key(text)
        counts[key] += count
        spelling.setdefault(key, text)
    return counts, spelling
