"""The private hooks of transformers, accelerate and PEFT that training and adaptation hold on to.

Each says which versions it was seen in and why nothing public serves; `tests/training/test_compat.py` tests each, so that a version which moved one is
noticed. pyproject.toml keeps transformers and accelerate below the next major version for their sake.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import extract_model_from_parallel
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import HubStrategy
from transformers.utils import PushInProgress

from ..core.output_folders import folder_to_write

if TYPE_CHECKING:
    from peft import PeftConfig

# ---- transformers: methods and attributes of Trainer ----------------------------------------------------------------------


class ScoresEachRowOnce(Trainer):
    """A `Trainer` whose evaluation leaves out the rows that fill the last batch of several processes.

    `Seq2SeqTrainer` sets `gather_function` to `accelerator.gather` before each evaluation, which keeps them, and scores would count rows
    twice. No argument chooses the function. Seen in transformers 5.17 to 5.23.
    """

    @property
    def gather_function(self) -> Any:
        """The function that collects predictions from all processes; what the base classes set is passed over."""
        return self.accelerator.gather_for_metrics

    @gather_function.setter
    def gather_function(self, value: Any) -> None:
        pass


class SavesWithoutPickles(Trainer):
    """A `Trainer` that leaves no pickle of its arguments beside a saved model, and lets a subclass work around saving.

    `Trainer._save` pickles the arguments into `training_args.bin`, and no argument forbids it. `save_model`, which is public, is not called
    by all paths that save and pushes before it returns; `on_save` of a callback comes after the push. Seen in transformers 5.17 to 5.23.
    """

    def saving_to(self, folder: Path) -> AbstractContextManager[None]:
        """The context that a model is saved in, in the process that writes."""
        return nullcontext()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self.args.should_save:  # this process takes part in gathering weights at most
            super()._save(output_dir, state_dict)
            return
        folder = folder_to_write(output_dir or str(self.args.output_dir))
        with self.saving_to(folder):
            super()._save(str(folder), state_dict)
            (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)


class WritesItsOwnModel(Trainer):
    """A `Trainer` whose subclass writes the model itself.

    `Trainer._save` is what writes the model of each checkpoint and of the end, and no argument or callback takes its place; `save_model`, which is
    public, also gathers the weights of several processes and pushes. Seen in transformers 5.17 to 5.23.
    """

    def write_model(self, folder: Path) -> None:
        """Writes the model as it is now into a folder."""
        raise NotImplementedError

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        self.write_model(folder_to_write(output_dir or str(self.args.output_dir)))


class ChoosesItsSampler(Trainer):
    """A `Trainer` whose subclass may choose the order of the training rows.

    `Trainer._get_train_sampler` chooses among those that transformers knows; `get_train_dataloader`, which is public, would have to be written anew
    with the workers, the seeds and the preparation for several processes. Seen in transformers 5.17 to 5.23.
    """

    def training_sampler(self, rows: Any) -> torch.utils.data.Sampler | None:
        """The sampler of the training rows; None takes the base class's."""
        raise NotImplementedError

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        rows = self.train_dataset if train_dataset is None else train_dataset
        sampler = self.training_sampler(rows)
        return super()._get_train_sampler(rows) if sampler is None else sampler


class _LeavesWhatHasEnded(TrainerCallback):
    """Neither evaluates nor saves at the end of an epoch in which nothing was trained."""

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.begun_at = state.global_step

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == self.begun_at >= state.max_steps:
            control.should_evaluate = control.should_save = False


class StaysEnded(Trainer):
    """A `Trainer` that trains no further where the checkpoint that it goes on from is of its last step.

    The base class looks at `max_steps` after a step, so that a finished run whose last epoch is not whole would make one more. Seen in
    transformers 5.23.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(_LeavesWhatHasEnded())

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], torch.Tensor | int | None]:
        """The batches of the next step; none after the last one."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], None
        return super().get_batch_samples(*args, **kwargs)


class PreparesInContext(Trainer):
    """A `Trainer` that lets a subclass work around the preparation of model and optimizer for the devices.

    `Trainer._prepare_for_training` wraps the model in the midst of `train`, after the last callback and method that is public. Seen in
    transformers 5.17 to 5.23.
    """

    def preparing(self) -> AbstractContextManager[None]:
        """The context that model and optimizer are prepared in."""
        return nullcontext()

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> tuple[torch.nn.Module, torch.utils.data.DataLoader]:
        with self.preparing():
            return super()._prepare_for_training(*args, **kwargs)


class PushesCheckpoints(Trainer):
    """A `Trainer` whose subclass says what is uploaded of a checkpoint while the training goes on.

    `Trainer._push_from_checkpoint` pickles the arguments into what it uploads; no argument or callback takes its place, for the base class
    waits for the uploads in `push_in_progress`. Seen in transformers 5.17 to 5.23.
    """

    push_in_progress: Any  # nothing, or a `PushInProgress`

    def start_push(self, checkpoint: Path) -> Future[Any]:
        """Starts the upload of a checkpoint and does not wait for it."""
        raise NotImplementedError

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        if not self.args.hub_always_push and self.push_in_progress is not None and not self.push_in_progress.is_done():
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        job = self.start_push(Path(checkpoint_folder))
        if self.push_in_progress is None or self.push_in_progress.is_done():
            jobs: Any = [job]  # annotated as if it were one job
            self.push_in_progress = PushInProgress(jobs)
        else:
            self.push_in_progress.jobs.append(job)


def take_losses_as_means(model: PreTrainedModel) -> None:
    """Tells a `Trainer` that is made of the model afterwards not to sum its losses over the batches of a step.

    `Trainer` infers from `**kwargs` of `forward` that a model divides its loss by `num_items_in_batch`; BART, T5 and EncoderDecoder take
    `**kwargs` and do not. No argument says so: it is asked of the attribute `accepts_loss_kwargs`, which the documentation of
    transformers does not have. Seen in transformers 5.17 to 5.23.
    """
    vars(model)["accepts_loss_kwargs"] = False


def train_batch_size_in_use(trainer: Trainer) -> int:
    """The number of rows in a batch of this process, as `auto_find_batch_size` may have lowered it.

    `args.train_batch_size` stays as it was asked for, and `state.train_batch_size` is set after the loader was made. Seen in transformers
    5.17 to 5.23.
    """
    return trainer._train_batch_size


# ---- accelerate -----------------------------------------------------------------------------------------------------------


def forget_loader(accelerator: Accelerator, loader: torch.utils.data.DataLoader) -> None:
    """Takes a prepared loader off the accelerator's list.

    The list only grows: an evaluation task by task would keep each loader, its rows and its workers. `free_memory`, which is public, forgets the
    model, too. Seen in accelerate 1.10 to 1.15.
    """
    accelerator._dataloaders.remove(loader)


def loader_of_this_process(
    accelerator: Accelerator, loader: torch.utils.data.DataLoader[Any], *, non_blocking: bool
) -> torch.utils.data.DataLoader[Any]:
    """A loader whose sampler knows its process already, prepared for the device.

    `Accelerator.prepare` would deal its batches out among the processes a second time; `prepare_data_loader`, which is public but not a method
    of the accelerator, can be told that there is one. Seen in accelerate 1.10 to 1.15.
    """
    return prepare_data_loader(
        loader, accelerator.device, num_processes=1, process_index=0, put_on_device=True, non_blocking=non_blocking
    )


def unprepared(copied: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model without what another trainer's accelerator left on it.

    The mixed precision of that accelerator stays around the forward pass, and `_is_accelerate_prepared` would make the next accelerator pass the
    model over. `extract_model_from_parallel`, which is public, undoes the former alone. Seen in accelerate 1.10 to 1.15.
    """
    without: PreTrainedModel = extract_model_from_parallel(copied, keep_fp32_wrapper=False)
    vars(without).pop("_is_accelerate_prepared", None)
    return without


@contextmanager
def shared_weights_in_one_group(model: PreTrainedModel) -> Iterator[None]:
    """While a model is prepared for FSDP2, leaves its embeddings and whatever shares their weights to the outermost group.

    accelerate makes a group of the input and the output embeddings, which suits decoder-only models. Where encoder and decoder share
    a weight with them, FSDP2 would find it in two groups, and refuses that. The layers keep groups of their own. accelerate's plugin takes names
    of classes to group, and no word of what not to group: so it is shown a model without embeddings and with other `_no_split_modules`.
    Seen in accelerate 1.15 with transformers 5.23.
    """
    owners = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    sharing = {
        type(module).__name__
        for module in model.modules()
        if any(owners[id(parameter)] > 1 for parameter in module.parameters())
    }
    seen_by_accelerate = {
        "get_input_embeddings": lambda: None,
        "get_output_embeddings": lambda: None,
        "_no_split_modules": [name for name in model._no_split_modules or () if name not in sharing],
    }
    own = {name: vars(model)[name] for name in seen_by_accelerate if name in vars(model)}
    vars(model).update(seen_by_accelerate)
    try:
        yield
    finally:
        for name in seen_by_accelerate:
            del vars(model)[name]
        vars(model).update(own)


# ---- PEFT -----------------------------------------------------------------------------------------------------------------


def name_base_when_saved(peft_config: PeftConfig, revision: str | None) -> None:
    """Makes PEFT name an adapter's base as it saves the adapter, without a question to the Hub.

    PEFT fills `base_model_name_or_path` in as it saves; where it is filled already, PEFT asks the Hub whether the vocabulary of that base was
    resized, which fails offline and no argument of `Trainer` forbids. Seen in PEFT 0.19 to 0.21.

    Args:
        revision: Commit of the base, which PEFT does not know.
    """
    peft_config.base_model_name_or_path = None
    peft_config.revision = peft_config.revision or revision


def activate_adapter(layers: Sequence[Any], name: str | None) -> None:
    """Switches the LoRA layers of a model in evaluation to one adapter, or to none.

    `PeftModel.set_adapter`, which is public, walks over all modules and asks each weight of each adapter whether it is trained: with twenty
    adapters that takes ten times as long as a switch may. Seen in PEFT 0.19 to 0.21.
    """
    for layer in layers:
        layer._active_adapter = [] if name is None else [name]
