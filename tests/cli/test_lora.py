"""LoRA by the flags of the commands: upstream, in an adaptation, merged; what is saved is what PEFT and servers load."""

import json

import pytest
import tiny
import torch
from example_scripts import recross
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from recross_hf import ReCrossPipeline
from recross_hf.cli import lora
from recross_hf.models.adapters import check_plain_lora
from recross_hf.models.generation import generate_texts

FAST = ["--use_cpu", "--max_steps", 2, "--disable_tqdm", "true"]
TRAIN = ["train", "--train_files", "upstream.parquet", "--use_peft", "--learning_rate", 0.01, *FAST]
ADAPT = ["adapt", "tickets.txt", "--num_retrieved", 8, "--max_target_length", 4, *FAST]
MODELS = {
    "bart": (tiny.bart, tiny.tokenizer),
    "gpt2": (tiny.gpt2, tiny.causal_tokenizer),
    "llama": (tiny.llama, lambda: tiny.causal_tokenizer("<s> $A")),
}
LINEAR = {
    "bart": {"q_proj", "v_proj"},  # PEFT's choice
    "gpt2": {"c_attn", "c_proj", "c_fc"},
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
}
AUTO = {"bart": AutoModelForSeq2SeqLM, "gpt2": AutoModelForCausalLM, "llama": AutoModelForCausalLM}

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out")


@pytest.fixture
def folder(tmp_path):
    tiny.examples().to_parquet(tmp_path / "upstream.parquet")
    (tmp_path / "tickets.txt").write_text("My parcel is lost.\nMy bill is wrong.\n")
    return tmp_path


@pytest.mark.parametrize("said", [["--system_prompt", "Be short."], ["--chat_template", "none"]])
@pytest.mark.parametrize("command", ["train", "index"])
def test_what_is_said_of_turns_is_refused_for_a_model_that_reads_texts(command, said, folder):
    write_model("bart", folder)
    words = [command, "--model_name_or_path", "bart", "--train_files", "upstream.parquet", "--output_dir", "out"]
    code, _, told = recross(folder, *words, *said, *(["--use_cpu"] if command == "train" else []))
    assert (code, "Expected a decoder-only model for --chat_template and --system_prompt" in told) == (2, True), told


def write_model(kind, folder):
    tokenizer = MODELS[kind][1]()
    model = MODELS[kind][0](tokenizer, dropout=0.0)
    for one in (model, tokenizer):
        one.save_pretrained(folder / kind)


def succeed(folder, *words):
    code, printed, told = recross(folder, *words)
    assert code == 0, told
    return printed


def check_format(folder, *, rank, base):
    """The rules of an adapter that `PeftModel` and servers load: plain LoRA, PEFT's names, a base that is named."""
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"], settings["base_model_name_or_path"]) == ("LORA", rank, base)
    plain = {"modules_to_save": None, "bias": "none", "use_dora": False, "trainable_token_indices": None}
    assert {name: settings[name] for name in plain} == plain
    weights = load_file(folder / "adapter_model.safetensors")
    sides = {"lora_A.weight": set(), "lora_B.weight": set()}
    for name, weight in weights.items():
        module, _, side = name.removeprefix("base_model.model.").rpartition(".lora_")
        assert name.startswith("base_model.model.")
        sides[f"lora_{side}"].add(module)
        assert weight.shape[0 if side.startswith("A") else 1] == rank
    assert sides["lora_A.weight"] == sides["lora_B.weight"] != set()
    assert {path.suffix for path in folder.iterdir() if path.is_file()} <= {
        *(".json", ".safetensors", ".md", ".jinja", ".txt", ".parquet", ".html", ".png")
    }
    return {module.rpartition(".")[2] for module in sides["lora_A.weight"]}


@pytest.mark.parametrize("kind", MODELS)
def test_an_upstream_adapter_is_trained_and_is_plain_lora(kind, folder):
    write_model(kind, folder)
    succeed(folder, *TRAIN, "--model_name_or_path", kind, "--lora_r", 2, "--output_dir", "lora")
    assert check_format(folder / "lora", rank=2, base=kind) == LINEAR[kind]
    base = AUTO[kind].from_pretrained(folder / kind)
    tokenizer = AutoTokenizer.from_pretrained(folder / "lora")
    ids = tokenizer("Add one and three.", return_tensors="pt").input_ids
    model = PeftModel.from_pretrained(base, folder / "lora")
    check_plain_lora(model.peft_config["default"], "the adapter")
    with torch.no_grad(), model.disable_adapter():
        before = model.generate(
            input_ids=ids, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    after = model.generate(
        input_ids=ids, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    assert not torch.equal(before.logits[0], after.logits[0])
    card = (folder / "lora" / "README.md").read_text()
    assert "library_name: peft" in card
    assert f'{AUTO[kind].__name__}.from_pretrained("{kind}")' in card
    assert "| sum | 12 |" in card


def test_a_killed_upstream_training_of_an_adapter_goes_on(folder):
    write_model("llama", folder)
    words = [*TRAIN, "--model_name_or_path", "llama", "--lora_r", 2, "--save_steps", 1]
    succeed(folder, *words, "--output_dir", "whole")
    succeed(folder, *words, "--output_dir", "killed")
    for name in ("checkpoint-2", "adapter_model.safetensors"):
        path = folder / "killed" / name
        path.rename(folder / name)
    succeed(folder, *words, "--output_dir", "killed", "--resume_from_checkpoint", "true")
    found, expected = (load_file(folder / name / "adapter_model.safetensors") for name in ("killed", "whole"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    # An adapter is trained further by its name, without a flag.
    words = ["train", "--train_files", "upstream.parquet", "--model_name_or_path", "whole", "--learning_rate", 0.01]
    succeed(folder, *words, *FAST, "--output_dir", "further")
    check_format(folder / "further", rank=2, base="llama")
    further = load_file(folder / "further" / "adapter_model.safetensors")
    assert not all(torch.equal(further[name], value) for name, value in expected.items())


def test_what_does_not_go_with_lora_is_told_in_a_line(folder, monkeypatch):
    write_model("gpt2", folder)
    words = [*TRAIN, "--model_name_or_path", "gpt2", "--output_dir", "lora"]
    for added, message in (
        (
            ["--freeze_embeddings"],
            "--freeze_embeddings: for a model all of whose weights are trained, found with --use_peft",
        ),
        (["--load_in_4bit"], "Expected a GPU with CUDA for --load_in_4bit, found none"),
        (["--lora_target_modules", "zzz"], "Expected `target_modules` that GPT2LMHeadModel has, such as c_attn"),
    ):
        code, _, told = recross(folder, *words, *added)
        assert (code, message in told, told.count("\n")) == (2, True, 1), told
    code, _, told = recross(folder, *(word for word in words if word != "--use_peft"), "--load_in_4bit")
    assert (code, "--load_in_4bit needs --use_peft" in told) == (2, True)
    monkeypatch.setattr(lora.torch.cuda, "is_available", lambda: True)
    code, _, told = recross(folder, *words, "--load_in_4bit")
    assert (code, "pip install 'recross_hf[qlora]'" in told) == (2, True)
    assert not (folder / "lora").exists()


def test_a_merged_adaptation_is_a_whole_model(folder):
    words = [*ADAPT, "--use_peft", "--lora_r", 2, "--learning_rate", 0.01]
    succeed(folder, *words, "-o", "merged", "--merge")
    assert "adapter_config.json" not in {path.name for path in (folder / "merged").iterdir()}
    succeed(folder, *words, "-o", "lora")
    card = (folder / "merged" / "README.md").read_text()
    assert "| `adapter` | merged into the weights |" in card
    assert "library_name: transformers" in card
    inputs = tiny.examples()["input"][:6]
    merged = ReCrossPipeline.from_pretrained(folder / "merged", device="cpu")
    assert merged(inputs) == ReCrossPipeline.from_pretrained(folder / "lora", device="cpu")(inputs)
    plain = AutoModelForSeq2SeqLM.from_pretrained(folder / "merged")
    answers = generate_texts(plain, merged.processing_class, inputs, max_new_tokens=4)
    assert answers == merged(inputs, num_beams=1)
    code, _, told = recross(folder, *ADAPT, "-o", "other", "--merge")
    assert (code, "--merge needs an adapter to merge" in told) == (2, True)
