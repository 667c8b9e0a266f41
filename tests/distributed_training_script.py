"""Trains in two processes, unbroken and from a checkpoint; run by `test_distributed.py`."""

import json
import sys
from pathlib import Path

import tiny
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from datasets import Dataset

from recross_hf import ExampleTrainer, ExampleTrainingArguments, load_examples
from recross_hf.core.distributed import end_process_group

SETTINGS = {
    "random": {"per_device_train_batch_size": 5},
    "budget": {"token_budget": 160, "mixing_temperature": 1.5},
    "half": {"per_device_train_batch_size": 5, "bf16": True},
}


def train(folder: Path, settings: dict, resume_from: str | None = None) -> ExampleTrainer:
    tokenizer = tiny.tokenizer()
    args = ExampleTrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        disable_tqdm=True,
        num_train_epochs=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        save_strategy="steps",
        save_steps=1,
        max_target_length=8,
        **settings,
    )
    trainer = ExampleTrainer(tiny.bart(tokenizer), args, train_dataset=tiny.examples(), processing_class=tokenizer)
    trainer.train(resume_from_checkpoint=resume_from)
    return trainer


# Answers of all lengths, one a batch.
ACCUMULATED = [
    ("one", "a"),
    ("two", "a much longer answer than the first"),
    ("three", "two"),
    ("four", "four and five"),
]


def accumulated() -> Dataset:
    """Four examples: of two processes, each has two batches of one in a step."""
    inputs, answers = zip(*ACCUMULATED, strict=True)
    return load_examples(Dataset.from_dict({"input": inputs, "references": [[answer] for answer in answers]}))


def accumulate(output_dir: str) -> None:
    """One step of plain gradient descent over all four, without dropout."""
    tokenizer = tiny.tokenizer()
    args = ExampleTrainingArguments(
        output_dir=output_dir,
        use_cpu=True,
        disable_tqdm=True,
        max_steps=1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        train_sampling_strategy="sequential",
        learning_rate=1.0,
        optim="sgd",
        max_grad_norm=0.0,
        save_strategy="no",
        max_target_length=40,
    )
    model = tiny.bart(tokenizer, dropout=0.0)
    trainer = ExampleTrainer(model, args, train_dataset=accumulated(), processing_class=tokenizer)
    assert trainer.accelerator.num_processes == 2
    trainer.train()
    trainer.save_model()
    end_process_group()


def main(output_dir: str) -> None:
    state = PartialState(cpu=True)
    assert state.num_processes == 2, state
    results = {}
    for name, settings in SETTINGS.items():
        AcceleratorState._reset_state()  # it has the precision of the first trainer
        folder = Path(output_dir) / name
        unbroken = train(folder, settings)
        loader = unbroken.get_train_dataloader()
        steps = unbroken.state.max_steps
        # Within the second epoch, so that its order is needed and not the first one's.
        resumed = train(folder, settings, str(folder / f"checkpoint-{steps // 2 + 1}"))
        computed = []
        hook = (
            unbroken.model.get_decoder()
            .layers[0]
            .fc1.register_forward_hook(lambda module, inputs, output, into=computed: into.append(str(output.dtype)))
        )
        unbroken.predict(tiny.examples().select(range(2)))
        hook.remove()
        pairs = zip(resumed.model.parameters(), unbroken.model.parameters(), strict=True)
        results[name] = {
            "same": gather_object([all(torch.equal(one, other) for one, other in pairs)]),
            "precision": [unbroken.accelerator.mixed_precision, computed[0]],
            "steps": steps,
            "batches": gather_object([len(loader)]),
            "rows": gather_object([sum(len(batch["input_ids"]) for batch in loader)]),
        }
    if state.is_main_process:
        (Path(output_dir) / "results.json").write_text(json.dumps(results))
    end_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
