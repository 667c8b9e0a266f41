"""The bars of a trainer: they say what they count, and what is logged goes between them or nowhere."""

from __future__ import annotations

from typing import Any

from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback


def use_bars(trainer: Trainer, *, shows_logs: bool) -> None:
    """Gives a trainer bars with names.

    Args:
        trainer: one that shows bars, or prints what it logs in place of them.
        shows_logs: whether losses and speeds are printed as they come; where a table follows they help nobody.
    """
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(_Bars(shows_logs))
    if not shows_logs:
        trainer.remove_callback(PrinterCallback)


class _Bars(ProgressCallback):
    def __init__(self, shows_logs: bool) -> None:
        super().__init__()
        self.shows_logs = shows_logs

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        super().on_train_begin(*args, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description("Training")

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
        super().on_prediction_step(*args, **kwargs)
        if self.prediction_bar is not None:
            self.prediction_bar.set_description("Answering", refresh=False)

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        if self.shows_logs:
            super().on_log(*args, **kwargs)
