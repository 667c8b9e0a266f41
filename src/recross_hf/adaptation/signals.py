"""Signals: what can be said of an adaptation without labels, as numbers that a verdict can be made of."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..models.generation import Answer
from ..soft_em import answer_key
from .answer_form import AnswerForm

Numbers = dict[str, float | None]
"""Signals by name; None where one cannot be said of a task, such as the margin between options of inputs that name none."""

FEWEST = 4
"""Number of examples, or of inputs, below which no mean over them is given."""
MOST_ERRORS = 99.0
"""Standard errors that a mean is said to be from 0 at most: where all examples agree, their number is no evidence of a larger one."""


@dataclass(frozen=True)
class ModelReading:
    """What one of the two models makes of the held-out examples and of the inputs; each list has a value for each of them.

    Args:
        losses: Mean loss a token of each held-out example, in nats.
        answers: Answers to the inputs.
        confidences: Mean log-likelihood a token of these answers, in nats.
        margins: Mean difference, over these answers' tokens, between the two likeliest tokens' log-likelihoods.
        first_entropies: Entropy of the distribution of the first token, in nats.
        first_information: Mutual information of input and first token: the entropy of the mean distribution less the mean entropy.
        options: Log-likelihoods of the options of each input, the mean over an option's tokens; empty where none are known.
    """

    losses: Sequence[float]
    answers: Sequence[Answer]
    confidences: Sequence[float]
    margins: Sequence[float]
    first_entropies: Sequence[float]
    first_information: float
    options: Sequence[Sequence[float]]

    def to_json(self) -> dict[str, Any]:
        """The reading as JSON values; what is not finite is None."""
        return {
            "answers": [answer.text for answer in self.answers],
            "is_ended": [answer.is_ended for answer in self.answers],
            "confidences": _finite(self.confidences),
            "margins": _finite(self.margins),
            "first_entropies": _finite(self.first_entropies),
            "options": [_finite(values) for values in self.options],
        }


@dataclass(frozen=True)
class AdaptationSignals:
    """What is measured of a base and of what was adapted from it, without labels of the task.

    Args:
        base, adapted: Readings of the two models.
        base_answers: Mean log-likelihood a token of the base's answers under the adapted model.
        divergences: Kullback-Leibler divergence of the adapted model's first token from the base's, for each input, in nats.
        distances: Total variation distance of the two, for each input, between 0 and 1.
        option_names: Options of each input that `options` of the readings are of.
        named: Answers that each input names, as [`answer_key`] has them.
        task_shares: Share of each task in the examples that were learned from.
        is_of_learned_task: Whether each held-out example is of a task that was learned from.
        held_out: What is known of the held-out examples, by column: `id`, `task`, `rank`.
        learned_answers: Answers that were learned from, as [`answer_key`] has them.
        lost_form: Sentences that say what form of the base's answers was lost.
    """

    base: ModelReading
    adapted: ModelReading
    base_answers: Sequence[float]
    divergences: Sequence[float]
    distances: Sequence[float]
    option_names: Sequence[Sequence[str]]
    named: Sequence[frozenset[str]]
    task_shares: Sequence[float]
    is_of_learned_task: Sequence[bool]
    held_out: Mapping[str, Sequence[Any]]
    learned_answers: frozenset[str]
    lost_form: Sequence[str]

    @property
    def numbers(self) -> Numbers:
        """All signals by name. Those that end in `_base` and `_adapted` are of one model, and `_gain` is what the second has more of."""
        found = self._of_held_out() | self._of_answers() | self._of_options()
        found |= _pair("confidence", _mean(self.base.confidences), _mean(self.adapted.confidences))
        found |= _pair("margin", _mean(self.base.margins), _mean(self.adapted.margins))
        found |= _pair("first_entropy", _mean(self.base.first_entropies), _mean(self.adapted.first_entropies))
        found |= _pair("first_information", self.base.first_information, self.adapted.first_information)
        base_answers = _mean(self.base_answers)
        found["base_answers_confidence"] = base_answers
        found["base_answers_gain"] = _difference(found["confidence_base"], base_answers)
        found["first_divergence"], found["first_distance"] = _mean(self.divergences), _mean(self.distances)
        found["top_task_share"] = max(self.task_shares, default=None)
        found["num_tasks"] = float(len(self.task_shares))
        readings = [*self.adapted.losses, *self.adapted.confidences, *self.divergences]
        found["is_finite"] = float(all(map(math.isfinite, readings)))
        return {name: None if value is None or not math.isfinite(value) else value for name, value in found.items()}

    def to_json(self) -> dict[str, Any]:
        """`numbers`, and what they were computed of: `held_out`, with a value for each example, and `inputs`."""
        losses = {"base": _finite(self.base.losses), "adapted": _finite(self.adapted.losses)}
        return {
            "numbers": self.numbers,
            "held_out": {**self.held_out, "is_of_learned_task": list(self.is_of_learned_task), **losses},
            "inputs": {
                "base": self.base.to_json(),
                "adapted": self.adapted.to_json(),
                "base_answers": _finite(self.base_answers),
                "divergences": _finite(self.divergences),
                "distances": _finite(self.distances),
                "options": [list(names) for names in self.option_names],
            },
            "lost_form": list(self.lost_form),
        }

    def _of_held_out(self) -> Numbers:
        base, adapted = np.array(self.base.losses), np.array(self.adapted.losses)
        fell, learned = base - adapted, np.array(self.is_of_learned_task, dtype=bool)
        found: Numbers = {"num_held_out": float(len(fell))}
        found["held_out_loss_base"], found["held_out_loss_adapted"] = _mean(base), _mean(adapted)
        found["held_out_fall"] = _mean(fell)
        found["held_out_fall_error"] = error = _standard_error(fell)
        found["held_out_z"] = z_score(found["held_out_fall"], error)
        found["held_out_share"] = _mean(fell > 0)
        found["held_out_relative_fall"] = None if not len(fell) else float(fell.mean() / max(base.mean(), 1e-6))
        for name, chosen in (("learned", fell[learned]), ("other", fell[~learned])):
            is_enough = len(chosen) >= FEWEST
            found[f"held_out_fall_{name}"] = _mean(chosen) if is_enough else None
            found[f"held_out_z_{name}"] = z_score(_mean(chosen), _standard_error(chosen)) if is_enough else None
        found["held_out_learned_share"] = _mean(learned)
        return found

    def _of_answers(self) -> Numbers:
        keys = [[answer_key(answer.text) for answer in model.answers] for model in (self.base, self.adapted)]
        forms = [AnswerForm.of(model.answers, self.named) for model in (self.base, self.adapted)]
        found: Numbers = {"num_answers": float(len(keys[0])), "lost_forms": float(len(self.lost_form))}
        found["changed"] = _mean([old != new for old, new in zip(*keys, strict=True)])
        found |= _pair("most_frequent_share", *[max(Counter(of_model).values()) / len(of_model) for of_model in keys])
        found |= _pair("answer_entropy", *[_answer_entropy(of_model) for of_model in keys])
        found |= _pair(
            "learned_share", *[_mean([key in self.learned_answers for key in of_model]) for of_model in keys]
        )
        for name in ("among_options_share", "empty_share", "unended_share", "repetitive_share"):
            found |= _pair(name, *[getattr(form, name) for form in forms])
        lengths = [statistics.fmean(math.log1p(len(answer.text)) for answer in model.answers)
                   for model in (self.base, self.adapted)]  # fmt: skip
        return found | _pair("log_length", *lengths)

    def _of_options(self) -> Numbers:
        rows = [row for row, names in enumerate(self.option_names) if len(names) > 1]
        found: Numbers = {"num_with_options": float(len(rows))}
        before, after = (
            [_softmax(model.options[row]) for row in rows] if len(rows) >= FEWEST else []
            for model in (self.base, self.adapted)
        )
        found |= _pair("options_entropy", *[_mean([*map(_entropy, of_model)]) for of_model in (before, after)])
        found |= _pair("options_margin", *[_mean([*map(_margin, of_model)]) for of_model in (before, after)])
        are_shared = len({tuple(self.option_names[row]) for row in rows}) == 1
        information = [_information(of_model) if of_model and are_shared else None for of_model in (before, after)]
        found |= _pair("options_information", *information)
        pairs = [*zip(before, after, strict=True)]
        found["options_changed"] = _mean([old.argmax() != new.argmax() for old, new in pairs])
        found["options_divergence"] = _mean([float((old * np.log(old / new)).sum()) for old, new in pairs])
        return found


def z_score(mean: float | None, error: float | None) -> float | None:
    """A mean in units of its standard error, within [`MOST_ERRORS`]; None where either is not known."""
    if mean is None or error is None:
        return None
    return min(max(mean / max(error, 1e-9), -MOST_ERRORS), MOST_ERRORS)


def _pair(name: str, base: float | None, adapted: float | None) -> Numbers:
    return {f"{name}_base": base, f"{name}_adapted": adapted, f"{name}_gain": _difference(base, adapted)}


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _standard_error(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def _answer_entropy(keys: Sequence[str]) -> float | None:
    """Entropy of the distribution of answers, as a share of what it is where all of them differ."""
    if len(keys) < 2:
        return None
    return _entropy(np.array([*Counter(keys).values()]) / len(keys)) / math.log(len(keys))


def _softmax(values: Sequence[float]) -> np.ndarray:
    exponents: np.ndarray = np.exp(np.array(values) - max(values))
    shares: np.ndarray = np.clip(exponents / exponents.sum(), 1e-12, None)
    return shares


def _entropy(shares: np.ndarray) -> float:
    return float(-(shares * np.log(shares)).sum())


def _margin(shares: np.ndarray) -> float:
    second, first = np.sort(shares)[-2:]
    return float(first - second)


def _information(rows: Sequence[np.ndarray]) -> float:
    """Mutual information of inputs and options: the entropy of the mean distribution less the mean entropy."""
    return _entropy(np.mean(rows, axis=0)) - float(np.mean([*map(_entropy, rows)]))


def _finite(values: Sequence[float]) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]
