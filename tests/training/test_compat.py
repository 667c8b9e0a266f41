"""Each private hook of transformers, accelerate and PEFT does what the library needs of it in the versions that are installed."""

import copy
import json
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import BartForConditionalGeneration, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainingArguments

from recross_hf import ExampleTrainer, ExampleTrainingArguments
from recross_hf.training import _compat


def arguments(folder: Path, **settings) -> ExampleTrainingArguments:
    settings = {"max_steps": 2, "save_strategy": "no", "max_target_length": 8} | settings
    return ExampleTrainingArguments(output_dir=str(folder), use_cpu=True, disable_tqdm=True, **settings)


def make(kind, bart, tokenizer, examples, folder, **settings):
    return kind(copy.deepcopy(bart), arguments(folder, **settings), processing_class=tokenizer, train_dataset=examples)


# ---- transformers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hooked", "used"), [(True, True), (False, False)])
def test_predictions_are_gathered_without_the_rows_that_fill_the_last_batch(
    hooked, used, bart, tokenizer, examples, tmp_path
):
    class Plain(Seq2SeqTrainer):
        pass

    class Hooked(_compat.ScoresEachRowOnce, Seq2SeqTrainer):
        pass

    rows = [{"input_ids": [0, 5, 2], "labels": [0, 6, 2], "attention_mask": [1, 1, 1]}] * 2
    args = Seq2SeqTrainingArguments(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True)
    args.predict_with_generate = True
    trainer = (Hooked if hooked else Plain)(
        copy.deepcopy(bart), args, eval_dataset=rows, processing_class=tokenizer, compute_metrics=lambda output: {}
    )
    gathered, gather = [], trainer.accelerator.gather_for_metrics
    trainer.accelerator.gather_for_metrics = lambda values: gathered.append(values) or gather(values)
    trainer.evaluate()
    assert bool(gathered) == used  # transformers takes the other function unless it is kept from it


def test_a_model_is_saved_within_the_context_and_without_pickles(bart, tokenizer, examples, tmp_path, monkeypatch):
    seen = []

    class Watched(ExampleTrainer):
        @contextmanager
        def saving_to(self, folder):
            seen.append((folder, (folder / "model.safetensors").exists()))
            with super().saving_to(folder):
                yield
            seen.append((folder, (folder / "model.safetensors").exists()))

    trainer = make(Watched, bart, tokenizer, examples, tmp_path / "out")
    trainer.save_model()
    assert seen == [(tmp_path / "out", False), (tmp_path / "out", True)]
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".safetensors"}
    trainer.save_model(str(tmp_path / "elsewhere"))
    assert seen[-1] == (tmp_path / "elsewhere", True)
    monkeypatch.setattr(TrainingArguments, "should_save", False)  # as in a process that does not write
    trainer.save_model(str(tmp_path / "nowhere"))
    assert len(seen) == 4
    assert not (tmp_path / "nowhere").exists()


def test_model_and_optimizer_are_prepared_within_the_context(bart, tokenizer, examples, tmp_path):
    seen = []

    class Watched(ExampleTrainer):
        @contextmanager
        def preparing(self):
            seen.append(self.optimizer is not None)
            yield
            seen.append(self.optimizer is not None)

    make(Watched, bart, tokenizer, examples, tmp_path).train()
    assert seen == [False, True]


def test_each_checkpoint_is_pushed_and_the_training_waits_for_the_pushes(bart, tokenizer, examples, tmp_path):
    pushed = []

    class Pushing(ExampleTrainer):
        def start_push(self, checkpoint):
            job = Future()
            threading.Timer(0.5, job.set_result, [None]).start()  # which is after the last step
            pushed.append((checkpoint.name, job))
            return job

    settings = {"save_strategy": "steps", "save_steps": 1, "hub_always_push": True}
    trainer = make(Pushing, bart, tokenizer, examples, tmp_path, **settings)
    trainer.args.push_to_hub, trainer.push_in_progress = True, None  # as after the repository was made
    trainer.train()
    assert [name for name, _ in pushed] == ["checkpoint-1", "checkpoint-2"]
    assert all(job.done() for _, job in pushed)
    assert not list(tmp_path.rglob("training_args.bin"))


def test_losses_are_not_summed_over_the_batches_of_a_step(bart, tokenizer, tmp_path):
    args = Seq2SeqTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    model = copy.deepcopy(bart)
    vars(model).pop("accepts_loss_kwargs", None)
    # Were this False, transformers would know by itself, and the hook could go.
    assert Seq2SeqTrainer(model, args).model_accepts_loss_kwargs
    _compat.take_losses_as_means(model)
    assert not Seq2SeqTrainer(model, args).model_accepts_loss_kwargs
    assert not Seq2SeqTrainer(
        get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM")), args
    ).model_accepts_loss_kwargs


def test_the_batch_size_in_use_is_the_lowered_one(bart, tokenizer, examples, tmp_path):
    class OutOfMemory(ExampleTrainer):
        def get_train_dataloader(self):
            sizes.append(_compat.train_batch_size_in_use(self))
            return super().get_train_dataloader()

        def training_step(self, model, inputs, *args, **kwargs):
            if len(inputs["input_ids"]) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().training_step(model, inputs, *args, **kwargs)

    sizes: list[int] = []
    settings = {"per_device_train_batch_size": 5, "auto_find_batch_size": True}
    trainer = make(OutOfMemory, bart, tokenizer, examples, tmp_path, **settings)
    trainer.train()
    assert sizes[0] == 5
    assert sizes[-1] <= 4
    assert trainer.args.train_batch_size == 5


def test_a_trainer_writes_its_own_model_into_each_checkpoint_and_at_the_end(bart, tokenizer, examples, tmp_path):
    class Writing(_compat.WritesItsOwnModel, Seq2SeqTrainer):
        def write_model(self, folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "mine.txt").write_text(str(self.state.global_step))

    args = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path), max_steps=2, save_steps=1, use_cpu=True, disable_tqdm=True, report_to=[]
    )
    rows = [{"input_ids": [0, 5, 2], "labels": [0, 6, 2], "attention_mask": [1, 1, 1]}] * 2
    trainer = Writing(copy.deepcopy(bart), args, train_dataset=rows)
    trainer.train()
    trainer.save_model()
    assert [(tmp_path / name / "mine.txt").read_text() for name in ("checkpoint-1", "checkpoint-2", ".")] == list(
        "122"
    )
    assert not list(tmp_path.rglob("model.safetensors"))
    assert not list(tmp_path.rglob("training_args.bin"))


def test_a_trainer_chooses_the_order_of_its_rows_or_leaves_it_to_the_base_class(bart, tmp_path):
    asked = []

    class Choosing(_compat.ChoosesItsSampler, Seq2SeqTrainer):
        def training_sampler(self, rows):
            asked.append(rows)
            return order

    args = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=1, use_cpu=True, remove_unused_columns=False
    )
    rows = [{"input_ids": torch.tensor([number])} for number in range(6)]
    trainer = Choosing(copy.deepcopy(bart), args, train_dataset=rows)
    order = [4, 1, 3]
    assert [int(batch["input_ids"]) for batch in trainer.get_train_dataloader()] == [4, 1, 3]
    order = None
    assert sorted(int(batch["input_ids"]) for batch in trainer.get_train_dataloader()) == list(range(6))
    assert asked == [rows, rows]


# ---- accelerate --------------------------------------------------------------------------------------------------------


def test_a_loader_that_is_forgotten_is_held_no_more():
    accelerator = Accelerator(cpu=True)
    first, second = (accelerator.prepare(torch.utils.data.DataLoader([1, 2, 3])) for _ in range(2))
    _compat.forget_loader(accelerator, first)
    # `free_memory` and `prepare` go through the same list.
    assert accelerator._dataloaders == [second]


def test_a_loader_of_this_process_has_its_own_batches_and_tells_them_the_epoch():
    class Batches(torch.utils.data.Sampler):
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __len__(self):
            return 2

        def __iter__(self):
            yield from ([[0, 1], [2]] if self.epoch == 0 else [[2], [1, 0]])

    loader = torch.utils.data.DataLoader([10, 20, 30], batch_sampler=Batches())
    accelerator = Accelerator(cpu=True)
    accelerator.state.num_processes, accelerator.state.process_index = 2, 1
    try:
        prepared = _compat.loader_of_this_process(accelerator, loader, non_blocking=False)
    finally:
        accelerator.state.num_processes, accelerator.state.process_index = 1, 0
    assert [batch.tolist() for batch in prepared] == [[10, 20], [30]]
    prepared.set_epoch(1)
    assert [batch.tolist() for batch in prepared] == [[30], [20, 10]]


@pytest.fixture
def half_precision(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


def test_a_copy_has_nothing_of_another_accelerator(half_precision, bart, tokenizer):
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    inputs = tokenizer(["one"], return_tensors="pt") | {"decoder_input_ids": torch.tensor([[2, 0, 9]])}
    seen = []

    def logits_of(model):
        hook = (
            model.get_decoder()
            .layers[0]
            .fc1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
        )
        model(**inputs)
        hook.remove()
        return seen.pop()

    prepared = accelerator.prepare(copy.deepcopy(bart))
    assert logits_of(prepared) == torch.bfloat16
    copied = _compat.unprepared(copy.deepcopy(prepared))
    assert logits_of(copied) == torch.float32
    assert logits_of(prepared) == torch.bfloat16
    assert logits_of(accelerator.prepare(copied)) == torch.bfloat16  # and is not passed over


# ---- PEFT --------------------------------------------------------------------------------------------------------------


def test_a_saved_adapter_names_its_base_and_commit(bart, tmp_path):
    bart.save_pretrained(tmp_path / "base")
    model = get_peft_model(
        BartForConditionalGeneration.from_pretrained(tmp_path / "base"), LoraConfig(task_type="SEQ_2_SEQ_LM")
    )
    (config,) = model.peft_config.values()
    _compat.name_base_when_saved(config, "0123abc")
    model.save_pretrained(tmp_path / "adapter")
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (saved["base_model_name_or_path"], saved["revision"]) == (str(tmp_path / "base"), "0123abc")
    config.revision = "chosen"
    _compat.name_base_when_saved(config, "0123abc")
    assert config.revision == "chosen"


def test_an_activated_adapter_is_the_one_that_peft_would_activate(bart, tokenizer):
    model = get_peft_model(copy.deepcopy(bart), LoraConfig(task_type="SEQ_2_SEQ_LM", init_lora_weights=False), "one")
    model.add_adapter("two", LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, init_lora_weights=False))
    layers = [module for module in model.eval().modules() if isinstance(module, LoraLayer)]
    inputs = tokenizer(["an input"], return_tensors="pt") | {"decoder_input_ids": torch.tensor([[2, 0, 9]])}
    logits = {}
    for name in ("one", "two"):
        model.set_adapter(name)
        logits[name] = model(**inputs).logits
    for name in ("one", "two", "one"):
        _compat.activate_adapter(layers, name)
        assert torch.equal(model(**inputs).logits, logits[name])
    assert not torch.equal(logits["one"], logits["two"])
