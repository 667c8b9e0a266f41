"""What is handed to TRL trains there as it trains here."""

import copy

import pytest
import tiny
from chat_templates import TEMPLATES, chat_tokenizer

from recross_hf import ExampleTrainer, ExampleTrainingArguments, set_chat_format, to_prompt_completion
from recross_hf.models.architectures import DECODER_ONLY
from recross_hf.models.tokenization import TokenizedExamples

STEPS = {
    "max_steps": 2,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "per_device_train_batch_size": 4,
    "seed": 1,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
}


def losses(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("name", [*TEMPLATES, None])
def test_the_same_rows_train_the_same_with_sft_trainer(name, tmp_path):
    trl = pytest.importorskip("trl")
    tokenizer = chat_tokenizer(TEMPLATES[name]) if name else tiny.causal_tokenizer("<s> $A")
    if name in ("chatml", "thinking"):
        set_chat_format(tokenizer, system_prompt="Be short.")
    tokenizer.pad_token = "<unk>"
    model, examples = tiny.llama(tokenizer, dropout=0.0), tiny.examples(4)
    args = ExampleTrainingArguments(output_dir=str(tmp_path), max_target_length=24, **STEPS)
    ours = ExampleTrainer(copy.deepcopy(model), args, train_dataset=examples, processing_class=tokenizer)
    theirs = trl.SFTTrainer(
        copy.deepcopy(model),
        trl.SFTConfig(
            output_dir=str(tmp_path),
            max_length=None,
            completion_only_loss=True,
            bf16=False,
            gradient_checkpointing=False,
            **STEPS,
        ),
        train_dataset=to_prompt_completion(examples, tokenizer),
        processing_class=tokenizer,
    )
    items = TokenizedExamples(examples, tokenizer, 500, 50, architecture=DECODER_ONLY)
    assert [item["input_ids"] + item["labels"] for item in items] == [
        list(row["input_ids"]) for row in theirs.train_dataset
    ]
    assert losses(ours) == pytest.approx(losses(theirs), abs=1e-4)
