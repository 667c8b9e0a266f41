"""The flags that say how a sub-command loads the upstream model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class ModelLoading:
    """The type that the weights are held in, and the file that they are read from."""

    dtype: Literal["float32", "bfloat16", "float16"] = field(
        default="float32",
        kw_only=True,
        metadata={
            "help": "Type that the model's weights are held in, half the memory in bfloat16. A pipeline is opened in it ever after; a training needs "
            "--use_peft."
        },
    )
    gguf_file: str | None = field(
        default=None,
        kw_only=True,
        metadata={
            "help": "A GGUF file in the model's folder or repository, whose weights and tokenizer are read (the extra [gguf])."
        },
    )

    @property
    def packed(self) -> dict[str, str]:
        """Arguments of `load_upstream_model` and `load_upstream_tokenizer` that name the GGUF file, where there is one."""
        return {} if self.gguf_file is None else {"gguf_file": self.gguf_file}

    @property
    def of_model(self) -> dict[str, Any]:
        """Arguments of `load_upstream_model`."""
        return {"dtype": self.dtype, **self.packed}
