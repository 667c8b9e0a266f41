"""The paper's reranker: a cross-encoder, any sequence classification model with one label."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from huggingface_hub import CommitInfo
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..core.batching import on_device, token_budget_batches
from ..core.devices import device_of, dtype_of
from ..core.distributed import process_state, warn_where_bfloat16_is_slow
from ..core.hashing import function_name, weights_hash
from ..core.output_folders import folder_to_write
from ..core.progress import progress_bar
from ..hub.fetching import artifact_folder
from ..hub.publishing import Publication, full_name, publish
from ..hub.repository import HubAccess
from ..hub.safety import check_model_files
from ..models.base import check_vocabulary
from ..models.foreign import check_built_size
from ..models.modes import evaluating
from .model_card import reranker_card
from .pair_tokenizer import PairTokenizer, longest_pair
from .reranker import Reranker

_LONG_WORK = 4096
"""Number of pairs from which on a progress bar is shown."""


def mean_score(scores: np.ndarray) -> np.ndarray:
    """Means over the queries of scores `[num_queries, num_candidates]` (paper, section 3.3)."""
    return scores.mean(axis=0)


class CrossEncoderReranker(Reranker):
    """Scores pairs of a query and a candidate with a cross-encoder and joins each candidate's scores (paper, section 3.3).

    ```python
    reranker = CrossEncoderReranker.from_pretrained("my-reranker")
    scores = reranker.rank(queries, candidates)  # float32 [num_candidates], rises with relevance
    kept = reranker.rerank(queries, retriever.retrieve(queries, 1024), num_kept=512)
    ```

    Each distinct query and candidate is tokenised once and each distinct pair scored once; pairs are sorted by length and batched by a
    budget of tokens. Scores are logits. The saved folder opens with `sentence_transformers.CrossEncoder`, too.

    Args:
        model: Sequence classification model with one label; it is neither copied nor moved to another device.
        processing_class: Fast tokenizer of the model that takes pairs.
        aggregation: Function that makes `[num_candidates]` of scores `[num_queries, num_candidates]`; by default their mean.
        include_answers: Whether candidates are read with their answers, as in the training.
        max_length: Greatest number of tokens of a pair; the longer text is cut first. By default as many as the model and its
            tokenizer take, at most 512.
        token_budget: Number of tokens in a batch, padding included.
        autocast_dtype: Precision of the computation: `torch.bfloat16`, the default on a GPU that has it, or `torch.float32`.

    Raises:
        ValueError: The model has not one label, its tokenizer takes no pairs, or `max_length` is more than the model takes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processing_class: PreTrainedTokenizerBase,
        *,
        aggregation: Callable[[np.ndarray], np.ndarray] = mean_score,
        include_answers: bool = False,
        max_length: int | None = None,
        token_budget: int | None = None,
        autocast_dtype: torch.dtype | None = None,
    ) -> None:
        if model.config.num_labels != 1:
            raise ValueError(
                f"Expected a model with one label, found {model.config.num_labels} in {type(model).__name__}. Load it with "
                "`AutoModelForSequenceClassification.from_pretrained(name, num_labels=1)` and train it with `train_reranker`."
            )
        check_vocabulary(model, processing_class)
        longest = longest_pair(model, processing_class)
        if max_length is not None and max_length > longest:
            raise ValueError(
                f"Expected `max_length` to be at most {longest}, which this model can take, found {max_length}."
            )
        self.model = model
        self.processing_class = processing_class
        self.aggregation = aggregation
        self.include_answers = include_answers
        self.max_length = max_length or min(512, longest)
        self.pair_tokenizer = PairTokenizer(processing_class, self.max_length)
        on_gpu = model.device.type == "cuda"
        self.token_budget = token_budget or (32_768 if on_gpu else 1_024)
        if autocast_dtype is None and on_gpu and torch.cuda.is_bf16_supported():
            autocast_dtype = torch.bfloat16
        self.autocast_dtype = autocast_dtype
        if torch.bfloat16 in (autocast_dtype, model.dtype):
            warn_where_bfloat16_is_slow(model.device.type)

    # ---- saving and loading ----------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Loads a trained reranker, from a folder or the Hub; other cross-encoders with one label work as well.

        Args:
            name_or_path: Folder, or repository of the Hub.
            dtype: Precision of the weights.
            device: Device of the model; by default that of the process.
            revision: Branch, tag or commit of the repository.
            token: Token of the Hub; True takes the one of `hf auth login`.
            cache_dir: Folder of the Hub's cache.
            local_files_only: Whether the cache alone is read.
            force_download: Whether files are fetched again.
            kwargs: Other arguments of the constructor.

        Raises:
            HubError: the model could not be had.
            ArtifactError: Its weights are pickled, or it asks for code of its own.
            ValueError: The model was never trained to score pairs.
        """
        dtype, device = dtype_of(dtype), device_of(device)
        access = HubAccess(token, cache_dir, local_files_only, force_download)
        folder = artifact_folder(name_or_path, "model", revision, access)
        config = None
        if folder.is_dir():
            check_model_files(folder, [path.name for path in folder.iterdir() if path.is_file()])
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            check_built_size(AutoModelForSequenceClassification, config, folder)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
        if loading["missing_keys"]:
            raise ValueError(
                f"Expected a trained reranker in {name_or_path}, found a model without weights for "
                f"{', '.join(sorted(loading['missing_keys']))}: its scores would be random. Train one with `train_reranker`."
            )
        processing_class = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if hasattr(model.config, "include_answers"):  # saved below: its length is the tokenizer's, also beyond 512
            kwargs = {
                "include_answers": model.config.include_answers,
                "max_length": processing_class.model_max_length,
            } | kwargs
        return cls(model.to(device).eval(), processing_class, **kwargs)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the model (safetensors), the tokenizer and the settings into a folder; `aggregation` is code and not saved.

        Args:
            save_directory: Folder to write.
        """
        save_directory = folder_to_write(save_directory)
        config = self.model.config
        config.include_answers = self.include_answers
        # sentence_transformers reads this: logits as they are, so that means over queries rank alike there.
        config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
        self.model.save_pretrained(save_directory)
        tokenizer = copy.deepcopy(self.processing_class)
        tokenizer.model_max_length = self.max_length
        tokenizer.save_pretrained(save_directory)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | bool | None = None,
        private: bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
        license: str | None = None,
    ) -> CommitInfo:
        """Publishes the reranker in one commit; `sentence_transformers.CrossEncoder` opens it, too.

        Args:
            repo_id: Repository to publish in, such as user/name.
            token: Token of the Hub; True takes the one of `hf auth login`.
            private: Whether a new repository is private.
            revision: Branch to commit to.
            create_pr: Whether a pull request is opened in place of a commit to the branch.
            commit_message: Message of the commit.
            license: Licence of the weights for the card, such as apache-2.0.

        Returns:
            The commit.
        """
        repo_id = full_name(repo_id, token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            files: dict[str, Path | bytes] = {path.name: path for path in sorted(Path(folder).iterdir())}
            files["README.md"] = str(reranker_card(repo_id, self.model.config, license=license)).encode()
            return publish(
                Publication(repo_id, "model", files),
                token=token,
                private=private,
                revision=revision,
                create_pr=create_pr,
                commit_message=commit_message,
            )

    @property
    def can_be_saved(self) -> bool:
        """True: see [`save_pretrained`]."""
        return True

    def identity(self) -> dict[str, Any]:
        """Settings that the scores depend on, as JSON values, with a digest of the weights."""
        return super().identity() | {
            "weights": weights_hash(self.model),
            "max_length": self.max_length,
            "include_answers": self.include_answers,
            "aggregation": function_name(self.aggregation),
        }

    # ---- scoring ---------------------------------------------------------------------------------------------------

    def rank(self, queries: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """Scores each candidate for all queries together: float32 `[num_candidates]`.

        Args:
            queries: Inputs of the query examples.
            candidates: Texts of upstream examples, see [`candidate_texts`].

        Raises:
            TypeError: A string was passed in place of a list.
            ValueError: There are no queries or no candidates.
        """
        return self.aggregation(self.score(queries, candidates))

    @torch.inference_mode()
    def score(self, queries: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """Scores all pairs: logits, float32 `[num_queries, num_candidates]`.

        Args:
            queries: First texts of the pairs.
            candidates: Second texts of the pairs.
        """
        for name, texts in (("queries", queries), ("candidates", candidates)):
            if isinstance(texts, str):
                raise TypeError(f"Expected `{name}` to be a list of texts, found one string. Pass `[text]`.")
            if not len(texts):
                raise ValueError(f"Expected at least one text in `{name}`, found none.")
        rows, columns = (dict.fromkeys(texts) for texts in (queries, candidates))
        first, second = (self.pair_tokenizer.tokenize(list(distinct)) for distinct in (rows, columns))
        lengths = [self.pair_tokenizer.length(len(query), len(other)) for query in first for other in second]
        progress = progress_bar(
            total=len(lengths),
            desc="Reranking",
            unit="pair",
            leave=False,
            is_shown=len(lengths) >= _LONG_WORK and process_state().is_main_process,
        )
        order: list[int] = []
        logits = []
        device = self.model.device
        enabled = self.autocast_dtype not in (None, torch.float32)
        autocast = torch.autocast(device.type, dtype=self.autocast_dtype if enabled else None, enabled=enabled)
        with evaluating(self.model), progress, autocast:
            for pairs in token_budget_batches(lengths, self.token_budget):
                joined = [
                    self.pair_tokenizer.join(first[pair // len(second)], second[pair % len(second)]) for pair in pairs
                ]
                inputs = on_device(self.pair_tokenizer.pad(joined), device)
                logits.append(self.model(**inputs).logits[:, 0].float())
                order.extend(pairs)
                progress.update(len(pairs))
        # One copy off the device at the end: a copy a batch would make the host wait for each.
        of_pairs = np.empty(len(order), dtype=np.float32)
        of_pairs[order] = torch.cat(logits).cpu().numpy()
        scores = of_pairs.reshape(len(first), len(second))
        row_of, column_of = ({text: row for row, text in enumerate(distinct)} for distinct in (rows, columns))
        return scores[[row_of[text] for text in queries]][:, [column_of[text] for text in candidates]]
