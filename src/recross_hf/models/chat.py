"""Chat templates: inputs and answers as token ids, framed as a model's own template frames them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from ..data.conversations import Conversation, Message
from .base import TokenIds, say_inputs_are_cut
from .collators import end_token_id

SYSTEM_PROMPT = "system_prompt"
"""Name, in `tokenizer_config.json`, of the system prompt that stands before inputs that have none."""
_DAY = date(2024, 7, 26)
TEMPLATE_SETTINGS = {"enable_thinking": False, "date_string": _DAY.strftime("%d %b %Y")}
"""What templates are told. Those that show the day would give other prompts, and an index other vectors, tomorrow; models that think
before they answer are told not to, for the answers of a task are learned from a few tokens."""
_ASKED: Message = {"role": "user", "content": "?"}


def uses_chat_template(processing_class: PreTrainedTokenizerBase) -> bool:
    """Whether a decoder-only model with this tokenizer reads inputs as turns of a conversation."""
    return getattr(processing_class, "chat_template", None) is not None


def set_chat_format(
    processing_class: PreTrainedTokenizerBase, chat_template: str | Path = "auto", system_prompt: str | None = None
) -> None:
    """Says how a decoder-only model reads inputs; it is saved with the tokenizer.

    Args:
        processing_class: Tokenizer, which is changed.
        chat_template: "auto" keeps the tokenizer's own template, if it has one; "none" drops it, so that an input, a line break and the
            answer follow one another; anything else is the path of a file with a Jinja template.
        system_prompt: Text of the system turn that stands before inputs that have none. None leaves what the tokenizer was saved with,
            and an empty text drops it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: There is no template for the system prompt, or the template is faulty.
    """
    if str(chat_template) == "none":
        processing_class.chat_template = None
    elif str(chat_template) != "auto":
        path = Path(chat_template)
        if not path.is_file():
            raise FileNotFoundError(
                f"Expected 'auto', 'none' or a file with a Jinja template, found no file at {path}. Check the path."
            )
        processing_class.chat_template = path.read_text(encoding="utf-8")
    if system_prompt is not None:
        processing_class.init_kwargs.pop(SYSTEM_PROMPT, None)
    if system_prompt:
        if not uses_chat_template(processing_class):
            raise ValueError(
                "Expected a tokenizer with a chat template for a system prompt, found one without. Pass `chat_template`, or write the "
                "prompt into the inputs."
            )
        processing_class.init_kwargs[SYSTEM_PROMPT] = system_prompt
    if uses_chat_template(processing_class):
        answer_ids(processing_class, ["yes"], 512)
        prompt_ids(processing_class, ["?"], 1 << 20)


def system_prompt_of(processing_class: PreTrainedTokenizerBase) -> str | None:
    """The system prompt that stands before inputs that have none."""
    return processing_class.init_kwargs.get(SYSTEM_PROMPT)


def chat_identity(processing_class: PreTrainedTokenizerBase) -> dict[str, str]:
    """All that the prompts depend on beside the texts, as JSON values."""
    template = processing_class.get_chat_template()
    found = {"chat_template_sha256": hashlib.sha256(template.encode()).hexdigest()}
    system = system_prompt_of(processing_class)
    return found | ({} if system is None else {SYSTEM_PROMPT: system})


def usage(processing_class: PreTrainedTokenizerBase, settings: str) -> str:
    """Code for a model card that answers an input; `settings` are further arguments of `generate`."""
    messages = json.dumps(messages_of(processing_class, "an input of the task"))
    template = processing_class.get_chat_template()
    told = "".join(f", {name}={value!r}" for name, value in TEMPLATE_SETTINGS.items() if name in template)
    end = json.dumps(processing_class.convert_ids_to_tokens(answer_end_id(processing_class)))
    return f"""\
messages = {messages}
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True{told}, return_tensors="pt")
settings = {{"do_sample": False, "eos_token_id": tokenizer.convert_tokens_to_ids({end})}}
output = model.generate(**inputs, **settings{settings})[0, inputs["input_ids"].shape[1] :]
tokenizer.decode(output, skip_special_tokens=True)"""


def messages_of(processing_class: PreTrainedTokenizerBase, text: str) -> list[Message]:
    """The turns of an input, the system prompt that it was given or the tokenizer's first."""
    turns = [*text.messages] if isinstance(text, Conversation) else [{"role": "user", "content": text}]
    system = system_prompt_of(processing_class)
    if system is not None and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": system})
    return turns


def prompt_ids(processing_class: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> TokenIds:
    """Inputs as token ids of their conversations, with what opens the answer; those that are too long lose text, never the frame.

    Of a long conversation the oldest turns go first, in pairs, then the beginning or end (the tokenizer's `truncation_side`) of the
    last one's text.

    Raises:
        ValueError: The template refuses or drops a turn, or has no room for any text.
    """
    conversations = [messages_of(processing_class, text) for text in texts]
    whole = _tokenized(processing_class, _rendered(processing_class, conversations, opens_answer=True))
    for row, ids in enumerate(whole):
        if len(ids) > max_length:
            say_inputs_are_cut(max_length)
            whole[row] = _cut(processing_class, conversations[row], ids, max_length)
    return whole


def answer_ids(processing_class: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> TokenIds:
    """Answers as token ids as they stand after a prompt, with what ends them; those that are too long lose the end of their text.

    Raises:
        ValueError: The template drops an answer's text, its answers do not begin as its prompts end, or other words stand before them.
    """
    prompt = _rendered(processing_class, [[_ASKED]], opens_answer=True)[0]
    answered = [[_ASKED, {"role": "assistant", "content": text}] for text in texts]
    rendered = _rendered(processing_class, answered, opens_answer=False)
    for text, whole in zip(texts, rendered, strict=True):
        if not whole.startswith(prompt):
            raise ValueError(
                f"Expected a chat template whose answers begin as its prompts end, {prompt[-40:]!r}, found {whole[-80:]!r}. Mend the "
                "template, or read without one (`chat_template` 'none')."
            )
        if text.strip() not in whole[len(prompt) :]:
            raise ValueError(
                f"Expected a chat template that keeps an answer's text, found that it drops that of {text[:80]!r}. Leave such answers "
                "out, or read without the template (`chat_template` 'none')."
            )
        # Tokens that are special are not in a predicted text; words are, and would be a part of each answer.
        before = whole[len(prompt) : whole.index(text.strip(), len(prompt))]
        if before.strip() and (words := _words(processing_class, before)):
            raise ValueError(
                f"Expected a chat template that writes nothing between its prompts' end and an answer's text, found {words!r}. Mend the "
                "template, or read without one (`chat_template` 'none')."
            )
    opened, special = _tokenized(processing_class, [prompt])[0], _special_ids(processing_class)
    found = []
    for whole, ids in zip(rendered, _tokenized(processing_class, rendered), strict=True):
        if ids[: len(opened)] != opened:  # prompt and answer grew together; a prompt has to end where an answer begins
            ids = opened + _tokenized(processing_class, [whole[len(prompt) :]])[0]
        text_ids, end = _split(processing_class, ids[len(opened) :], special)
        found.append([*text_ids[: max(0, max_length - len(end))], *end][:max_length])
    return found


def _words(processing_class: PreTrainedTokenizerBase, text: str) -> str:
    """What a predicted text keeps of a text: all but special tokens."""
    return str(processing_class.decode(_tokenized(processing_class, [text])[0], skip_special_tokens=True)).strip()


def answer_end_id(processing_class: PreTrainedTokenizerBase) -> int:
    """The token that ends an answer in the template, such as `<end_of_turn>`, or the tokenizer's end token, if it has none."""
    ids = answer_ids(processing_class, ["yes"], 512)[0]
    return _split(processing_class, ids, _special_ids(processing_class))[1][0]


def _special_ids(processing_class: PreTrainedTokenizerBase) -> set[int]:
    added = processing_class.added_tokens_decoder
    return {*processing_class.all_special_ids, *(number for number, token in added.items() if token.special)}


def _split(
    processing_class: PreTrainedTokenizerBase, ids: list[int], special: set[int]
) -> tuple[list[int], list[int]]:
    """The tokens of an answer's text, and those that end it: its last special token and what the template writes after that."""
    place = next((place for place in reversed(range(len(ids))) if ids[place] in special), None)
    return (ids, [end_token_id(processing_class)]) if place is None else (ids[:place], ids[place:])


def _rendered(
    processing_class: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]], *, opens_answer: bool
) -> list[str]:
    if not conversations:
        return []
    template = _on_one_day(processing_class.get_chat_template())
    settings: dict[str, Any] = {"add_generation_prompt": opens_answer, "chat_template": template, **TEMPLATE_SETTINGS}
    rendered = []
    for turns in conversations:
        try:
            text = processing_class.apply_chat_template([*turns], tokenize=False, **settings)
        except TemplateError as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise ValueError(
                f"Expected a chat template that takes the turns {roles}, found that it refuses them: {error}. Leave out the system "
                "prompt or join turns of one role, mend the template, or read without one (`chat_template` 'none')."
            ) from error
        # The last turn of what is answered is the user's, too; of what has an answer, the answer is looked for by the caller.
        asked = [turn for turn in turns if turn["role"] != "assistant"]
        dropped = next((turn for turn in asked if turn["content"].strip() not in text), None)
        if dropped is not None:
            raise ValueError(
                f"Expected a chat template that keeps all turns, found that it drops the {dropped['role']} turn "
                f"{dropped['content'][:60]!r}. Write that text into the user's turn, or use another template."
            )
        rendered.append(str(text))
    return rendered


_SHOWS_DAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


def _on_one_day(template: str) -> str:
    """The template with the day that it shows written out."""
    return _SHOWS_DAY.sub(lambda found: repr(_DAY.strftime(found[2])), template)


def _tokenized(processing_class: PreTrainedTokenizerBase, rendered: list[str]) -> TokenIds:
    # The template writes the start token, where there is one.
    settings = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    return processing_class(rendered, **settings)["input_ids"] if rendered else []


def _cut(
    processing_class: PreTrainedTokenizerBase, turns: list[Message], ids: list[int], max_length: int
) -> list[int]:
    """The token ids of a conversation without its oldest turns, or without a part of its last one's text, of which some stays."""
    kept, content, lost = list(turns), turns[-1]["content"].strip(), 0
    while len(ids) > max_length:
        first = int(kept[0]["role"] == "system")
        if len(kept) - first > 1:
            del kept[first : min(first + 2, len(kept) - 1)]
        elif kept[-1]["content"] != content and not lost:
            kept[-1] = {"role": "user", "content": content}  # blanks around a text go first
        else:
            lost += len(ids) - max_length
            kept[-1] = {"role": "user", "content": _without(processing_class, content, lost, max_length)}
        ids = _tokenized(processing_class, _rendered(processing_class, [kept], opens_answer=True))[0]
    return ids


def _without(processing_class: PreTrainedTokenizerBase, text: str, num_tokens: int, max_length: int) -> str:
    """A text without so many tokens of its beginning or end, as the tokenizer's `truncation_side` says."""
    settings = {"add_special_tokens": False, "return_offsets_mapping": processing_class.is_fast, "verbose": False}
    tokenized = processing_class(text, **settings)
    is_left, kept = processing_class.truncation_side == "left", ""
    if num_tokens >= len(tokenized["input_ids"]):
        pass
    elif not processing_class.is_fast:  # which does not tell where a token stands
        ids = tokenized["input_ids"]
        kept = str(processing_class.decode(ids[num_tokens:] if is_left else ids[:-num_tokens]))
    else:
        offsets = tokenized["offset_mapping"]
        kept = text[offsets[num_tokens][0] :] if is_left else text[: offsets[-num_tokens - 1][1]]
    if not kept.strip():
        raise ValueError(
            f"Expected room for the chat template's own tokens and an input's text, found {max_length} tokens. Set the longest input higher, "
            "the longest answer lower (they share the positions of the model), or the system prompt shorter."
        )
    return kept
