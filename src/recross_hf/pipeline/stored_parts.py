"""`StoredParts`: the parts of a saved or published pipeline, each fetched, verified and opened when it is first used."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .._version import __version__
from ..adaptation.record import RETRIEVED_FILE
from ..core._compat import note_commit
from ..core.devices import dtype_of
from ..core.files import REMEMBERED_SIZE, read_parquet, remember_check, was_checked
from ..data.schema import check_plain
from ..hub.alone import alone
from ..models.adapters import check_first_weights, check_plain_lora, is_peft_model, is_plain_lora, merged_in_place
from ..models.loading import load_model
from ..models.shared_weights import base_alone, can_share, on_shared_weights
from ..reranking.cross_encoder import CrossEncoderReranker
from ..retrieval.encoder import Encoder, MeanPooledEncoder
from ..retrieval.index import UpstreamIndex
from ..retrieval.index_files import INDEX_FILE, read_config
from ..retrieval.lance.index import LanceIndex
from ..retrieval.sentence_encoder import SentenceEncoder, load_sentence_transformer
from ..retrieval.vector_shards import IndexMismatchError
from .changes import holds_weights, settings_of
from .lance_part import LanceReference
from .manifest import (
    ADAPTED_MODEL,
    BASE_MODEL,
    ENCODER,
    INDEX,
    RERANKER,
    RETRIEVED,
    UPSTREAM_MODEL,
)
from .stored_files import TOKENIZER, UPSTREAM_TOKENIZER, StoredFiles

if TYPE_CHECKING:
    from peft import PeftConfig


class StoredParts(StoredFiles):
    """Parts that a manifest names, opened one by one; the arguments are those of [`StoredFiles`]."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._opened: dict[str, Any] = {}
        self._settings: dict[str, Any] = {}

    def part(self, name: str) -> Any:
        """A part, opened when it is first asked for; None for a part that the pipeline has not."""
        if name not in self._opened:
            self._opened[name] = self._open(name)
            self._settings[name] = settings_of(self._opened[name])
        return self._opened[name]

    def is_opened(self, name: str) -> bool:
        """Whether a part was opened."""
        return name in self._opened

    def was_changed(self, name: str) -> bool:
        """Whether an opened part was changed in place since: its weights were trained, or its settings changed."""
        if name == BASE_MODEL:
            upstream = self._opened.get(UPSTREAM_MODEL)
            return upstream is not None and not holds_weights(self.files(BASE_MODEL), base_alone(upstream))
        if name not in self._opened:
            return False
        opened = self._opened[name]
        if settings_of(opened) != self._settings[name]:
            return True
        has_weights = isinstance(opened, CrossEncoderReranker | torch.nn.Module)
        return has_weights and not holds_weights(self.files(name), opened)

    def _open(self, name: str) -> Any:
        if name not in self:
            return None
        openers: dict[str, Callable[[], Any]] = {
            UPSTREAM_MODEL: self._open_upstream_model,
            TOKENIZER: self._open_tokenizer,
            UPSTREAM_TOKENIZER: partial(self._load_tokenizer, UPSTREAM_MODEL),
            INDEX: self._open_index,
            ENCODER: self._open_encoder,
            RERANKER: self._open_reranker,
            BASE_MODEL: lambda: base_alone(self.part(UPSTREAM_MODEL)),
            ADAPTED_MODEL: self._open_adapter if self.is_adapter() else partial(self._load, ADAPTED_MODEL),
            RETRIEVED: self._open_retrieved,
        }
        return openers[name]()

    def _open_upstream_model(self) -> PreTrainedModel:
        if BASE_MODEL in self.manifest.parts:
            return self._with_adapter(self._open_whole(BASE_MODEL), UPSTREAM_MODEL)
        return self._open_whole(UPSTREAM_MODEL)

    def _open_whole(self, name: str) -> PreTrainedModel:
        """The base or the upstream model, by its name on the Hub if it has one."""
        model, repository = self._load(name), self.repository(name)
        if repository is not None and self.manifest.parts[name].path == ".":
            # Cards and adapters name the model's repository, and no folder of somebody's cache.
            model.name_or_path = model.config.name_or_path = repository.repo_id
            note_commit(model, repository.revision)
        return model

    def _open_tokenizer(self) -> PreTrainedTokenizerBase:
        # The tokenizer beside the adapted model saves fetching the upstream model.
        own = ADAPTED_MODEL in self and "tokenizer_config.json" in self.manifest.parts[ADAPTED_MODEL].sha256
        return self._load_tokenizer(ADAPTED_MODEL) if own else self.part(UPSTREAM_TOKENIZER)

    def _open_reranker(self) -> CrossEncoderReranker:
        return CrossEncoderReranker.from_pretrained(
            self.checked(RERANKER), dtype=self.trained_dtype, device=self.device
        )

    def _open_retrieved(self) -> Dataset:
        path = self.folder(RETRIEVED) / RETRIEVED_FILE
        retrieved = read_parquet(path)
        check_plain(retrieved, path)
        return retrieved

    def _open_encoder(self) -> SentenceEncoder:
        files, settings = self.manifest.parts[ENCODER].sha256, self.manifest.encoder
        # It is small: whatever the models are opened in, it is opened as it encoded the examples.
        encoded_in = self._index_config()["encoder"].get("dtype")
        dtype = dtype_of(encoded_in) if encoded_in in ("bfloat16", "float16", "float64") else torch.float32
        model = load_sentence_transformer(self.folder(ENCODER), list(files), dtype=dtype, device=self.device)
        repository, named = self.repository(ENCODER), dict(files)
        if repository is None or self.manifest.parts[ENCODER].path != ".":
            repository, named = None, {}
        settings = {"prompt": settings["prompt"], "max_length": settings["max_length"]}
        return SentenceEncoder(model, **settings, repository=repository, files=named)

    def _open_index(self) -> UpstreamIndex | LanceIndex:
        """Opens the index: memory-mapped, or where it is in a Lance data set."""
        encoder: Encoder
        if ENCODER in self.manifest.parts:
            encoder = self.part(ENCODER)
        else:
            model, tokenizer = self.part(UPSTREAM_MODEL), self.part(UPSTREAM_TOKENIZER)
            encoder = MeanPooledEncoder.from_settings(model, tokenizer, self.manifest.encoder)
        if (lance := self.manifest.parts[INDEX].lance) is not None:
            return self._open_lance(lance, encoder)
        folder, parts = self.folder(INDEX), self.manifest.parts
        # Whether model and index belong together depends on nothing but files whose checksums are known: of a large index
        # it is found out once.
        pair: list[Any] = [
            dict(parts[name].sha256) for name in (BASE_MODEL, UPSTREAM_MODEL, ENCODER, INDEX) if name in parts
        ]
        pair += [self.manifest.encoder, str(self.dtype), __version__]
        vectors = folder / INDEX_FILE
        remembers = self.verify_checksums and vectors.is_file() and vectors.stat().st_size >= REMEMBERED_SIZE
        known = remembers and was_checked(pair)
        index = UpstreamIndex.from_pretrained(folder, encoder=encoder, verify=not known)
        if remembers and not known:
            remember_check(pair)
        return index

    def _index_config(self) -> dict[str, Any]:
        """What the index says of itself, to be read before there is an encoder to open it with."""
        if (lance := self.manifest.parts[INDEX].lance) is None:
            return read_config(self.folder(INDEX))
        return self._opened_lance(lance, cast(Encoder, None), verify=False).config

    def _opened_lance(self, lance: LanceReference, encoder: Encoder, *, verify: bool) -> LanceIndex:
        location = lance.location(self.home, self.access.token if isinstance(self.access.token, str) else None)
        return LanceIndex.from_pretrained(location, encoder=encoder, version=lance.version, verify=verify)

    def _open_lance(self, lance: LanceReference, encoder: Encoder) -> LanceIndex:
        index = self._opened_lance(lance, encoder, verify=True)
        if index.content_hash != lance.content_sha256:
            raise IndexMismatchError(
                f"Expected the index that the pipeline was saved with in version {lance.version} of {index.location.uri}, found another one: the data "
                "set was deleted and built again. Set `pipeline.index` to the new one and save the pipeline, or restore the old one."
            )
        return index

    def _open_adapter(self) -> PreTrainedModel:
        is_held, is_on_base = self.is_opened(UPSTREAM_MODEL), self.manifest.parts[ADAPTED_MODEL].base == BASE_MODEL
        if not is_held:
            base = self._open_whole(BASE_MODEL) if is_on_base else self._open_upstream_model()
        else:  # somebody has it, and keeps it as it is
            upstream = self.part(UPSTREAM_MODEL)
            base = base_alone(upstream) if is_on_base else upstream
            if is_plain_lora(self._peft_config(ADAPTED_MODEL)) and can_share(base) and not is_peft_model(base):
                return cast(PreTrainedModel, on_shared_weights(base, self.checked(ADAPTED_MODEL)).eval())
            base = copy.deepcopy(base)
        if is_peft_model(base):
            base = merged_in_place(base, is_named=False)
        return self._with_adapter(base, ADAPTED_MODEL)

    def _peft_config(self, name: str) -> PeftConfig:
        try:
            from peft import PeftConfig
        except ImportError as error:
            raise ImportError(
                "This pipeline holds a PEFT adapter: pip install 'recross_hf[peft]' to load it."
            ) from error
        return cast("PeftConfig", PeftConfig.from_pretrained(str(self.checked(name))))

    def _with_adapter(self, base: PreTrainedModel, name: str) -> PreTrainedModel:
        peft_config = self._peft_config(name)
        from peft import PeftModel

        check_first_weights(peft_config)
        if name == UPSTREAM_MODEL:  # its base lies here as it was below the adapter
            check_plain_lora(peft_config, "an upstream model with an adapter")
        return cast(PreTrainedModel, PeftModel.from_pretrained(base, self.checked(name)).eval())

    def _load(self, name: str) -> PreTrainedModel:
        dtype = self.trained_dtype if name == ADAPTED_MODEL else self.dtype
        load: Any = partial(load_model, dtype=dtype, local_files_only=True, use_safetensors=True)
        model: torch.nn.Module
        if name == BASE_MODEL and self.repository(name) is not None:
            with alone(self.checked(name), self.manifest.parts[name].sha256) as folder:
                model = load(folder)
        else:
            model = load(self.checked(name))
        return cast(PreTrainedModel, model.to(self.device).eval())

    def _load_tokenizer(self, name: str) -> PreTrainedTokenizerBase:
        folder = self.checked(name)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if tokenizer.chat_template is not None and not self.manifest.encoder.get("chat_template"):
            model = name if "config.json" in self.manifest.parts[name].sha256 else UPSTREAM_MODEL
            if not self.config(model).is_encoder_decoder:
                # It was trained and indexed without, before templates were read.
                tokenizer.chat_template = None
        return cast(PreTrainedTokenizerBase, tokenizer)
