"""`SentenceEncoder`: a sentence-transformers model, static ones among them, as the encoder of an index."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..core.devices import device_of, dtype_of
from ..core.files import read_json, sha256_of
from ..core.hashing import digest_of, weights_hash
from ..hub.alone import alone, safe_files
from ..hub.errors import ArtifactError
from ..hub.fetching import artifact_folder
from ..hub.repository import COMMIT, HubAccess, Repository

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_MODULES = frozenset({"Transformer", "Pooling", "Normalize", "Dense", "LayerNorm", "StaticEmbedding"})
"""Modules that a stored model may be made of; their settings name no code."""


class SentenceEncoder:
    """A sentence-transformers model that encodes the inputs of an index, with one prompt before each of them.

    ```python
    encoder = SentenceEncoder.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    pipeline = ReCrossPipeline.build(model, tokenizer, upstream, "pipeline", encoder=encoder)
    ```

    Upstream inputs and queries are texts of one kind, so that both have the same prompt. A static model (model2vec's, for one) is
    loaded in the same way.

    Args:
        model: Model, which is used where it is.
        prompt: Text before each input, such as "query: "; the model's default prompt by default, and none with "".
        max_length: Number of tokens that texts are cut to; what the model says by default.
        repository: Repository of the Hub that the model is from, at a commit; None for one of a folder.
        files: Checksums (SHA-256) of the model's files in the repository, by their names.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        prompt: str | None = None,
        max_length: int | None = None,
        repository: Repository | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        default = model.prompts.get(model.default_prompt_name or "", "") or ""
        self.model = model.eval()
        self.prompt = default if prompt is None else prompt
        if max_length is not None:
            longest = model.max_seq_length
            if max_length < 1 or (longest is not None and max_length > longest):
                raise ValueError(
                    f"Expected `max_length` from 1 to the {longest} tokens that the encoder takes, found {max_length}. Lower it."
                )
            model.max_seq_length = max_length
        self.repository, self.files = repository, dict(files or {})

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        max_length: int | None = None,
        dtype: str | torch.dtype = torch.float32,
        device: str | torch.device | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> SentenceEncoder:
        """Loads a model from a folder or the Hub; its weights are safetensors, and it runs no code of its own.

        Args:
            name_or_path: Folder, or repository of the Hub.
            revision: Branch, tag or commit of the repository.
            prompt: Text before each input.
            prompt_name: Name of one of the model's own prompts, in place of `prompt`.
            max_length: Number of tokens that texts are cut to.
            dtype: Precision of the weights.
            device: Device of the model; by default that of the process.
            token: Token of the Hub.
            cache_dir: Folder of the Hub's cache.
            local_files_only: Whether the cache alone is read.

        Raises:
            ArtifactError: There is no such model in safe formats, or it is made of other modules.
            HubError: The model could not be had.
            ImportError: sentence-transformers is not installed.
            ValueError: There is no such prompt, or both `prompt` and `prompt_name` are given.
        """
        access = HubAccess(token, cache_dir, local_files_only)
        folder = artifact_folder(name_or_path, "model", revision, access, nested=True)
        is_fetched = COMMIT.fullmatch(folder.name) is not None and not Path(name_or_path).exists()
        repository = Repository(str(name_or_path), "model", folder.name) if is_fetched else None
        files = safe_files(folder)
        model = load_sentence_transformer(folder, files, dtype=dtype, device=device)
        if prompt_name is not None:
            if prompt is not None or prompt_name not in model.prompts:
                raise ValueError(
                    f"Expected `prompt_name` to be one of the model's, {', '.join(map(repr, model.prompts)) or 'which has none'}, and no "
                    f"`prompt` beside it, found {prompt_name!r}{'' if prompt is None else f' and the prompt {prompt!r}'}."
                )
            prompt = model.prompts[prompt_name]
        sums = None if repository is None else {name: sha256_of(folder / name) for name in files}
        return cls(model, prompt=prompt, max_length=max_length, repository=repository, files=sums)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that make this encoder of its model, as JSON values."""
        longest = self.model.max_seq_length
        # A static model takes texts of any length.
        return {
            "prompt": self.prompt,
            "max_length": longest if longest is not None and math.isfinite(longest) else None,
        }

    def identity(self) -> dict[str, Any]:
        """All that the vectors depend on: the weights (SHA-256), the modules with their settings, the prompt, the length and the dtype."""
        modules = [[type(module).__name__, _settings_of(module)] for module in self.model]
        return {
            "class": type(self).__name__,
            "weights": weights_hash(self.model),
            "modules": digest_of(modules),
            **self.settings,
            "dtype": str(next(self.model.parameters()).dtype).removeprefix("torch."),
        }

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes `n` texts as a float32 array `[n, d]` in the order of the texts.

        Raises:
            TypeError: `texts` is one string, or one of the texts is no string.
        """
        if isinstance(texts, str):
            raise TypeError("Expected a list of texts, found one string. Pass `[text]`.")
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        # A conversation is read as its text.
        plain = [str.__str__(text) for text in texts]
        vectors = self.model.encode(plain, prompt=self.prompt, convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32).reshape(len(plain), -1)

    @cached_property
    def dimension(self) -> int:
        """Length `d` of a vector."""
        return int(self.encode(["a"]).shape[1])

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the model as sentence-transformers does, with its weights as safetensors."""
        self.model.save_pretrained(str(save_directory), create_model_card=False, safe_serialization=True)


def load_sentence_transformer(
    folder: Path, files: Sequence[str], *, dtype: str | torch.dtype, device: str | torch.device | None
) -> SentenceTransformer:
    """Loads a model of which these files of a folder are read, and none beside them.

    Raises:
        ArtifactError: The model is made of modules that may ask for code, or has no safetensors.
        ImportError: sentence-transformers is not installed.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError(
            "This encoder is a sentence-transformers model: pip install 'recross_hf[encoders]' to load it."
        ) from error
    _check_modules(folder, files)
    settings = {"dtype": dtype_of(dtype), "use_safetensors": True}
    with alone(folder, files) as found:
        return SentenceTransformer(
            str(found),
            device=str(device_of(device)),
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs=settings,
        )


def _check_modules(folder: Path, files: Sequence[str]) -> None:
    if "modules.json" not in files or not any(name.endswith(".safetensors") for name in files):
        raise ArtifactError(
            f"Expected a sentence-transformers model in {folder}, with modules.json and safetensors, found "
            f"{', '.join(sorted(files)) or 'no files in safe formats'}. Save it with `SentenceTransformer.save_pretrained`."
        )
    modules = read_json(folder / "modules.json")
    kinds = (
        [str(one.get("type")) if isinstance(one, dict) else str(one) for one in modules]
        if isinstance(modules, list)
        else []
    )
    strange = [
        kind
        for kind in kinds
        if not kind.startswith("sentence_transformers.") or kind.rpartition(".")[2] not in _MODULES
    ]
    if strange or not kinds:
        raise ArtifactError(
            f"Expected modules of sentence-transformers ({', '.join(sorted(_MODULES))}) in {folder}, found "
            f"{', '.join(strange) or 'none'}. Code from elsewhere is never run: take another encoder."
        )


def _settings_of(module: torch.nn.Module) -> Any:
    described: Any = getattr(module, "get_config_dict", None)
    return {name: str(value) for name, value in sorted(described().items())} if described is not None else {}
