"""Chat templates of the families that people have, each in a few lines, and tokenizers for them."""

import tiny
from transformers import PreTrainedTokenizerFast

CHATML = """\
{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
# Begins with the start token, strips what is said and shows the day.
HEADERS = """\
{{ bos_token }}{% if messages[0].role != "system" %}<|start|>system<|end|>

Today is {{ date_string if date_string is defined else strftime_now("%d %b %Y") }}.<|eot|>{% endif %}\
{% for message in messages %}<|start|>{{ message.role }}<|end|>

{{ message.content | trim }}<|eot|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|end|>

{% endif %}"""
# Has another name for the assistant, no system role, and takes no two user turns after one another.
TURNS = """\
{{ bos_token }}{% if messages[0].role == "system" %}{{ raise_exception("There is no system role.") }}{% endif %}\
{% for message in messages %}{% if (message.role == "user") != (loop.index0 % 2 == 0) %}\
{{ raise_exception("Roles must alternate.") }}{% endif %}\
<start_of_turn>{{ "model" if message.role == "assistant" else message.role }}
{{ message.content | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""
# Ends answers with the tokenizer's own end token, and says nothing before them.
INSTRUCTIONS = """\
{{ bos_token }}{% for message in messages %}{% if message.role == "assistant" %} {{ message.content }}{{ eos_token }}\
{% else %}[INST] {{ message.content }} [/INST]{% endif %}{% endfor %}"""
# Thinks before it answers, unless it is told not to.
THINKING = """\
{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.role == "assistant" and loop.last %}<think>

</think>

{% endif %}{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""
DROPPING = CHATML.replace("messages %}", 'messages if message.role != "system" %}')

TEMPLATES = {"chatml": CHATML, "headers": HEADERS, "turns": TURNS, "instructions": INSTRUCTIONS, "thinking": THINKING}
ENDS = {
    "chatml": "<|im_end|>",
    "headers": "<|eot|>",
    "turns": "<end_of_turn>",
    "instructions": "</s>",
    "thinking": "<|im_end|>",
}
_TOKENS = ["<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<|eot|>", "<start_of_turn>", "<end_of_turn>"]


def chat_tokenizer(template: str, *, adds_start: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a template and its tokens; called on a text, it adds a start token, as Llama's does."""
    tokenizer = tiny.causal_tokenizer("<s> $A" if adds_start else None)
    tokenizer.add_tokens(_TOKENS, special_tokens=True)
    tokenizer.pad_token = "<unk>"
    tokenizer.chat_template = template
    return tokenizer
