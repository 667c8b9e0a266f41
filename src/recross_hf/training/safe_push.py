"""Pushes of training: what a `Trainer` puts on the Hub while it trains and when it ends, without pickles."""

from __future__ import annotations

import shutil
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy

from ..hub.safety import SAFE_SUFFIXES, UNSAFE_SUFFIXES
from ._compat import PushesCheckpoints


class SafePushTrainer(PushesCheckpoints):
    """A `Trainer` that pushes safe formats alone: the base class pickles its arguments into what it pushes."""

    def start_push(self, checkpoint: Path) -> Future[Any]:
        """Starts the upload of a checkpoint's files in safe formats, copied into `output_dir`."""
        output_dir = str(self.args.output_dir)
        # The upload goes on while older checkpoints are deleted, so it has files of its own.
        for path in checkpoint.iterdir():
            if path.suffix in SAFE_SUFFIXES and path.name != TRAINER_STATE_NAME:
                shutil.copy(path, output_dir)
        return HfApi().upload_folder(
            repo_id=str(self.hub_model_id),
            folder_path=output_dir,
            commit_message=f"Training in progress, step {self.state.global_step}",
            token=self.args.hub_token,
            run_as_future=True,
            allow_patterns=[f"*{suffix}" for suffix in sorted(SAFE_SUFFIXES)],
            ignore_patterns=["_*", f"{PREFIX_CHECKPOINT_DIR}-*"],
            revision=self.args.hub_revision,
        )

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Pushes `output_dir`, as the base class does.

        Raises:
            ValueError: `output_dir` holds pickles.
        """
        folder = Path(str(self.args.output_dir))
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
    """Refuses arguments that would push whole checkpoints.

    Raises:
        ValueError: `hub_strategy` is "checkpoint" or "all_checkpoints".
    """
    strategy = HubStrategy(args.hub_strategy)
    if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        raise ValueError(
            f"`hub_strategy` must be 'end' or 'every_save', found {strategy.value!r}: whole checkpoints hold the state "
            "of the optimizer as pickles, which are not published."
        )
