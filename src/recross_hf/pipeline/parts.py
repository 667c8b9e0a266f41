"""`PipelineParts`: the parts of a pipeline, in memory or stored, and which of them differ from what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedConfig

from ..models.adapters import is_peft_model
from ..models.shared_weights import base_alone
from ..retrieval.lance.index import LanceIndex
from ..retrieval.sentence_encoder import SentenceEncoder
from .changes import holds_weights
from .lance_part import LanceReference
from .manifest import ADAPTED_MODEL, BASE_MODEL, ENCODER, INDEX, PARTS, RERANKER, UPSTREAM_MODEL
from .stored_files import TOKENIZER
from .stored_parts import StoredParts

_WITH_TOKENIZER = (UPSTREAM_MODEL, ADAPTED_MODEL)


@dataclass(frozen=True)
class PipelineParts:
    """The parts of a pipeline: those in memory, and those of a saved or published pipeline, opened when they are first used.

    Assigning a part gives other `PipelineParts` ([`PipelineParts.replaced`]), which share what is stored and opened: pipelines that
    were adapted from one another fetch and load a part once.

    Args:
        assigned: Parts in memory, by name. None stands for a part that the pipeline is to be without.
        stored: Parts of the saved or published pipeline; None where every part is in memory.
    """

    assigned: Mapping[str, Any] = field(default_factory=dict)
    stored: StoredParts | None = None

    def replaced(self, **parts: Any) -> PipelineParts:
        """These parts with some of them replaced; None takes a part away."""
        return replace(self, assigned={**self.assigned, **parts})

    def part(self, name: str) -> Any:
        """A part, opened if need be; None for a part that the pipeline has not."""
        if name == BASE_MODEL and (UPSTREAM_MODEL in self.assigned or self.stored is None):
            upstream: Any = self.assigned.get(UPSTREAM_MODEL)
            return base_alone(upstream) if is_peft_model(upstream) else None
        if name == ENCODER and (INDEX in self.assigned or self.stored is None):
            encoder = getattr(self.assigned.get(INDEX), "encoder", None)
            return encoder if isinstance(encoder, SentenceEncoder) else None
        if name in self.assigned or self.stored is None:
            return self.assigned.get(name)
        return self.stored.part(name)

    def has(self, name: str) -> bool:
        """Whether the pipeline has a part. Nothing is opened for that."""
        if name == BASE_MODEL and (UPSTREAM_MODEL in self.assigned or self.stored is None):
            return is_peft_model(self.assigned.get(UPSTREAM_MODEL))
        if name == ENCODER and (INDEX in self.assigned or self.stored is None):
            return self.part(ENCODER) is not None
        if name in self.assigned or self.stored is None:
            return self.assigned.get(name) is not None
        return name in self.stored

    def is_modified(self, name: str) -> bool:
        """Whether a part is another than the stored one: it was added, replaced, taken away or changed in place.

        Without a stored pipeline, each part is new. A model counts as modified where its tokenizer is, which is written beside it.
        """
        if name in _WITH_TOKENIZER and self.has(name) and self.is_modified(TOKENIZER):
            return True
        if self.stored is None:
            return self.has(name)
        if name == BASE_MODEL and UPSTREAM_MODEL in self.assigned and self.has(name) and name in self.stored:
            return not holds_weights(
                self.stored.files(name), self.part(name)
            )  # another adapter may be on the same base
        if name in (BASE_MODEL, ENCODER) and self.has(name) != (name in self.stored):
            return True
        if name == ENCODER:
            return self.has(name) and self.is_modified(INDEX)  # which comes with it
        if name in self.assigned:
            value = self.assigned[name]
            if value is None or name not in self.stored:
                return value is not None or name in self.stored
            if not self.stored.is_opened(name) or value is not self.stored.part(name):
                return True
        return self.stored.was_changed(name)

    def is_stored(self, name: str) -> bool:
        """Whether the stored files of a part are the part as it is now, so that they need not be written again."""
        return self.stored is not None and name in self.stored and not self.is_modified(name)

    def unmodified(self) -> frozenset[str]:
        """Names of the parts that are stored as they are now; the weights of opened models are compared for it."""
        return frozenset(name for name in PARTS if self.is_stored(name))

    def dtype(self, unmodified: frozenset[str]) -> str:
        """The data type that the models are to be opened in, by its name, so that the index opens with them.

        Args:
            unmodified: Names of the parts that are stored as they are ([`PipelineParts.unmodified`]).
        """
        if self.stored is None or not {UPSTREAM_MODEL, INDEX} <= unmodified:
            dtype = self.part(UPSTREAM_MODEL).dtype  # the index was built with it, or is not the model's own
        elif ENCODER in self.stored or self.stored.is_opened(INDEX):
            dtype = self.stored.dtype
        else:
            # Nobody asked whether the index opens with a type that the pipeline was opened in.
            return self.stored.manifest.dtype or "float32"
        return str(dtype).removeprefix("torch.")

    # ---- what parts say of themselves without their weights or vectors ----------------------------------------------

    def config(self, name: str) -> PreTrainedConfig:
        """The configuration of a model or of the reranker's model; no weights are read for it."""
        if name not in self.assigned and self.stored is not None and not self.stored.is_opened(name):
            return self.stored.config(name)
        part = self.part(name)
        config: PreTrainedConfig = part.model.config if name == RERANKER else part.config
        return config

    def indexed(self) -> tuple[Dataset, dict[str, Any]]:
        """The examples of the index, and its `index.json`; no vectors are read for it."""
        if INDEX not in self.assigned and self.stored is not None and not self.stored.is_opened(INDEX):
            return self.stored.indexed()
        index = self.part(INDEX)
        return index.dataset, index.config

    def lance_index(self, folder: Path) -> LanceReference | None:
        """The version of a Lance data set that the index is, for a manifest in `folder`; None where it is files. Nothing is opened.

        Args:
            folder: Folder of the manifest; where that is on the Hub, any.
        """
        if INDEX not in self.assigned and self.stored is not None and not self.stored.is_opened(INDEX):
            lance = self.stored.manifest.parts[INDEX].lance
            if lance is None:
                return None
            return LanceReference.of(lance.location(self.stored.home), lance.version, lance.content_sha256, folder)
        index = self.part(INDEX)
        if not isinstance(index, LanceIndex):
            return None
        return LanceReference.of(index.location, index.version, index.content_hash, folder)

    def is_adapter(self) -> bool:
        """Whether the adapted model is a PEFT adapter."""
        if ADAPTED_MODEL not in self.assigned and self.stored is not None:
            return self.stored.is_adapter()
        return hasattr(self.part(ADAPTED_MODEL), "peft_config")
