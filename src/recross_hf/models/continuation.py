"""Likelihoods of choices under a decoder-only model, which reads an input once for all its choices."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache

from ..core.batching import on_device, token_budget_batches
from .architectures import architecture_of
from .base import TokenIds, vocabulary_size
from .collators import pad_token_id, padded, padded_rows
from .heads import answer_logits, logits_at
from .shared_prefix import SharedPrefix, goes_on, is_plain, shared_prefix

Pair = tuple[int, int]  # a row and one of its distinct choices
Found = tuple[list[Pair], torch.Tensor]  # and their sums of log-probabilities


def continued(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    prompts: TokenIds,
    answers: list[TokenIds],
    token_budget: int,
) -> Iterator[Found]:
    """The sums of log-probabilities of each input's choices, batch by batch.

    Each input is read once, and all its choices go on over the keys and values of what was read; what all inputs begin with is read once
    for all of them. Where a model keeps another state than these, as recurrent layers do, each input is read with each of its choices.

    Args:
        model: Decoder-only model, with or without PEFT.
        processing_class: Tokenizer of the model.
        prompts: Token ids of each input.
        answers: Token ids of each input's choices, one token at least.
        token_budget: Number of tokens in a batch, input and choice, padding included.
    """
    pad, vocabulary = pad_token_id(processing_class), vocabulary_size(model)
    whole: list[int] = []  # rows that were read and have no keys and values to go on from
    prefix = shared_prefix(model, prompts)
    lengths = prefix.batch_lengths(prompts)
    for rows in token_budget_batches(lengths, token_budget, logits=[vocabulary] * len(prompts)):
        if whole or not goes_on(model):
            whole += rows
            continue
        first, mask, cache = _read(model, [prompts[row] for row in rows], prefix, pad)
        if not is_plain(cache, mask.shape[1]):
            whole += rows
            continue
        log_probabilities = torch.log_softmax(first.float(), dim=1)
        pairs = [(place, choice) for place, row in enumerate(rows) for choice in range(len(answers[row]))]
        of_pairs = [mask.shape[1] + len(answers[rows[place]][choice]) for place, choice in pairs]
        logits = [vocabulary * len(answers[rows[place]][choice]) for place, choice in pairs]
        for chosen in token_budget_batches(of_pairs, token_budget, logits=logits):
            of_batch = [pairs[number] for number in chosen]
            places = torch.tensor([place for place, _ in of_batch], device=model.device)
            token_ids = [answers[rows[place]][choice] for place, choice in of_batch]
            sums = log_probabilities[places, torch.tensor([ids[0] for ids in token_ids], device=model.device)]
            yield (
                [(rows[place], choice) for place, choice in of_batch],
                sums + _after_first(model, token_ids, mask[places], _of_rows(cache, places), pad),
            )
    yield from _each_whole(model, processing_class, prompts, answers, whole, token_budget)


def _read(
    model: PreTrainedModel, prompts: TokenIds, prefix: SharedPrefix, pad: int
) -> tuple[torch.Tensor, torch.Tensor, DynamicCache]:
    """The logits of what comes after each prompt, the mask of the prompts, and the keys and values of all their columns."""
    # On the left, so that windows of attention count no padding between an input and its choice.
    batch = on_device(padded(prompts, pad, "left"), model.device)
    mask = batch["attention_mask"]
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    cache, known = prefix.before(prompts), prefix.length
    if cache is None:
        cache, known = DynamicCache(config=model.config.get_text_config()), 0
    last = torch.zeros_like(mask[:, known:], dtype=torch.bool)
    last[:, -1] = True
    first = logits_at(
        model,
        last,
        input_ids=batch["input_ids"][:, known:],
        attention_mask=mask,
        position_ids=positions[:, known:],
        past_key_values=cache,
        use_cache=True,
    )
    return first, mask, cache


def _after_first(
    model: PreTrainedModel, token_ids: TokenIds, mask: torch.Tensor, cache: DynamicCache, pad: int
) -> torch.Tensor:
    """Sums of the log-probabilities of each row's tokens after its first, which goes on from what the cache holds."""
    if max(map(len, token_ids)) == 1:
        return torch.zeros(len(token_ids), device=mask.device)
    read = on_device(padded([ids[:-1] or [pad] for ids in token_ids], pad), mask.device)
    labels = padded_rows([ids[1:] or [-100] for ids in token_ids], -100).to(mask.device)
    # Padding stays within the positions that a model has.
    positions = mask.sum(dim=1, keepdim=True) + read["attention_mask"].cumsum(dim=1) - 1
    logits = logits_at(
        model,
        labels != -100,
        input_ids=read["input_ids"],
        attention_mask=torch.cat([mask, read["attention_mask"]], dim=1),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    return _sums(logits, labels)


def _of_rows(cache: DynamicCache, rows: torch.Tensor) -> DynamicCache:
    """A cache of some rows, each as often as it is asked for; the other stays as it is, for caches grow into new tensors."""
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    chosen.batch_select_indices(rows)
    return chosen


def _each_whole(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    prompts: TokenIds,
    answers: list[TokenIds],
    rows: Sequence[int],
    token_budget: int,
) -> Iterator[Found]:
    """Reads inputs with each of their choices anew."""
    collate = architecture_of(model).collator(processing_class, model)
    pairs = [(row, choice) for row in rows for choice in range(len(answers[row]))]
    lengths = [len(prompts[row]) + len(answers[row][choice]) for row, choice in pairs]
    logits = [vocabulary_size(model) * len(answers[row][choice]) for row, choice in pairs]
    for chosen in token_budget_batches(lengths, token_budget, logits=logits):
        of_batch = [pairs[number] for number in chosen]
        items = [{"input_ids": prompts[row], "labels": answers[row][choice]} for row, choice in of_batch]
        batch = on_device(collate(items), model.device)
        yield of_batch, _sums(answer_logits(model, batch)[0], batch["labels"])


def _sums(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sums of the log-probabilities of each row's labels `[n, length]`, of logits of the labels alone, row by row."""
    counted = labels != -100
    losses = torch.nn.functional.cross_entropy(logits.float(), labels[counted], reduction="none")
    return -torch.zeros(labels.shape, device=labels.device).masked_scatter(counted, losses).sum(dim=1)
