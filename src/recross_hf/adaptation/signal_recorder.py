"""Measures the signals of an adaptation: both models answer the inputs, and read examples that are near to them and not learned from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from ..data.conversations import texts_of
from ..models.adapters import is_peft_model
from ..models.answer_reading import AnswerReading, read_answers
from ..models.base import TokenIds, longest_answer
from ..models.generation import Answer
from ..models.likelihood import choice_log_likelihoods
from ..soft_em import answer_key
from ..training.trainer import ExampleTrainer
from .answer_form import ANSWERS_A_LABEL, gate_inputs, lost_form
from .named_options import named_options
from .signals import AdaptationSignals, ModelReading

MOST_OPTIONS = 20
"""Number of options of an input from which on they are no choice between a few; letters and texts of five options are fifteen."""


class SignalRecorder:
    """Reads a model before its adaptation, when it is made, and after it.

    Args:
        trainer: Trainer of the model, whose weights are whole in each process.
        queries: Unlabelled inputs, with the column `input` and perhaps `choices`.
        learned: Examples that are learned from.
        held_out: Labelled examples that are not ([`retrieval.further_neighbours`]); there may be none.

    Attributes:
        inputs: Inputs that are answered.
    """

    def __init__(self, trainer: ExampleTrainer, queries: Dataset, learned: Dataset, held_out: Dataset) -> None:
        self._trainer, self._learned, self._held_out = trainer, learned, held_out
        self.inputs = gate_inputs(texts_of(queries))
        given = queries["choices"][:] if "choices" in queries.column_names else [None] * len(queries)
        self._choices = dict(zip(texts_of(queries), given, strict=True))
        self._named = [named_options(text, self._choices.get(text) or ()) for text in self.inputs]
        settings = trainer.args
        limit = trainer.architecture.longest_prompt(
            trainer.model,
            trainer.processing_class,
            settings.max_target_length,
            pad_to_multiple_of=settings.pad_to_multiple_of,
        )
        self._longest_input = min(settings.max_input_length, limit)
        self._longest_answer = min(settings.max_target_length, longest_answer(trainer.model))
        self._prompts, self._held_out_prompts = (
            trainer.architecture.prompt_ids(trainer.processing_class, texts, self._longest_input) if texts else []
            for texts in (self.inputs, texts_of(held_out))
        )
        self._answers = trainer.answers_with_ends(self.inputs)
        self._options = self._options_of_inputs()
        self._base, self._first = self._read(self._answers)

    def signals(self) -> AdaptationSignals:
        """What has become of the model since, beside what it was."""
        answers = self._trainer.answers_with_ends(self.inputs)
        adapted, first = self._read(answers)
        with self._trainer.accelerator.autocast():
            of_base = self._reading(self._prompts, self._answers)
        tasks = Counter(self._learned["task"][:])
        references = self._learned["references"][:]
        columns = {name: self._held_out[name][:] for name in ("id", "task", "rank")}
        return AdaptationSignals(
            base=self._base,
            adapted=adapted,
            base_answers=of_base.log_likelihoods.tolist(),
            divergences=(self._first.exp() * (self._first - first)).sum(dim=1).tolist(),
            distances=((self._first.exp() - first.exp()).abs().sum(dim=1) / 2).tolist(),
            option_names=self._options,
            named=self._named,
            task_shares=[number / tasks.total() for number in tasks.values()],
            is_of_learned_task=[task in tasks for task in columns["task"]],
            held_out=columns,
            learned_answers=frozenset(answer_key(text) for accepted in references for text in accepted[:1]),
            lost_form=lost_form(self.inputs, self._answers, answers, self._named),
        )

    def _read(self, answers: Sequence[Answer]) -> tuple[ModelReading, torch.Tensor]:
        """The reading of the model as it is now, and the log-probabilities of its first tokens."""
        targets = [Answer(accepted[0], is_ended=True) for accepted in self._held_out["references"][:]]
        with self._trainer.accelerator.autocast():
            held_out = self._reading(self._held_out_prompts, targets) if targets else None
            own = self._reading(self._prompts, answers, with_first=True)
            options = self._option_likelihoods()
        first = own.first
        assert first is not None
        shares = first.exp()
        entropies, mean = -(shares * first).sum(dim=1), shares.mean(dim=0)
        information = float(torch.special.entr(mean).sum() - entropies.mean())
        return (
            ModelReading(
                losses=[] if held_out is None else (-held_out.log_likelihoods).tolist(),
                answers=answers,
                confidences=own.log_likelihoods.tolist(),
                margins=own.margins.tolist(),
                first_entropies=entropies.tolist(),
                first_information=information,
                options=options,
            ),
            first,
        )

    def _reading(self, prompts: TokenIds, answers: Sequence[Answer], *, with_first: bool = False) -> AnswerReading:
        trainer = self._trainer
        tokenizer = trainer.processing_class
        token_ids = trainer.architecture.answer_ids(
            tokenizer, [answer.text for answer in answers], self._longest_answer
        )
        end = trainer.architecture.end_id(tokenizer)
        token_ids = [
            ids if answer.is_ended else _without_end(ids, end) for ids, answer in zip(token_ids, answers, strict=True)
        ]
        begins = {tokenizer.bos_token_id, tokenizer.cls_token_id} - {None, tokenizer.eos_token_id}
        places = [int(len(ids) > 1 and ids[0] in begins) for ids in token_ids]  # BART's answers all begin alike
        return read_answers(
            trainer.model, prompts, token_ids, trainer.data_collator, first_places=places if with_first else None
        )

    def _options_of_inputs(self) -> list[list[str]]:
        """The options of each input in the words of the input: `choices`, those that it names, or the base's labels."""
        counts = Counter(answer_key(answer.text) for answer in self._answers if answer.text)
        spelling = {answer_key(answer.text): answer.text for answer in reversed(self._answers)}
        has_labels = 2 <= len(counts) <= len(self._answers) / ANSWERS_A_LABEL
        labels = [spelling[key] for key in sorted(counts)] if has_labels else []
        found = []
        for text, named in zip(self.inputs, self._named, strict=True):
            given = self._choices.get(text) or [_spelled(key, str(text)) for key in sorted(named)] or labels
            distinct = list(dict.fromkeys(given))
            found.append(distinct if len(distinct) <= MOST_OPTIONS and self._are_short(distinct) else [])
        return found

    def _are_short(self, options: Sequence[str]) -> bool:
        """Whether all of them can be answers."""
        if not options:
            return True
        longest = self._longest_answer
        token_ids = self._trainer.architecture.answer_ids(self._trainer.processing_class, options, longest + 1)
        return all(len(ids) <= longest for ids in token_ids)

    def _option_likelihoods(self) -> list[list[float]]:
        model = self._trainer.model
        peft_model: Any = model
        if is_peft_model(model) and peft_model.active_peft_config.is_prompt_learning:
            return [
                [] for _ in self.inputs
            ]  # what was learned there comes before the input, and choices are not ranked so
        rows = [row for row, options in enumerate(self._options) if options]
        values = choice_log_likelihoods(
            model,
            self._trainer.processing_class,
            [self.inputs[row] for row in rows],
            [self._options[row] for row in rows],
            max_input_length=self._longest_input,
        )
        found: list[list[float]] = [[] for _ in self.inputs]
        for row, of_input in zip(rows, values, strict=True):
            found[row] = np.asarray(of_input).tolist()
        return found


def _without_end(token_ids: list[int], end: int | None) -> list[int]:
    """The tokens of an answer that was cut, which has no end; after it, a chat template may write more, such as a line break."""
    place = next((place for place in range(len(token_ids) - 1, 0, -1) if token_ids[place] == end), len(token_ids))
    return token_ids[:place]


def _spelled(key: str, text: str) -> str:
    """An option as its input spells it."""
    words = r"\W+".join(map(re.escape, key.split()))
    found = re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE)
    return found[0] if found else key
