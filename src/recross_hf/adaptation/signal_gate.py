"""The gate by signals: an adapted model stays where adaptations with its signals mostly helped."""

from __future__ import annotations

import logging

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel

from ..core.distributed import agreed
from ..data.conversations import texts_of
from ..retrieval.retriever import Retriever
from ..training.trainer import ExampleTrainer
from .answer_form import AnswerForm
from .gate_score import CALIBRATED, GateScore
from .retrieval import further_neighbours
from .safety_gate import GateEvidence, GateVerdict, SafetyGate
from .signal_recorder import SignalRecorder
from .signals import AdaptationSignals
from .weights_before import WeightsBefore

logger = logging.getLogger(__name__)

LEVEL = "signals"


class SignalGate:
    """Measures the signals of an adaptation, and puts the weights back that the model had before unless their score is high enough.

    The gate is made before the adaptation, as [`SafetyGate`] is. All retrieved examples are learned from.

    Args:
        trainer: Trainer of the model, whose weights are whole in each process.
        queries: Unlabelled inputs, with the column `input` and perhaps `choices`.
        learned: Examples that are learned from.
        held_out: Further neighbours of the inputs ([`retrieval.further_neighbours`]).
        source: Model that the trainer's was copied from; None where it is gone.
        score: Score that decides.

    Attributes:
        answers: Answers of the base, and of what [`decide`] left, by the inputs that were answered.
    """

    def __init__(
        self,
        trainer: ExampleTrainer,
        queries: Dataset,
        learned: Dataset,
        held_out: Dataset,
        source: PreTrainedModel | None,
        score: GateScore = CALIBRATED,
    ) -> None:
        self._score = score
        self._before = WeightsBefore(trainer.model, source)
        self._recorder = SignalRecorder(trainer, queries, learned, held_out)
        self.answers: dict[str, tuple[str, str]] = {}

    def decide(self) -> GateVerdict:
        """Says whether the adapted model is kept, as the main process finds; where it is not, its weights are the base's again.

        Raises:
            RuntimeError: It is not kept, and the model that holds the base's weights was changed.
        """
        signals = self._recorder.signals()
        verdict = agreed(lambda: verdict_on(signals, self._score))
        if not verdict.kept:
            self._before.put_back()
            logger.warning("The base model's weights were put back. %s", verdict.reason)
        both = zip(self._recorder.inputs, signals.base.answers, signals.adapted.answers, strict=True)
        self.answers = {text: (base.text, new.text if verdict.kept else base.text) for text, base, new in both}
        return verdict


def gate_of(
    level: str,
    trainer: ExampleTrainer,
    queries: Dataset,
    learned: Dataset,
    held_out: Dataset | None,
    retriever: Retriever,
    source: PreTrainedModel | None,
) -> SafetyGate | SignalGate:
    """The gate of a level, before an adaptation; that by signals finds its held-out examples by the retriever of the learned ones."""
    if level != LEVEL:
        return SafetyGate(trainer, queries, held_out, source)
    neighbours = further_neighbours(retriever, texts_of(queries), learned)
    return SignalGate(trainer, queries, learned, neighbours, source, CALIBRATED)


def verdict_on(signals: AdaptationSignals, score: GateScore) -> GateVerdict:
    """What a score says of an adaptation, in words, and the signals."""
    numbers = signals.numbers
    probability, form = score.probability(numbers), " ".join(signals.lost_form)
    is_lost = score.asks_form and bool(form)
    kept = not is_lost and probability >= score.threshold
    held = "The answers to the inputs kept their form."
    reason = f"{form or held} {score.reason(numbers)}"
    base, adapted = (
        GateEvidence(float(np.mean(model.losses)) if len(model.losses) else None, AnswerForm.of(model.answers, signals.named))
        for model in (signals.base, signals.adapted)
    )  # fmt: skip
    return GateVerdict(
        kept, reason, len(signals.base.losses), base, adapted, LEVEL, tuple(signals.lost_form), probability, numbers
    )
