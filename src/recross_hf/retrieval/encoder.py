"""Texts to vectors: the `Encoder` protocol, and the upstream model's own encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..core.batching import TEXTS_A_CALL, chunks, on_device, token_budget_batches
from ..core.devices import device_of
from ..core.distributed import process_state, warn_where_bfloat16_is_slow
from ..core.hashing import weights_hash
from ..models.architectures import DECODER_ONLY, architecture_of
from ..models.base import check_vocabulary, longest_input
from ..models.chat import uses_chat_template
from ..models.collators import pad_token_id, padded
from ..models.loading import load_model
from ..models.modes import evaluating

POOLINGS = ("mean", "weighted_mean")
"""How the states of a text's tokens become its vector; the first is the default."""


class Encoder(Protocol):
    """An encoder turns texts into vectors; a `SentenceTransformer` is one as it is."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes `n` texts as a float32 array `[n, d]`, row `i` for text `i`."""
        ...


@runtime_checkable
class IdentifiedEncoder(Protocol):
    """An encoder with an identity, which an index that is built with it stores and compares."""

    def identity(self) -> dict[str, Any]:
        """All that the vectors depend on, as JSON values by name: `{"weights": "sha256...", "pooling": "mean", ...}`."""
        ...


@runtime_checkable
class ReportingEncoder(Protocol):
    """An encoder that tells how far it is, so that it can be given thousands of texts at once beneath a bar that moves."""

    def reporting(self, report: Callable[[int], object]) -> AbstractContextManager[object]:
        """Calls `report` with the number of texts after each batch that `encode` computes inside of the context."""
        ...


class MeanPooledEncoder:
    """An encoder that takes the mean over a model's last encoder layer, or last layer, without padding (paper, section 3.2).

    ```python
    encoder = MeanPooledEncoder.from_pretrained("facebook/bart-large")
    vectors = encoder.encode(["Is this review positive? It was a delight."])  # float32 [1, 1024]
    ```

    Texts are sorted by length and batched by a budget of tokens, so that next to no padding is computed; the vectors come
    back in the order of the texts and depend on neither order nor batch (to 1e-5 in float32).

    Args:
        model: Model, either an `AutoModelForSeq2SeqLM`, of which the encoder is used, or an `AutoModelForCausalLM`, whose decoder
            reads the input and the separator that stands before an answer. It is used where it is and in the dtype it has.
        processing_class: Tokenizer of the model, a fast one.
        max_length: Number of tokens that texts are cut to; by default as many as the model can take, at most 512.
        token_budget: Number of tokens a batch, padding included. More is faster on a GPU; on a CPU, batches that stay in
            the cache win.
        autocast_dtype: Type to compute in, whatever the type of the weights: `torch.bfloat16` is twice as fast where the
            hardware has it, and good to about three digits.
        pooling: "mean", the paper's, or "weighted_mean", in which the n-th token counts n times: a decoder's later tokens have seen more
            (SGPT, Muennighoff 2022, equation 1; RDS+, Ivison et al. 2025, section 3).

    Raises:
        ValueError: `max_length` is more than the model can take, `pooling` is another, or the tokenizer has more tokens than the model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processing_class: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
        token_budget: int | None = None,
        autocast_dtype: torch.dtype | None = None,
        pooling: str = "mean",
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"`pooling` must be {' or '.join(map(repr, POOLINGS))}, found {pooling!r}.")
        self.pooling = pooling
        self.architecture = architecture_of(model)
        check_vocabulary(model, processing_class)
        self.model = self.architecture.reader(model)
        self.processing_class = processing_class
        longest = longest_input(self.model, processing_class)
        if max_length is not None and max_length > longest:
            raise ValueError(
                f"Expected `max_length` to be at most {longest}, the positions that this model has, found {max_length}."
            )
        self.max_length = max_length or min(512, longest)
        self.autocast_dtype = autocast_dtype
        if torch.bfloat16 in (autocast_dtype, self.model.dtype):
            warn_where_bfloat16_is_slow(self.model.device.type)
        self.token_budget = token_budget or (16_384 if self.model.device.type == "cuda" else 1_024)
        self._report: Callable[[int], object] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device | None = None,
        max_length: int | None = None,
        token_budget: int | None = None,
        autocast_dtype: torch.dtype | None = None,
        pooling: str = "mean",
        **kwargs: Any,
    ) -> MeanPooledEncoder:
        """Loads a model and keeps the part that reads.

        Args:
            name_or_path: Folder of the model, or its name on the Hub.
            dtype: Type of the weights, `torch.float32`, or `torch.bfloat16` for speed; an index notices the difference.
            device: Device to compute on; by default Accelerate's choice.
            max_length: Number of tokens that texts are cut to.
            token_budget: Number of tokens a batch.
            autocast_dtype: Type to compute in.
            pooling: "mean" or "weighted_mean".
            kwargs: Other arguments that the `from_pretrained` of model and tokenizer both take (`revision`, `token`, ...).
        """
        place = device_of(device)
        model = load_model(name_or_path, dtype=dtype, **kwargs)
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **kwargs)
        # transformers wraps `to` in a decorator whose type takes `self` for the first argument.
        model = model.to(place)  # type: ignore[arg-type]
        settings: dict[str, Any] = {"autocast_dtype": autocast_dtype, "pooling": pooling}
        return cls(model, tokenizer, max_length=max_length, token_budget=token_budget, **settings)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that make this encoder of its model, as JSON values."""
        name = None if self.autocast_dtype is None else str(self.autocast_dtype).removeprefix("torch.")
        settings: dict[str, Any] = {"max_length": self.max_length, "autocast_dtype": name}
        if self.pooling != POOLINGS[0]:  # as settings of earlier versions have it
            settings["pooling"] = self.pooling
        reads_turns = self.architecture is DECODER_ONLY and uses_chat_template(self.processing_class)
        return settings | ({"chat_template": True} if reads_turns else {})

    @classmethod
    def from_settings(
        cls, model: PreTrainedModel, processing_class: PreTrainedTokenizerBase, settings: dict[str, Any]
    ) -> MeanPooledEncoder:
        """The encoder of `model` that had these [`settings`]."""
        dtypes = {None: None, "bfloat16": torch.bfloat16, "float16": torch.float16}
        return cls(
            model,
            processing_class,
            max_length=settings["max_length"],
            autocast_dtype=dtypes[settings["autocast_dtype"]],
            pooling=settings.get("pooling", POOLINGS[0]),
        )

    def identity(self) -> dict[str, Any]:
        """All that the vectors depend on: the weights (SHA-256), the pooling, the length, the side that is cut and the dtype."""
        side = self.processing_class.truncation_side
        return {
            "class": type(self).__name__,
            "weights": weights_hash(self.model),
            "pooling": self.pooling,
            **self.architecture.reading(self.processing_class),
            # How a template is read stands above; the setting says that it is read at all.
            **{name: value for name, value in self.settings.items() if name != "chat_template"},
            # The side is named only where it is not the usual one, so that most indexes of earlier versions stay usable.
            **({} if side == "right" else {"truncation_side": side}),
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }

    @contextmanager
    def reporting(self, report: Callable[[int], object]) -> Iterator[None]:
        """Calls `report` with the number of distinct texts after each batch that is encoded inside of the context."""
        self._report = report
        try:
            yield
        finally:
            self._report = None

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes `n` texts as a float32 array `[n, d]` in the order of the texts.

        Raises:
            TypeError: `texts` is one string, or one of the texts is no string.
        """
        if isinstance(texts, str):
            raise TypeError("Expected a list of texts, found one string. Pass `[text]`.")
        texts = list(texts)
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        wrong = next((text for text in texts if not isinstance(text, str)), None)
        if wrong is not None:
            raise TypeError(f"Expected texts that are strings, found {type(wrong).__name__}.")
        # Each text is tokenised once, however often it occurs.
        distinct = {text: position for position, text in enumerate(dict.fromkeys(texts))}
        unique = list(distinct)
        token_ids = [
            ids
            for chunk in chunks(unique, TEXTS_A_CALL)
            for ids in self.architecture.prompt_ids(self.processing_class, chunk, self.max_length)
        ]
        order: list[int] = []
        pooled = []
        autocast = torch.autocast(
            self.model.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None
        )
        with evaluating(self.model), autocast:
            for rows in token_budget_batches([len(ids) for ids in token_ids], self.token_budget):
                order.extend(rows)
                pooled.append(self._pool([token_ids[row] for row in rows]))
                if self._report is not None:
                    self._report(len(rows))
        # One copy off the device at the end: a copy a batch would make the host wait for each.
        vectors = torch.cat(pooled).cpu().numpy()
        position = np.empty(len(order), dtype=np.int64)
        position[order] = np.arange(len(order))
        return vectors[position[[distinct[text] for text in texts]]]

    @property
    def dimension(self) -> int:
        """Length `d` of a vector."""
        return int(self.model.config.get_text_config().hidden_size)

    def _pool(self, batch: list[list[int]]) -> torch.Tensor:
        inputs = padded(batch, pad_token_id(self.processing_class))
        if inputs["attention_mask"].all():  # nothing to mask: attention takes its faster path
            del inputs["attention_mask"]
            hidden = self.architecture.read(self.model, **on_device(inputs, self.model.device))
            return self._pooled(hidden.float(), torch.ones(hidden.shape[:2], device=hidden.device))
        inputs = on_device(inputs, self.model.device)
        hidden, mask = self.architecture.read(self.model, **inputs), inputs["attention_mask"].bool()
        return self._pooled(hidden.float().masked_fill(~mask[:, :, None], 0.0), mask.float())

    def _pooled(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        if self.pooling == "weighted_mean":
            weights = weights * torch.arange(1, weights.shape[1] + 1, device=weights.device)
            hidden = hidden * weights[:, :, None]
        return hidden.sum(dim=1) / weights.sum(dim=1, keepdim=True)


def encode_in_processes(encoder: Encoder, texts: Sequence[str], *, shard_size: int = 1024) -> np.ndarray:
    """Encodes texts on all processes of `accelerate launch`; each gets the whole array `[n, d]`.

    Every process must call this function, with the same texts, and waits for the others: `Retriever.rank`, which the main
    process alone calls, cannot use it. The shards are the same whatever the number of processes, so that the vectors are,
    too.

    Args:
        encoder: Encoder of the texts.
        texts: Texts to encode.
        shard_size: Number of texts that one process encodes at a time.
    """
    state = process_state()
    starts = range(state.process_index * shard_size, len(texts), state.num_processes * shard_size)
    mine = [(start, encoder.encode(texts[start : start + shard_size])) for start in starts]
    shards = mine if state.num_processes == 1 else gather_object(mine)
    if not shards:
        return encoder.encode([])
    return np.concatenate([vectors for _, vectors in sorted(shards, key=lambda shard: shard[0])])
