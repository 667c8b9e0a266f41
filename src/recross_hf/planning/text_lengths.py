"""How much text the stages of a cell read, found without computing the cell: what their seconds grow with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import chain
from statistics import mean

from ..data.conversations import texts_of
from ..data.inputs import input_texts
from ..evaluation.cells import CellKey
from ..evaluation.computation import retriever_of
from ..evaluation.run import EvaluationRun
from ..models.architectures import architecture_of


class TextLengths:
    """Tokens that cells of an evaluation learn from, answer and rank, cut as the cells cut them.

    Args:
        run: The evaluation.
        patience: Seconds that retrieving for it may take in all. What was not looked at by then, and a task for which
            nothing is found, has the mean of the others.
    """

    def __init__(self, run: EvaluationRun, patience: float) -> None:
        self.run = run
        self.patience = patience
        self._architecture = architecture_of(run.pipeline.upstream_model)
        self._learned: dict[tuple[str, str], int] = {}
        self._inputs: dict[tuple[str, int], list[int]] = {}

    def learned(self, key: CellKey) -> float:
        """Tokens of the examples that are retrieved for the task's first query set: the |R| first, whichever of more are chosen."""
        place = key.method, key.task
        if not self.run.methods[key.method].trains:
            return 1.0
        if place not in self._learned and self.patience > 0:
            start = time.perf_counter()
            self._look_at(key)
            self.patience -= time.perf_counter() - start
        known = [tokens for (name, _), tokens in self._learned.items() if name == key.method]
        return self._learned.get(place, mean(known) if known else 1.0)

    def _look_at(self, key: CellKey) -> None:
        arguments, method = self.run.arguments_of(key), self.run.methods[key.method]
        queries = texts_of(self.run.tasks[key.task].query_sets[0])[: method.num_queries]
        try:
            found = retriever_of(self.run, key).retrieve(queries, arguments.num_retrieved)
        except ValueError:  # nothing is found for this task: its cell will say so, and the others can be planned
            return
        read = self._of_inputs(texts_of(found), arguments.max_input_length)
        answers = [references[0] for references in found["references"][:] if references]
        self._learned[key.method, key.task] = sum(read) + self._of_answers(answers, arguments.max_target_length)

    def answered(self, key: CellKey) -> float:
        """Tokens of the test inputs, and those that their answers may have; in context, as many for each input."""
        read = self._tested(key)
        in_context = self.run.methods[key.method].in_context is not None
        return sum(read) + (0 if in_context else len(read) * self.run.arguments_of(key).max_target_length)

    def ranked(self, key: CellKey) -> float:
        """Tokens of the test inputs that have answers to choose among, and of those answers."""
        answers = self.run.tasks[key.task].answers
        read = sum(tokens for tokens, choices in zip(self._tested(key), answers, strict=True) if choices)
        return read + self._of_answers([*chain.from_iterable(answers)], self.run.arguments_of(key).max_target_length)

    def _tested(self, key: CellKey) -> list[int]:
        """Tokens of each test input; one of each in context, where most of a prompt are the examples."""
        test = self.run.tasks[key.task].test
        if self.run.methods[key.method].in_context is not None:
            return [1] * len(test)
        place = key.task, self.run.arguments_of(key).max_input_length
        if place not in self._inputs:
            self._inputs[place] = self._of_inputs(texts_of(test), place[1])
        return self._inputs[place]

    def _of_inputs(self, inputs: Sequence[str], max_length: int) -> list[int]:
        prompts = self._architecture.prompt_ids(self.run.pipeline.processing_class, input_texts(inputs), max_length)
        return [len(prompt) for prompt in prompts]

    def _of_answers(self, answers: Sequence[str], max_length: int) -> int:
        if not answers:
            return 0
        encoded = self.run.pipeline.processing_class([*answers], truncation=True, max_length=max_length)
        return sum(map(len, encoded["input_ids"]))
