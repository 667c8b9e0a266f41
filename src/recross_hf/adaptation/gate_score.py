"""The score of an adaptation: the probability that it helps, as its signals say it, and the words for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .signals import Numbers


@dataclass(frozen=True)
class WeighedSignal:
    """One signal of a logistic regression.

    Args:
        name: Name of the signal ([`AdaptationSignals.numbers`]).
        weight: Weight of the standardised signal.
        mean, scale: What it is standardised by.
        low, high: What it is clipped to before: beyond what was seen, it says no more.
    """

    name: str
    weight: float
    mean: float
    scale: float
    low: float = -math.inf
    high: float = math.inf

    def points(self, numbers: Numbers) -> float:
        """What the signal adds to the log odds; nothing where an adaptation lacks it, as if it had the usual value."""
        value = numbers.get(self.name)
        if value is None:
            return 0.0
        return self.weight * (min(max(value, self.low), self.high) - self.mean) / self.scale


@dataclass(frozen=True)
class GateScore:
    """A logistic regression on signals, and the probability of being of help that is asked for.

    Args:
        signals: Signals with their weights.
        intercept: Log odds where all signals have their usual values.
        threshold: Probability from which on an adaptation is kept.
        asks_form: Whether an adaptation whose answers lost their form is refused whatever its probability.
    """

    signals: tuple[WeighedSignal, ...]
    intercept: float
    threshold: float
    asks_form: bool = True

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> GateScore:
        """Reads what `benchmarks/gate_classifier.py` wrote as `chosen`."""
        signals = tuple(WeighedSignal(**signal) for signal in content["signals"])
        return cls(signals, content["intercept"], content["threshold"], content.get("asks_form", True))

    def probability(self, numbers: Numbers) -> float:
        """The probability that an adaptation helps; 0 where the adapted model's numbers are not finite."""
        if not numbers.get("is_finite", 1.0):
            return 0.0
        log_odds = self.intercept + sum(signal.points(numbers) for signal in self.signals)
        return 1 / (1 + math.exp(-min(max(log_odds, -50.0), 50.0)))

    def reason(self, numbers: Numbers) -> str:
        """A sentence with the probability, and one with the signals that it is made of."""
        if not numbers.get("is_finite", 1.0):
            return "What the adapted model computes is not finite: its training diverged."
        chance, asked = round(100 * self.probability(numbers)), round(100 * self.threshold)
        said = [in_words(signal.name, numbers) for signal in self.signals if numbers.get(signal.name) is not None]
        first = f"Of adaptations with such signs, about {chance} in 100 help, and {asked} are asked for"
        return f"{first}: {'; '.join(said)}." if said else f"{first}."


CALIBRATED = GateScore((), intercept=0.0, threshold=0.5)
"""The score of `gate="signals"`; without signals, the form of answers alone counts."""

_WORDS = {
    "held_out_fall": "the loss on {num_held_out:.0f} further neighbours {fell} by {size:.2f} nats a token",
    "held_out_relative_fall": "the loss on {num_held_out:.0f} further neighbours {fell} by {size:.0%}",
    "held_out_z": "the loss on {num_held_out:.0f} further neighbours {fell} by {size:.1f} standard errors",
    "held_out_share": "the loss fell on {value:.0%} of {num_held_out:.0f} further neighbours",
    "held_out_loss_adapted": "the loss on {num_held_out:.0f} further neighbours is {value:.2f} nats a token",
    "changed": "{value:.0%} of the answers changed",
    "lost_forms": "the answers lost {value:.0f} forms",
    "answer_entropy_gain": "the answers became {more} varied ({value:+.2f})",
    "most_frequent_share_gain": "the share of the most frequent answer {rose} by {size:.0%}",
    "among_options_share_gain": "the share of answers among the options of their input {rose} by {size:.0%}",
    "learned_share_gain": "the share of answers that were learned from {rose} by {size:.0%}",
    "unended_share_gain": "the share of answers without an end {rose} by {size:.0%}",
    "confidence_gain": "the model became {more} sure of its answers ({value:+.2f} nats a token)",
    "margin_gain": "the lead of the likeliest token {rose} by {size:.2f} nats",
    "options_margin_gain": "the lead of the likeliest option {rose} by {size:.0%}",
    "options_entropy_gain": "the choice between options became {less} sure ({value:+.2f} nats)",
    "options_changed": "the likeliest option is another one for {value:.0%} of the inputs",
    "base_answers_confidence": "the base's answers have {value:.2f} nats a token",
    "base_answers_gain": "the base's answers became {more} likely ({value:+.2f} nats a token)",
    "first_divergence": "the beginnings of answers moved by {value:.2f} nats",
    "first_distance": "the beginnings of answers differ by {value:.0%}",
    "first_entropy_gain": "the beginnings of answers became {less} sure ({value:+.2f} nats)",
    "first_information_gain": "the beginnings of answers depend {more} on the input ({value:+.2f} nats)",
    "first_information_adapted": "the beginnings of answers depend on the input by {value:.2f} nats",
    "answer_entropy_adapted": "the answers are {value:.0%} as varied as they can be",
    "confidence_adapted": "the adapted model's answers have {value:.2f} nats a token",
    "top_task_share": "{value:.0%} of what was learned from is of one task",
    "num_tasks": "what was learned from is of {value:.0f} tasks",
}


def in_words(name: str, numbers: Numbers) -> str:
    """A signal as a part of a sentence; one without words of its own is named."""
    value = numbers[name]
    assert value is not None
    is_rise = value >= 0
    words = _WORDS.get(name, f"the signal {name} is {{value:.2f}}").format(
        **{other: number for other, number in numbers.items() if number is not None},
        value=value,
        size=abs(value),
        fell="fell" if is_rise else "rose",
        rose="rose" if is_rise else "fell",
        more="more" if is_rise else "less",
        less="less" if is_rise else "more",
    )
    error = numbers.get("held_out_fall_error")
    return f"{words} (standard error {error:.2f})" if name == "held_out_fall" and error is not None else words
