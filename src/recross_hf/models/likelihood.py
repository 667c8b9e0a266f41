"""Rank classification: which of some given answers a model finds likeliest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from ..core.batching import on_device, token_budget_batches
from ..core.progress import progress_bar
from ..data.inputs import input_texts
from .architectures import SEQUENCE_TO_SEQUENCE, architecture_of
from .base import TokenIds, check_vocabulary, longest_input, unwrapped, vocabulary_size
from .collators import pad_token_id, padded, padded_rows
from .continuation import Found, Pair, continued
from .modes import evaluating

LONGEST_CHOICE = 512


def rank_choices(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    inputs: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    max_input_length: int = 512,
    token_budget: int = 4096,
    normalize: bool = True,
    end: str | None = None,
    show_progress: bool = False,
) -> list[int]:
    """For each input the place of its likeliest choice, the first of equals (rank classification, Sanh et al. 2022, section 5).

    Args:
        model: A sequence-to-sequence or decoder-only model, with or without PEFT.
        processing_class: The model's tokenizer.
        inputs: The texts, or the conversations, to answer.
        choices: Answers to choose from, one at least for each input; their number may differ.
        max_input_length: Tokens that an input is cut to, or to what the model takes.
        token_budget: Tokens a batch, input and choice, padding included.
        normalize: Compare means over the tokens of a choice, so that long ones have a chance; False compares sums, as T0 was
            evaluated.
        end: Text that ends a choice of a decoder-only model in place of its end token, such as the blank line below examples in context.
        show_progress: Show a progress bar.

    Raises:
        ValueError: The choices or the model are none that [`choice_log_likelihoods`] takes.
    """
    found = choice_log_likelihoods(
        model,
        processing_class,
        inputs,
        choices,
        max_input_length=max_input_length,
        token_budget=token_budget,
        normalize=normalize,
        end=end,
        show_progress=show_progress,
    )
    return [int(np.argmax(of_input)) for of_input in found]


@torch.inference_mode()
def choice_log_likelihoods(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    inputs: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    max_input_length: int = 512,
    token_budget: int = 4096,
    normalize: bool = True,
    end: str | None = None,
    show_progress: bool = False,
) -> list[np.ndarray]:
    """The log-likelihood of each choice after its input: one float64 array an input, with a value a choice.

    An input is read once for all its choices, and what all inputs of a decoder-only model begin with once for all inputs. No value depends
    on what else is asked. The end token is part of a choice, as
    in training: it tells "a" from the beginning of "a b".

    Args:
        model: A sequence-to-sequence or decoder-only model, with or without PEFT.
        processing_class: The model's tokenizer.
        inputs: The texts, or the conversations, to answer.
        choices: Answers to choose from, one at least for each input; their number may differ.
        max_input_length: Tokens that an input is cut to, or to what the model takes.
        token_budget: Tokens a batch, input and choice, padding included.
        normalize: Give means over the tokens of a choice, so that long ones have a chance; False gives sums, as T0 was
            evaluated.
        end: Text that ends a choice of a decoder-only model in place of its end token, such as the blank line below examples in context.
        show_progress: Show a progress bar.

    Raises:
        ValueError: An input has no choices, a choice has more tokens than the model takes or than 512, there are not as many
            lists of choices as inputs, or the model has a prompt that was learned (PEFT's prompt tuning), which no encoder sees.
    """
    inputs = input_texts(inputs)
    _check(model, inputs, choices)
    check_vocabulary(model, processing_class)
    architecture = architecture_of(model)
    distinct = [list(dict.fromkeys(of_input)) for of_input in choices]
    answers = _answers(model, processing_class, distinct, end)
    limits = [
        min(max_input_length, architecture.longest_prompt(model, processing_class, max(map(len, of_input))))
        for of_input in answers
    ]
    prompts: TokenIds = [[] for _ in inputs]
    for limit in set(limits):  # one, unless input and answer share the positions of a model
        rows = [row for row, found in enumerate(limits) if found == limit]
        token_ids = architecture.prompt_ids(processing_class, [inputs[row] for row in rows], limit)
        for row, ids in zip(rows, token_ids, strict=True):
            prompts[row] = ids
    compute = _encoded_once if architecture is SEQUENCE_TO_SEQUENCE else continued
    pairs: list[Pair] = []
    sums: list[torch.Tensor] = []
    total = sum(map(len, answers))
    bar = progress_bar(total=total, desc="Ranking choices", unit="choice", is_shown=show_progress)
    with evaluating(model), bar as progress:
        for of_batch, sums_of_batch in compute(model, processing_class, prompts, answers, token_budget):
            pairs += of_batch
            sums.append(sums_of_batch)
            progress.update(len(of_batch))
    # The one moment when the host waits for the device, which may have no float64 (Apple's).
    values = torch.cat(sums).cpu().double().numpy() if sums else np.empty(0)
    found: list[dict[str, float]] = [{} for _ in inputs]
    for (row, choice), value in zip(pairs, values, strict=True):
        found[row][distinct[row][choice]] = value / (len(answers[row][choice]) if normalize else 1)
    return [np.array([found[row][text] for text in of_input]) for row, of_input in enumerate(choices)]


def _check(model: PreTrainedModel, inputs: Sequence[str], choices: Sequence[Sequence[str]]) -> None:
    if len(choices) != len(inputs):
        raise ValueError(
            f"Expected a list of choices for each of the {len(inputs)} inputs, found {len(choices)} lists."
        )
    for row, of_input in enumerate(choices):
        if isinstance(of_input, str) or not len(of_input):
            raise ValueError(
                f"Expected a list of one choice or more for each input, found {of_input!r} for input {row}."
            )
    adapter: Any = model.active_peft_config if hasattr(model, "peft_config") else None
    if adapter is not None and adapter.is_prompt_learning:
        raise ValueError(
            f"Expected a model or PEFT adapter whose weights do the work, found {adapter.peft_type}, which puts "
            "learned tokens before the input. Rank with LoRA or the like."
        )


def _answers(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    choices: Sequence[Sequence[str]],
    end: str | None,
) -> list[TokenIds]:
    """The token ids of each choice, each text tokenised once, with the end token or the text that stands for it."""
    texts = list(dict.fromkeys(text for of_input in choices for text in of_input))
    if not texts:
        return []
    architecture = architecture_of(model)
    writer = unwrapped(model).get_decoder() if architecture is SEQUENCE_TO_SEQUENCE else architecture.reader(model)
    limit = min(LONGEST_CHOICE, longest_input(writer, processing_class))
    if end is None:
        # One token more shows which are longer.
        token_ids = architecture.answer_ids(processing_class, texts, limit + 1)
    else:
        token_ids = processing_class([text + end for text in texts], add_special_tokens=False)["input_ids"]
    ids_of = dict(zip(texts, token_ids, strict=True))
    if (long := next((text for text, ids in ids_of.items() if len(ids) > limit), None)) is not None:
        raise ValueError(
            f"Expected choices of at most {limit} tokens, found one of more: {long[:80]!r} ... Cut that short, it would be taken "
            "for another with the same beginning. Shorten the choices, or generate answers."
        )
    return [[ids_of[text] for text in of_input] for of_input in choices]


def _encoded_once(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    prompts: TokenIds,
    answers: list[TokenIds],
    token_budget: int,
) -> Iterator[Found]:
    """Encodes a batch of inputs, then decodes all their choices over what was encoded."""
    architecture, pad = SEQUENCE_TO_SEQUENCE, pad_token_id(processing_class)
    base: Any = unwrapped(model)
    encoder = architecture.reader(model)
    for rows in token_budget_batches([len(ids) for ids in prompts], token_budget):
        # On the right whatever the tokenizer's side: positions of BART count from the left.
        batch = on_device(padded([prompts[row] for row in rows], pad), model.device)
        states, mask = architecture.read(encoder, **batch), batch["attention_mask"]
        pairs = [(place, choice) for place, row in enumerate(rows) for choice in range(len(answers[row]))]
        width = states.shape[1]
        lengths = [width + len(answers[rows[place]][choice]) for place, choice in pairs]
        of_pairs = [vocabulary_size(model) * len(answers[rows[place]][choice]) for place, choice in pairs]
        for chosen in token_budget_batches(lengths, token_budget, logits=of_pairs):
            of_batch = [pairs[number] for number in chosen]
            places = torch.tensor([place for place, _ in of_batch], device=model.device)
            labels = padded_rows([answers[rows[place]][choice] for place, choice in of_batch], -100).to(model.device)
            logits = model(
                encoder_outputs=BaseModelOutput(last_hidden_state=states[places]),
                attention_mask=mask[places],
                decoder_input_ids=base.prepare_decoder_input_ids_from_labels(labels=labels),
                use_cache=False,
            ).logits
            yield [(rows[place], choice) for place, choice in of_batch], _log_likelihoods(logits, labels)


def _log_likelihoods(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sums of the log-probabilities of each row's labels `[n]`, of logits `[n, length, vocabulary]`."""
    losses = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none"
    )
    return -losses.view_as(labels).sum(dim=1)
