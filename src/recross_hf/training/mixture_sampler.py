"""Which examples of a mixture of tasks an epoch has, and in which batches."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

WINDOW_BATCHES = 200


def mixture_counts(
    sizes: np.ndarray, *, max_examples_per_task: int | None = None, temperature: float = 1.0
) -> np.ndarray:
    """How many examples of each task an epoch has (Raffel et al. 2020, arXiv 1910.10683, section 3.5.2).

    A task's share is proportional to `min(size, max_examples_per_task) ** (1 / temperature)`; at temperature 1 an epoch has each
    example once, or `max_examples_per_task` of a larger task. Whatever the temperature, an epoch is as long.

    Args:
        sizes: Number of examples of each task, at least 1: `[num_tasks]`.
        max_examples_per_task: Artificial limit K of the sizes; None for no limit.
        temperature: Temperature of the mixture; 1 mixes in proportion to size, and the higher it is, the more alike the shares are.

    Returns:
        Number of examples of each task: int64 `[num_tasks]`, at least 1, the sum being that of `min(size, max_examples_per_task)`.
    """
    limited = np.minimum(sizes, max_examples_per_task or np.max(sizes, initial=0))
    weights = limited ** (1 / temperature)
    shares = limited.sum() * weights / weights.sum()
    counts = np.maximum(np.floor(shares), 1).astype(np.int64)
    # The largest remainders round up; where tiny tasks were raised to one example, the largest tasks give some back.
    missing = int(limited.sum() - counts.sum())
    if missing >= 0:
        counts[np.argsort(counts - shares, kind="stable")[:missing]] += 1
    for _ in range(-missing):
        counts[np.argmax(counts)] -= 1
    return counts


def mixture_rows(tasks: np.ndarray, counts: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Rows of an epoch, sorted by task: the next `counts[task]` rows of each task in one endless shuffle of it.

    Each row of a task comes equally often, but for one time, in any number of epochs from the first.

    Args:
        tasks: Number of each row's task, from 0 to `len(counts) - 1`: `[num_rows]`.
        counts: Number of examples of each task in an epoch ([`mixture_counts`]).
        seed: Seed of the shuffles.
        epoch: Number of the epoch, from 0.

    Returns:
        Rows: int64 `[counts.sum()]`.
    """
    rows_of = np.split(np.argsort(tasks, kind="stable"), np.cumsum(np.bincount(tasks, minlength=len(counts)))[:-1])
    chosen = []
    for task, (rows, count) in enumerate(zip(rows_of, counts, strict=True)):
        start, stop = epoch * count, (epoch + 1) * count
        for shuffle in range(start // len(rows), math.ceil(stop / len(rows))):
            shuffled = np.random.default_rng([seed, task, shuffle]).permutation(rows)
            first = shuffle * len(rows)
            chosen.append(shuffled[max(start - first, 0) : stop - first])
    return np.concatenate(chosen)


def like_length_batches(
    rows: np.ndarray,
    input_lengths: np.ndarray,
    target_lengths: np.ndarray,
    token_budget: int,
    *,
    window_batches: int = WINDOW_BATCHES,
) -> list[np.ndarray]:
    """Batches of rows whose inputs and answers are of like lengths, each of at most `token_budget` tokens with padding.

    Lengths are sorted within windows of about `window_batches` batches, so that shuffled rows make random batches.

    Args:
        rows: Rows in random order: `[n]`.
        input_lengths, target_lengths: Lengths of all rows that there are; a batch takes its size times the sum of its largest two.
        token_budget: Number of tokens that a batch may have.
        window_batches: Number of batches, about, in a window.

    Returns:
        Batches in which every row comes once; the least filled batches are the last of a window.
    """
    tokens = int(input_lengths[rows].sum() + target_lengths[rows].sum())
    # Two windows at least: what is sorted as a whole would make the same batches again and again.
    window = math.ceil(len(rows) * min(1 / 2, window_batches * token_budget / max(tokens, 1)))
    batches = []
    for start in range(0, len(rows), window):
        inside = rows[start : start + window]
        inputs, targets = input_lengths[inside], target_lengths[inside]
        # Answers of like length first, then inputs, by turns rising and falling, so that a batch at the border has inputs of
        # like length, too. Lengths are rounded (eight steps to the double), so that chance decides among like ones.
        target_class, input_class = (
            np.ceil(steps * np.log2(np.maximum(array, 1))) for array, steps in ((targets, 1), (inputs, 8))
        )
        order = np.lexsort((np.where(target_class % 2, input_class, -input_class), target_class))[::-1]
        first, longest_input, longest_target = 0, 0, 0
        for place, (input_length, target_length) in enumerate(
            zip(inputs[order].tolist(), targets[order].tolist(), strict=True)
        ):
            longest_input, longest_target = max(longest_input, input_length), max(longest_target, target_length)
            if place > first and (place - first + 1) * (longest_input + longest_target) > token_budget:
                batches.append(inside[order[first:place]])
                first, longest_input, longest_target = place, input_length, target_length
        batches.append(inside[order[first:]])
    return batches


class MixtureBatchSampler(torch.utils.data.Sampler[list[int]]):
    """Random batches of a mixture of tasks for one of several processes; seed and epoch alone decide them.

    All epochs and processes have as many batches: where an epoch makes fewer, those of most rows are halved; should one make
    more, which is rare, those least filled are left out.

    Args:
        input_lengths, target_lengths: Number of tokens in each row's input and answer.
        tasks: Number of each row's task.
        token_budget: Number of tokens that a batch may have, input and answer, padding included.
        batch_size: Number of rows in a batch, where there is no `token_budget`.
        max_examples_per_task, temperature: Limit and temperature of the mixture ([`mixture_counts`]).
        pad_to_multiple_of: Number of tokens that padded lengths are a multiple of.
        seed: Seed for drawing rows and their order.
        num_processes, process_index: Number of processes and of this one among them; batches are dealt out by turns.

    Attributes:
        num_rows: Number of examples in an epoch, on all processes.

    Raises:
        ValueError: The longest example exceeds the budget, or there is no example for some process.
    """

    def __init__(
        self,
        input_lengths: np.ndarray,
        target_lengths: np.ndarray,
        tasks: np.ndarray,
        *,
        token_budget: int | None = None,
        batch_size: int = 8,
        max_examples_per_task: int | None = None,
        temperature: float = 1.0,
        pad_to_multiple_of: int = 1,
        seed: int = 0,
        num_processes: int = 1,
        process_index: int = 0,
    ) -> None:
        self.input_lengths, self.target_lengths = (
            -(-lengths // pad_to_multiple_of) * pad_to_multiple_of for lengths in (input_lengths, target_lengths)
        )
        longest = int(np.max(self.input_lengths + self.target_lengths, initial=0))
        if token_budget is not None and longest > token_budget:
            raise ValueError(
                f"Expected `token_budget` to hold the longest example, of {longest} tokens with its answer, found "
                f"{token_budget}. Raise it, or lower `max_input_length` or `max_target_length`."
            )
        self.tasks = tasks
        self.counts = mixture_counts(
            np.bincount(tasks), max_examples_per_task=max_examples_per_task, temperature=temperature
        )
        self.num_rows = int(self.counts.sum())
        if self.num_rows < num_processes:
            raise ValueError(
                f"Expected an example for each of the {num_processes} processes, found {self.num_rows} in an epoch. Use "
                "fewer processes."
            )
        self.token_budget, self.batch_size = token_budget, batch_size
        self.seed, self.epoch = seed, 0
        self.num_processes, self.process_index = num_processes, process_index
        batches = len(self._batches(0))
        if token_budget is not None:
            # Some epochs make more than others.
            batches = max(batches, *(len(self._batches(epoch)) for epoch in (1, 2, 3))) + 1 + batches // 200
        steps = min(math.ceil(batches / num_processes), self.num_rows // num_processes)
        self.num_batches = steps * num_processes

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration goes through."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches // self.num_processes

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._fitted(self._batches(self.epoch))
        order = np.random.default_rng([self.seed, self.epoch, 1]).permutation(len(batches))
        # What does not fit into memory fails at once: each process begins with one of the longest.
        longest = [int(self.input_lengths[batch].max() + self.target_lengths[batch].max()) for batch in batches]
        first = sorted(order, key=lambda number: -longest[number])[: self.num_processes]
        longest_first = [*first, *order[~np.isin(order, first)]]
        for number in longest_first[self.process_index :: self.num_processes]:
            yield batches[number].tolist()

    def _batches(self, epoch: int) -> list[np.ndarray]:
        rows = mixture_rows(self.tasks, self.counts, seed=self.seed, epoch=epoch)
        rows = np.random.default_rng([self.seed, epoch, 0]).permutation(rows)
        if self.token_budget is None:
            return np.split(rows, range(self.batch_size, len(rows), self.batch_size))
        return like_length_batches(rows, self.input_lengths, self.target_lengths, self.token_budget)

    def _fitted(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        """Makes them as many batches as every epoch has."""
        tokens = self.input_lengths + self.target_lengths
        fitted = sorted(batches, key=lambda batch: -int(tokens[batch].sum()))[: self.num_batches]
        while len(fitted) < self.num_batches:
            largest = max(range(len(fitted)), key=lambda number: len(fitted[number]))
            batch = fitted.pop(largest)
            fitted += [batch[::2], batch[1::2]]
        return fitted
