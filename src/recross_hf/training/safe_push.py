"""Pushes of training: what a `Trainer` puts on the Hub while it trains and when it ends, without pickles."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers import Trainer, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy
from transformers.utils import PushInProgress

from ..hub.safety import SAFE_SUFFIXES, UNSAFE_SUFFIXES


class SafePushTrainer(Trainer):
    """A `Trainer` that pushes safe formats alone: the base class pickles its arguments into what it pushes."""

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        if not self.args.hub_always_push and self.push_in_progress is not None and not self.push_in_progress.is_done():
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        # The upload goes on while older checkpoints are deleted, so it has files of its own.
        for path in Path(checkpoint_folder).iterdir():
            if path.suffix in SAFE_SUFFIXES and path.name != TRAINER_STATE_NAME:
                shutil.copy(path, self.args.output_dir)
        job = HfApi().upload_folder(
            repo_id=self.hub_model_id,
            folder_path=self.args.output_dir,
            commit_message=f"Training in progress, step {self.state.global_step}",
            token=self.args.hub_token,
            run_as_future=True,
            allow_patterns=[f"*{suffix}" for suffix in sorted(SAFE_SUFFIXES)],
            ignore_patterns=["_*", f"{PREFIX_CHECKPOINT_DIR}-*"],
            revision=self.args.hub_revision,
        )
        if self.push_in_progress is None or self.push_in_progress.is_done():
            self.push_in_progress = PushInProgress([job])
        else:
            self.push_in_progress.jobs.append(job)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Pushes `output_dir`, as the base class does.

        Raises:
            ValueError: there are pickles in it.
        """
        folder = Path(self.args.output_dir)
        paths = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix in UNSAFE_SUFFIXES]
        # The base class leaves out what is called so: checkpoints, and what begins with an underscore.
        pickles = [str(path) for path in paths if not path.parts[0].startswith(("_", f"{PREFIX_CHECKPOINT_DIR}-"))]
        if pickles:
            raise ValueError(
                f"Expected safe formats alone in {folder}, found {', '.join(sorted(pickles))}: pickles are not published. Move "
                "them elsewhere, or train into another folder."
            )
        return super().push_to_hub(*args, **kwargs)


def refuse_pickled_pushes(args: TrainingArguments) -> None:
    if args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        raise ValueError(
            f"`hub_strategy` must be 'end' or 'every_save', found {args.hub_strategy.value!r}: whole checkpoints hold the state "
            "of the optimizer as pickles, which are not published."
        )
