"""Chat templates: prompts and answers are what the model's own template gives, whatever their length."""

import copy
import json

import numpy as np
import pytest
import tiny
from chat_templates import CHATML, DROPPING, ENDS, HEADERS, INSTRUCTIONS, TEMPLATES, TURNS, chat_tokenizer
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PythonBackend

from recross_hf import (
    DenseRetriever,
    ExampleTrainer,
    ExampleTrainingArguments,
    MeanPooledEncoder,
    ReCrossPipeline,
    UpstreamIndex,
    load_examples,
)
from recross_hf.data.conversations import Conversation
from recross_hf.models import chat
from recross_hf.models.architectures import DECODER_ONLY, SEQUENCE_TO_SEQUENCE
from recross_hf.models.decoding import one_answer
from recross_hf.models.generation import generate_texts
from recross_hf.models.likelihood import choice_log_likelihoods
from recross_hf.models.prompt_completion import to_prompt_completion
from recross_hf.models.tokenization import TokenizedExamples
from recross_hf.retrieval.vector_shards import IndexMismatchError

TOKENIZERS = {name: chat_tokenizer(template) for name, template in TEMPLATES.items()}
TURNS_OF_THREE = [
    {"role": "user", "content": "Is the sky blue?"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "And the grass?"},
]
SYSTEM = {"role": "system", "content": "Answer in a word."}


# Names a channel in words before what is answered.
CHANNELS = """\
{% for message in messages %}<|start|>{{ message.role }}{% if message.role == "assistant" %}final<|end|>{% else %}<|end|>{% endif %}\
{{ message.content }}<|eot|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"""


class Letters(PythonBackend):
    """A tokenizer of letters in Python alone."""

    def __init__(self) -> None:
        letters = [chr(code) for code in range(32, 127)]
        self.numbers = {token: number for number, token in enumerate(["<s>", "</s>", "<unk>", *letters])}
        super().__init__(bos_token="<s>", eos_token="</s>", unk_token="<unk>")

    vocab_size = property(lambda self: len(self.numbers))

    def get_vocab(self):
        return dict(self.numbers)

    def _tokenize(self, text, **kwargs):
        return list(text)

    def _convert_token_to_id(self, token):
        return self.numbers.get(token, self.numbers["<unk>"])

    def _convert_id_to_token(self, index):
        return list(self.numbers)[index]

    def convert_tokens_to_string(self, tokens):
        return "".join(tokens)


@pytest.fixture(params=TOKENIZERS)
def name(request):
    return request.param


@pytest.fixture
def tokenizer(name):
    return copy.deepcopy(TOKENIZERS[name])


def own_ids(tokenizer, messages, **settings):
    """What the tokenizer's own method gives, told as the library tells it."""
    settings |= {"enable_thinking": False, "date_string": "26 Jul 2024"}
    return tokenizer.apply_chat_template(messages, **settings)["input_ids"]


@pytest.mark.parametrize("text", ["Is the sky blue?", "zwei\nZeilen, größer", "🙂 <tag> 1+1"])
def test_a_prompt_and_its_answer_are_those_of_the_models_own_template(text, tokenizer):
    asked = [{"role": "user", "content": text}]
    (prompt,) = DECODER_ONLY.prompt_ids(tokenizer, [text], 500)
    assert prompt == own_ids(tokenizer, asked, add_generation_prompt=True)
    (answer,) = DECODER_ONLY.answer_ids(tokenizer, ["yes, it is"], 500)
    assert prompt + answer == own_ids(tokenizer, [*asked, {"role": "assistant", "content": "yes, it is"}])


def test_a_conversation_is_read_turn_by_turn(name, tokenizer):
    (prompt,) = DECODER_ONLY.prompt_ids(tokenizer, [Conversation(TURNS_OF_THREE)], 500)
    assert prompt == own_ids(tokenizer, TURNS_OF_THREE, add_generation_prompt=True)
    assert prompt != DECODER_ONLY.prompt_ids(tokenizer, [str(Conversation(TURNS_OF_THREE))], 500)[0]


def test_the_start_token_is_there_once(name, tokenizer):
    (prompt,) = DECODER_ONLY.prompt_ids(tokenizer, ["Is the sky blue?"], 500)
    assert prompt.count(tokenizer.bos_token_id) == ("bos_token" in TEMPLATES[name])


def test_answers_end_in_the_token_of_the_template(name, tokenizer):
    end = tokenizer.convert_tokens_to_ids(ENDS[name])
    assert DECODER_ONLY.end_id(tokenizer) == end
    model = tiny.llama(tokenizer)
    ends = one_answer(model, tokenizer).get("eos_token_id", model.generation_config.eos_token_id)
    assert end in (ends if isinstance(ends, list) else [ends])


@given(
    text=st.text(min_size=1, max_size=200).filter(str.strip),
    room=st.integers(40, 120),
    side=st.sampled_from(["left", "right"]),
)
def test_a_long_input_loses_text_and_never_the_frame(text, room, side):
    for name in ("chatml", "turns"):
        tokenizer = copy.deepcopy(TOKENIZERS[name])
        tokenizer.truncation_side = side
        (prompt,) = DECODER_ONLY.prompt_ids(tokenizer, [text], room)
        assert len(prompt) <= room
        frame = own_ids(tokenizer, [{"role": "user", "content": "|"}], add_generation_prompt=True)
        place = frame.index(tokenizer("|", add_special_tokens=False)["input_ids"][0])
        assert prompt[:place] == frame[:place]
        assert prompt[-(len(frame) - place - 1) :] == frame[place + 1 :]


def test_the_side_that_is_cut_is_the_tokenizers(tokenizer):
    text = "first " * 30 + "last"
    prompts = {}
    for side in ("left", "right"):
        tokenizer.truncation_side = side
        prompts[side] = tokenizer.decode(DECODER_ONLY.prompt_ids(tokenizer, [text], 100)[0])
    assert "last" in prompts["left"]
    assert "last" not in prompts["right"]
    assert "first" in prompts["right"]


def test_of_a_long_conversation_the_oldest_turns_go_first_and_the_system_prompt_stays():
    tokenizer = copy.deepcopy(TOKENIZERS["chatml"])
    whole = Conversation([SYSTEM, *TURNS_OF_THREE])
    room = len(DECODER_ONLY.prompt_ids(tokenizer, [whole], 500)[0]) - 1
    cut = tokenizer.decode(DECODER_ONLY.prompt_ids(tokenizer, [whole], room)[0])
    assert "Answer in a word." in cut
    assert "And the grass?" in cut
    assert "Is the sky blue?" not in cut
    assert "yes" not in cut


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_cut_prompt_keeps_text_of_its_last_user_turn_before_older_turns(side):
    tokenizer = copy.deepcopy(TOKENIZERS["chatml"])
    tokenizer.truncation_side = side
    older, last = {"role": "user", "content": "long ago " * 20}, {"role": "user", "content": "Is the grass green?"}
    own = own_ids(tokenizer, [last], add_generation_prompt=True)
    for turns in ([older, last], [SYSTEM, older, last], [older, TURNS_OF_THREE[1], older, last]):
        room = len(own) + 8 + 30 * (turns[0] is SYSTEM)
        cut = tokenizer.decode(DECODER_ONLY.prompt_ids(tokenizer, [Conversation(turns)], room)[0])
        assert ("Is the grass green?" in cut, "long ago" in cut) == (True, False)
        assert ("Answer in a word." in cut) == (turns[0] is SYSTEM)
    blank = " \n" * 60
    for text in (f"green{blank}", f"{blank}green"):
        cut = tokenizer.decode(DECODER_ONLY.prompt_ids(tokenizer, [text], len(own))[0])
        assert cut == tokenizer.decode(
            own_ids(tokenizer, [{"role": "user", "content": "green"}], add_generation_prompt=True)
        )


def test_a_template_that_drops_the_last_user_turn_is_refused():
    tokenizer = chat_tokenizer(CHATML.replace("{{ message.content }}", "{{ message.content if not loop.last }}"))
    for text in ("Is it?", Conversation(TURNS_OF_THREE)):
        with pytest.raises(ValueError, match="found that it drops the user turn"):
            chat.prompt_ids(tokenizer, [text], 500)


def test_a_frame_without_room_for_text_is_refused(tokenizer):
    with pytest.raises(ValueError, match="Expected room for the chat template's own tokens"):
        DECODER_ONLY.prompt_ids(tokenizer, ["Is the sky blue?"], 3)


@given(text=st.text(min_size=1, max_size=60).filter(str.strip), length=st.integers(1, 30))
def test_an_answer_of_any_length_ends(text, length):
    for name, tokenizer in TOKENIZERS.items():
        try:
            (ids,) = DECODER_ONLY.answer_ids(tokenizer, [text], length)
        except ValueError as error:  # a template that strips more than `strip` does
            assert "drops that of" in str(error)
            continue
        assert 1 <= len(ids) <= length
        assert tokenizer.convert_tokens_to_ids(ENDS[name]) in ids


def test_a_system_prompt_is_read_and_saved(tmp_path):
    tokenizer = chat_tokenizer(CHATML)
    chat.set_chat_format(tokenizer, system_prompt="Be short.")
    tokenizer.save_pretrained(tmp_path)
    for held in (tokenizer, copy.deepcopy(tokenizer), AutoTokenizer.from_pretrained(tmp_path)):
        (prompt,) = DECODER_ONLY.prompt_ids(held, ["Is the sky blue?"], 500)
        asked = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Is the sky blue?"}]
        assert prompt == own_ids(held, asked, add_generation_prompt=True)
        own = Conversation([SYSTEM, {"role": "user", "content": "Is the sky blue?"}])
        assert "Be short." not in held.decode(DECODER_ONLY.prompt_ids(held, [own], 500)[0])
    chat.set_chat_format(tokenizer, system_prompt="")
    assert chat.system_prompt_of(tokenizer) is None


def test_the_template_of_a_file_or_none_takes_the_place_of_the_tokenizers(tmp_path):
    tokenizer, path = chat_tokenizer(CHATML), tmp_path / "turns.jinja"
    path.write_text(TURNS, encoding="utf-8")
    chat.set_chat_format(tokenizer, path)
    assert DECODER_ONLY.prompt_ids(tokenizer, ["x"], 500) == DECODER_ONLY.prompt_ids(TOKENIZERS["turns"], ["x"], 500)
    chat.set_chat_format(tokenizer, "none")
    assert DECODER_ONLY.prompt_ids(tokenizer, ["x"], 500) == [tokenizer("x\n")["input_ids"]]
    with pytest.raises(FileNotFoundError, match=r"Expected 'auto', 'none' or a file"):
        chat.set_chat_format(tokenizer, tmp_path / "nothere.jinja")
    with pytest.raises(ValueError, match=r"found one without\. Pass `chat_template`"):
        chat.set_chat_format(tokenizer, system_prompt="Be short.")


@pytest.mark.parametrize(
    ("template", "messages", "told"),
    [
        (
            TURNS,
            [SYSTEM, TURNS_OF_THREE[0]],
            "takes the turns system, user, found that it refuses them: There is no system role",
        ),
        (
            TURNS,
            [TURNS_OF_THREE[0], TURNS_OF_THREE[2]],
            "user, user, found that it refuses them: Roles must alternate",
        ),
        (DROPPING, [SYSTEM, TURNS_OF_THREE[0]], "it drops the system turn 'Answer in a word.'"),
        ("{{ broken(", [TURNS_OF_THREE[0]], "Expected a chat template that takes the turns user"),
    ],
)
def test_turns_that_the_template_does_not_take_are_named(template, messages, told):
    tokenizer, text = chat_tokenizer(template), Conversation(messages)
    with pytest.raises(ValueError, match=told):
        DECODER_ONLY.prompt_ids(tokenizer, [text], 500)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (
            CHATML.replace("{{ message.content }}", '{{ message.content if message.role == "user" }}'),
            "drops that of 'yes'",
        ),
        (CHATML.replace("<|im_start|>assistant\n", "<|im_start|>bot\n"), "whose answers begin as its prompts end"),
        (CHANNELS, "between its prompts' end and an answer's text, found 'final'"),
    ],
)
def test_a_template_that_answers_otherwise_is_refused(template, told):
    with pytest.raises(ValueError, match=told):
        chat.set_chat_format(chat_tokenizer(template))


def test_special_tokens_before_an_answer_are_none_of_its_text():
    tokenizer = chat_tokenizer(CHANNELS.replace("final", ""))
    chat.set_chat_format(tokenizer)
    ids = chat.answer_ids(tokenizer, ["yes"], 50)[0]
    assert tokenizer.decode(ids) == "<|end|>yes<|eot|>"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "yes"


def test_a_tokenizer_without_offsets_cuts_long_inputs():
    tokenizer = Letters()
    tokenizer.chat_template = INSTRUCTIONS
    for side in ("left", "right"):
        tokenizer.truncation_side = side
        (ids,) = chat.prompt_ids(tokenizer, ["abc" * 50 + "xyz"], 40)
        text = tokenizer.decode(ids)
        assert len(ids) <= 40
        assert text.startswith("<s>[INST] ") and text.endswith(" [/INST]")
        assert ("abcabc" in text) and ("xyz" in text) == (side == "left")
    with pytest.raises(ValueError, match="Expected room for the chat template's own tokens"):
        chat.prompt_ids(tokenizer, ["abc"], 3)


def test_the_code_of_cards_asks_with_the_prompt_that_was_trained_on(tokenizer):
    asked = []

    class Model:
        def generate(self, input_ids, **settings):
            asked.append((input_ids[0].tolist(), settings["eos_token_id"]))
            return input_ids

    exec(chat.usage(tokenizer, ""), {"tokenizer": tokenizer, "model": Model()})
    (prompt,) = chat.prompt_ids(tokenizer, ["an input of the task"], 500)
    assert asked == [(prompt, chat.answer_end_id(tokenizer))]


def test_the_day_does_not_change_what_is_read(monkeypatch):
    shown = HEADERS.replace("date_string if date_string is defined else ", "")
    (prompt,) = DECODER_ONLY.prompt_ids(chat_tokenizer(shown), ["x"], 500)
    assert "Today is 26 Jul 2024." in chat_tokenizer(shown).decode(prompt)


def test_a_model_with_an_encoder_reads_the_text(tokenizer):
    text = Conversation([SYSTEM, *TURNS_OF_THREE])
    assert SEQUENCE_TO_SEQUENCE.prompt_ids(tokenizer, [text], 500) == [tokenizer(str(text))["input_ids"]]


def test_training_generation_likelihoods_and_vectors_read_the_same_prompt(tokenizer):
    model = tiny.llama(tokenizer, dropout=0.0)
    rows = {
        "messages": [
            [*TURNS_OF_THREE, {"role": "assistant", "content": "green"}],
            [TURNS_OF_THREE[0], {"role": "assistant", "content": "yes"}],
        ]
    }
    examples = load_examples(Dataset.from_dict(rows), task="chat")
    prompts = [own_ids(tokenizer, messages[:-1], add_generation_prompt=True) for messages in rows["messages"]]
    items = TokenizedExamples(examples, tokenizer, 200, 50, architecture=DECODER_ONLY)
    assert [item["input_ids"] for item in items] == prompts
    wholes = [own_ids(tokenizer, messages) for messages in rows["messages"]]
    assert [item["input_ids"] + item["labels"] for item in items] == wholes
    texts = [Conversation(TURNS_OF_THREE), TURNS_OF_THREE[0]["content"]]
    seen = []
    generate = model.generate
    model.generate = lambda **settings: seen.append(settings["input_ids"]) or generate(**settings)
    generate_texts(model, tokenizer, texts, max_input_length=200, max_new_tokens=2, token_budget=1)
    assert sorted(ids[0].tolist() for ids in seen) == sorted(prompts)
    found = choice_log_likelihoods(model, tokenizer, texts, [["green", "blue"], ["yes"]], max_input_length=100)
    again = choice_log_likelihoods(model, tokenizer, [str(texts[0])], [["green", "blue"]], max_input_length=100)
    assert not np.allclose(found[0], again[0])
    vectors = MeanPooledEncoder(model, tokenizer).encode([*texts, str(texts[0])])
    assert not np.allclose(vectors[0], vectors[2])


def test_an_index_knows_the_template_and_the_turns(tmp_path):
    tokenizer = chat_tokenizer(CHATML)
    model = tiny.llama(tokenizer)
    rows = [[*TURNS_OF_THREE, {"role": "assistant", "content": str(n)}] for n in range(4)]
    examples = load_examples(Dataset.from_dict({"messages": rows}), task="chat")
    index = UpstreamIndex.build(examples, MeanPooledEncoder(model, tokenizer), tmp_path / "index")
    assert index.config["encoder"].items() >= chat.chat_identity(tokenizer).items()
    again = UpstreamIndex.from_pretrained(tmp_path / "index", encoder=MeanPooledEncoder(model, tokenizer))
    assert again.dataset["messages"][:] == examples["messages"][:]
    other = chat_tokenizer(HEADERS)
    with pytest.raises(ValueError, match="built with another encoder"):
        UpstreamIndex.from_pretrained(tmp_path / "index", encoder=MeanPooledEncoder(model, other))


def test_a_pipeline_adapts_answers_and_is_saved_with_conversations(examples, tmp_path):
    tokenizer = chat_tokenizer(CHATML)
    model = tiny.llama(tokenizer, dropout=0.0)
    labelled = load_examples(
        {
            "messages": [
                [
                    SYSTEM,
                    {"role": "user", "content": example["input"]},
                    {"role": "assistant", "content": example["references"][0]},
                ]
                for example in examples
            ],
            "task": examples["task"][:],
        }
    )
    pipeline = ReCrossPipeline.build(
        model, tokenizer, labelled, tmp_path / "pipeline", adaptation={"max_target_length": 8}
    )
    messages = [SYSTEM, {"role": "user", "content": "Which colour has the sky?"}]
    adapted = pipeline.adapt([messages, messages[1:]], num_retrieved=4, max_steps=1, learning_rate=1e-2)
    assert len(adapted.retrieved["messages"][0]) == 2
    answers = adapted([messages, messages[1:]])
    assert adapted(messages) == answers[0]
    assert adapted({"messages": messages}) == answers[0]
    adapted.save_pretrained(tmp_path / "adapted")
    opened = ReCrossPipeline.from_pretrained(tmp_path / "adapted")
    assert opened([messages, messages[1:]]) == answers
    assert opened.retrieved["messages"][:] == adapted.retrieved["messages"][:]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda tokenizer: chat.set_chat_format(tokenizer, system_prompt="Be short."), "system_prompt"),
        (lambda tokenizer: setattr(tokenizer, "chat_template", HEADERS), "chat_template_sha256"),
        (lambda tokenizer: chat.set_chat_format(tokenizer, "none"), "chat_template_sha256, separator"),
        (lambda tokenizer: setattr(tokenizer, "truncation_side", "left"), "truncation_side"),
    ],
)
def test_a_pipeline_whose_inputs_are_read_otherwise_than_its_index_neither_retrieves_nor_is_saved(
    change, named, examples, tmp_path
):
    tokenizer = chat_tokenizer(CHATML)
    ReCrossPipeline.build(tiny.llama(tokenizer), tokenizer, examples, tmp_path / "built")
    opened = ReCrossPipeline.from_pretrained(tmp_path / "built")
    assert len(opened.index) == len(examples)
    inputs = examples["input"][:3]
    assert len(DenseRetriever(opened.index).retrieve(inputs, 4)) == 4
    change(opened.processing_class)
    read_name = named.split(", ")[-1]
    with pytest.raises(
        IndexMismatchError, match=rf"found another {read_name}: how the tokenizer reads inputs was changed"
    ):
        DenseRetriever(opened.index).retrieve(inputs, 4)
    with pytest.raises(IndexMismatchError, match=rf"found another {read_name}: how"):
        opened.adapt(inputs, max_steps=1, num_retrieved=4, use_cpu=True, disable_tqdm=True)
    assert opened.parts.is_modified("upstream_model")
    with pytest.raises(IndexMismatchError, match=rf"found one of another {named}: how the tokenizer reads inputs was"):
        opened.save_pretrained(tmp_path / "saved")
    built = ReCrossPipeline.build(opened.upstream_model, opened.processing_class, examples, tmp_path / "again")
    again = ReCrossPipeline.from_pretrained(tmp_path / "again")
    assert again(examples["input"][:4]) == built(examples["input"][:4])
    assert len(again.index) == len(examples)


def test_a_system_prompt_that_is_dropped_or_put_back_is_noticed_at_the_next_retrieval(examples, tmp_path):
    tokenizer = chat_tokenizer(CHATML)
    chat.set_chat_format(tokenizer, system_prompt="Be short.")
    index = ReCrossPipeline.build(tiny.llama(tokenizer), tokenizer, examples, tmp_path).index
    found = DenseRetriever(index).retrieve(examples["input"][:3], 4)["id"][:]
    chat.set_chat_format(tokenizer, system_prompt="")
    with pytest.raises(IndexMismatchError, match="found another system_prompt"):
        DenseRetriever(index).retrieve(examples["input"][:3], 4)
    chat.set_chat_format(tokenizer, system_prompt="Be short.")
    assert DenseRetriever(index).retrieve(examples["input"][:3], 4)["id"][:] == found


def test_a_pipeline_that_was_written_without_templates_reads_none(examples, tmp_path):
    tokenizer, path = chat_tokenizer(CHATML), tmp_path / "recross.json"
    ReCrossPipeline.build(tiny.llama(tokenizer), tokenizer, examples, tmp_path)
    assert ReCrossPipeline.from_pretrained(tmp_path).processing_class.chat_template == CHATML
    manifest = json.loads(path.read_text())
    assert manifest["encoder"].pop("chat_template") is True
    path.write_text(json.dumps(manifest))  # as versions before wrote it
    assert ReCrossPipeline.from_pretrained(tmp_path).processing_class.chat_template is None


def test_an_adaptation_to_other_turns_of_the_same_text_is_not_resumed(examples, tmp_path):
    tokenizer = chat_tokenizer(CHATML)
    pipeline = ReCrossPipeline.build(tiny.llama(tokenizer), tokenizer, examples, tmp_path / "built")
    inputs = [[SYSTEM, {"role": "user", "content": text}] for text in ("Is it late?", "Is it so?")]
    args = {"num_retrieved": 4, "max_steps": 1, "save_steps": 1, "save_strategy": "steps", "gate": "off"}
    args["output_dir"] = str(tmp_path / "out")
    pipeline.adapter(inputs, pipeline.arguments(**args)).train()
    pipeline.adapter(inputs, pipeline.arguments(**args)).train(resume_from_checkpoint=True)
    texts = ["\n\n".join(turn["content"] for turn in turns) for turns in inputs]
    with pytest.raises(ValueError, match="found `queries`"):
        pipeline.adapter(texts, pipeline.arguments(**args)).train(resume_from_checkpoint=True)


def test_examples_are_handed_to_trl_as_turns_or_texts(examples):
    tokenizer = chat_tokenizer(CHATML)
    chat.set_chat_format(tokenizer, system_prompt="Be short.")
    rows = to_prompt_completion(examples, tokenizer)
    first = rows[0]
    assert first["prompt"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": examples[0]["input"]},
    ]
    assert first["completion"] == [{"role": "assistant", "content": examples[0]["references"][0]}]
    assert first["task"] == examples[0]["task"]
    ids = own_ids(tokenizer, first["prompt"] + first["completion"])
    item = TokenizedExamples(examples, tokenizer, 500, 50, architecture=DECODER_ONLY)[0]
    assert item["input_ids"] + item["labels"] == ids
    tokenizer.chat_template = None
    plain = to_prompt_completion(examples, tokenizer)[0]
    assert (plain["prompt"], plain["completion"]) == (examples[0]["input"] + "\n", examples[0]["references"][0])
    with pytest.raises(ValueError, match="without 'references'"):
        to_prompt_completion(examples.remove_columns("references"), tokenizer)


def test_training_teaches_the_answer_with_its_end(tmp_path):
    tokenizer = chat_tokenizer(CHATML)
    model = tiny.llama(tokenizer, dropout=0.0)
    rows = {"prompt": ["Is the sky blue?", "Is the coal blue?"], "completion": ["yes", "no"]}
    examples = load_examples(rows)
    args = ExampleTrainingArguments(
        output_dir=str(tmp_path),
        max_steps=60,
        learning_rate=1e-2,
        per_device_train_batch_size=2,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        max_target_length=8,
    )
    trainer = ExampleTrainer(model, args, train_dataset=examples, processing_class=tokenizer)
    trainer.train()
    assert trainer.answer(examples["input"][:]) == ["yes", "no"]
