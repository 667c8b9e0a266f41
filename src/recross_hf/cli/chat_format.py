"""`--chat_template` and `--system_prompt`: how a decoder-only model reads inputs, for the commands that fix it."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..models.architectures import DECODER_ONLY, architecture_of
from ..models.base import unwrapped
from ..models.chat import set_chat_format


@dataclass
class ChatArguments:
    """How a decoder-only model reads inputs; what is said here is saved with the tokenizer."""

    chat_template: str = field(
        default="auto",
        metadata={
            "help": "How a decoder-only model reads inputs: auto is the tokenizer's own chat template, if it has one; none is the input, a line "
            "break and the answer; anything else names a file with a Jinja template."
        },
    )
    system_prompt: str | None = field(
        default=None,
        metadata={
            "help": "Text of the system turn before inputs that have none; what the tokenizer was saved with by default."
        },
    )

    def apply_to(self, processing_class: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
        """Makes a model's tokenizer read so.

        Raises:
            FileNotFoundError: The template's file is not there.
            ValueError: The template is faulty, there is none for the system prompt, or the model reads texts alone.
        """
        if architecture_of(model) is not DECODER_ONLY:
            if self.chat_template != "auto" or self.system_prompt:
                raise ValueError(
                    f"Expected a decoder-only model for --chat_template and --system_prompt, found {type(unwrapped(model)).__name__}, whose "
                    "encoder reads texts. Leave them out, or write the prompt into the inputs."
                )
            return
        set_chat_format(processing_class, self.chat_template, self.system_prompt)
