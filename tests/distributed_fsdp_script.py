"""Trains under FSDP2 in two processes, evaluates, saves and resumes; run by `test_distributed.py`."""

import json
import os
import sys
from pathlib import Path

import tiny
import yaml
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from recross_hf import ExampleTrainer, ExampleTrainingArguments, examples_by_task
from recross_hf.core.distributed import end_process_group

MODELS = ("bart", "t5", "encoder_decoder", "llama")
RESUMED = ("bart",)
RECIPE = Path(__file__).resolve().parents[1] / "examples" / "recipes" / "accelerate" / "fsdp.yaml"
NUM_PREDICTED = 13


def environment() -> dict[str, str]:
    """What `accelerate launch --config_file` would say."""
    settings = yaml.safe_load(RECIPE.read_text())["fsdp_config"]
    return {"ACCELERATE_USE_FSDP": "true"} | {name.upper(): str(value) for name, value in settings.items()}


_begin = PartialState.__init__


def on_accelerators(self: PartialState, *args, **kwargs) -> None:
    """accelerate knows FSDP on accelerators alone; to torch the device makes no difference."""
    _begin(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def model_and_tokenizer(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = tiny.causal_tokenizer("<s> $A") if name == "llama" else tiny.tokenizer()
    return getattr(tiny, name)(tokenizer, dropout=0.0), tokenizer


def trainer_of(name: str, folder: Path, **settings) -> ExampleTrainer:
    model, tokenizer = model_and_tokenizer(name)
    settings = {"max_steps": 3, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1} | settings
    args = ExampleTrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        disable_tqdm=True,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="steps" if name in RESUMED else "no",
        save_steps=2,
        max_target_length=8,
        per_device_eval_batch_size=4,
        **settings,
    )
    examples = tiny.examples()
    tasks = examples_by_task(examples.select(range(20)), max_examples_per_task=7)
    return ExampleTrainer(model, args, train_dataset=examples, eval_dataset=tasks, processing_class=tokenizer)


def main(output_dir: str) -> None:
    os.environ.update(environment())
    PartialState.__init__ = on_accelerators
    state = PartialState(cpu=True)
    assert state.num_processes == 2, state
    results = {}
    for name in MODELS:
        AcceleratorState._reset_state()
        folder = Path(output_dir) / name
        trainer = trainer_of(name, folder)
        assert trainer.accelerator.is_fsdp2
        try:
            trainer.evaluate()
        except RuntimeError as error:
            refused = str(error)
        trainer.train()
        trainer.save_model(str(folder / "trained"))
        metrics = trainer.evaluate()
        predicted = trainer.predict(tiny.examples().shuffle(seed=0).select(range(NUM_PREDICTED)))
        if name in RESUMED:
            resumed = trainer_of(name, folder)
            resumed.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
            resumed.save_model(str(folder / "resumed"))
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        results[name] = {"losses": losses, "metrics": metrics, "refused": refused}
        results[name]["texts"] = trainer.decode(predicted.predictions)
    if state.is_main_process:
        (Path(output_dir) / "results.json").write_text(json.dumps(results))
    end_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
