"""`Training`: one visitor's adaptation in a thread of its own, with how far it is, and a way to stop it."""

from __future__ import annotations

import copy
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from ..adaptation.adapter import RetrievalAugmentedAdapter
from ..adaptation.arguments import AdaptationArguments
from ..adaptation.results import adaptation_results
from ..adaptation.retrieval import timed
from ..models.shared_weights import base_alone, on_shared_weights
from ..pipeline.bases import ADAPTER_CONFIG, naming_base
from ..pipeline.pipeline import ReCrossPipeline
from ..training.checkpoints import ARGUMENTS_FILE
from .adapted_visit import ADAPTER_FOLDER, AdaptedVisit, ten_lines
from .served import ServedPipeline
from .visits import Visit

if TYPE_CHECKING:
    from peft import PeftConfig

TRAINING = "Training"


class TrainingStoppedError(Exception):
    """A visitor did not want to wait, or left."""


@dataclass(frozen=True)
class Progress:
    """How far an adaptation is.

    Args:
        stage: What is being done.
        step: Steps of the training that are done.
        steps: Steps of the training.
        seconds_left: Seconds that the training will take from now on; None where that is not known yet.
    """

    stage: str
    step: int
    steps: int
    seconds_left: float | None = None


class Training:
    """An adaptation that goes on while the page tells how far it is.

    Trainings come one after another, also where a visitor left in the middle of one. What a stopped one learned is thrown away.

    Args:
        served: The pipeline.
        visit: The visitor, with inputs and what was retrieved for them.
        settings: Fields of [`AdaptationArguments`][recross_hf.AdaptationArguments] that the visitor chose.

    Attributes:
        is_cancelled: Stops it, once it is set.
    """

    WAITING = "Waiting for its turn"

    def __init__(self, served: ServedPipeline, visit: Visit, **settings: Any) -> None:
        if visit.given is None or visit.found is None:
            raise ValueError("Expected inputs and what was retrieved for them, found none. Retrieve first.")
        self.served, self.visit, self.settings = served, visit, settings
        self.given, self.found = visit.given, visit.found
        self.is_cancelled = visit.is_cancelled
        self.progress = Progress(self.WAITING, 0, 0)
        self.result: AdaptedVisit | None = None
        self.error: Exception | None = None
        self._seconds: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="recross-training", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits at most so long, and says whether it is over."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def check_goes_on(self) -> None:
        """Stops the thread that asks where the visitor does not want to wait any more.

        Raises:
            TrainingStoppedError: The visitor does not.
        """
        if self.is_cancelled.is_set():
            raise TrainingStoppedError

    def _run(self) -> None:
        with self.visit.in_use():
            try:
                while not self.served.one_at_a_time.acquire(timeout=0.2):
                    self.check_goes_on()
                try:
                    self.check_goes_on()
                    self.result = self._adapted()
                finally:
                    self.served.one_at_a_time.release()
            except TrainingStoppedError:
                pass
            except Exception as error:  # the thread that shows it raises it
                self.error = error

    def _adapted(self) -> AdaptedVisit:
        folder = self.visit.folder / ADAPTER_FOLDER
        args = self.served.arguments(**self.settings, output_dir=str(folder))
        self._tell("Getting ready", 0, args.max_steps)
        config = self.served.peft_config()
        adapter = self._adapter(args, config)
        before = self._answered("Answering as it is", adapter, "base")
        with timed(self._seconds, "train"):
            self._tell(TRAINING, 0, args.max_steps)
            adapter.train()
        self.check_goes_on()
        after = self._answered("Answering anew", adapter, "adapted")
        before |= {text: answers[0] for text, answers in adapter.gate_answers.items()}
        after |= {text: answers[1] for text, answers in adapter.gate_answers.items()}
        self._tell("Writing the adapter", args.max_steps, args.max_steps)
        self._write(adapter, folder)
        self.check_goes_on()
        record, texts = adapter.adaptation, self.given.texts
        return AdaptedVisit(
            pipeline=self._on_shared_weights(adapter, folder),
            given=self.given,
            found=self.found,
            results=adaptation_results(record, self.found.retrieved, task=self.given.task, seconds=self._seconds),
            settings={**record.settings, **record.decoding},
            answers=([before[text] for text in texts], [after[text] for text in texts]),
            folder=folder,
            code=self._code(args, config),
        )

    def _adapter(self, args: AdaptationArguments, config: PeftConfig | None) -> RetrievalAugmentedAdapter:
        own = copy.copy(self.served.base)
        with self.served.lock:
            # A tokenizer cannot be used by two threads at once, and others go on asking for answers.
            own.processing_class = copy.deepcopy(own.processing_class)
            # Nor is the model copied while it answers, which hangs hooks on it.
            adapter = own.adapter(
                self.given.inputs,
                args,
                retriever=self.served.retriever(self.found.excluded),
                peft_config=config,
                eval_dataset=self.given.labelled,
                callbacks=[_Watch(self)],
            )
        adapter.retrieved = self.found.retrieved
        adapter.remove_callback(PrinterCallback)
        return adapter

    def _write(self, adapter: RetrievalAugmentedAdapter, folder: Path) -> None:
        adapter.save_model()
        adapter.create_model_card()
        # Folders of the server are nothing to anybody else.
        (folder / ARGUMENTS_FILE).unlink()
        if self.served.repository is None:
            config_file = folder / ADAPTER_CONFIG
            config_file.write_bytes(naming_base(config_file, None))

    def _code(self, args: AdaptationArguments, config: PeftConfig | None) -> str:
        chosen = ("learning_rate", "max_steps", "num_retrieved", "gate")
        of_config, place = ("task_type", "r", "lora_alpha", "target_modules"), self.served.repository
        return ten_lines(
            self.served.name if place is None else place.repo_id,
            None if place is None else place.revision,
            settings={name: getattr(args, name) for name in chosen},
            lora=None if config is None else {name: getattr(config, name) for name in of_config},
            retriever=type(self.served.retriever([])).__name__,
            excluded=self.found.excluded,
        )

    def _answered(self, stage: str, adapter: RetrievalAugmentedAdapter, prefix: str) -> dict[str, str]:
        """The answers to the inputs that the gate does not answer anyway, and scores where there are labels."""
        self._tell(stage, self.progress.step, self.progress.steps)
        by_gate = {*adapter.answered_by_gate()}
        others = [text for text in dict.fromkeys(self.given.texts) if text not in by_gate]
        with timed(self._seconds, stage.lower()):
            answers = dict(zip(others, adapter.answer(others) if others else [], strict=True))
            self.check_goes_on()
            if self.given.labelled is not None:
                adapter.evaluate(metric_key_prefix=prefix)
        return answers

    def _on_shared_weights(self, adapter: RetrievalAugmentedAdapter, folder: Path) -> ReCrossPipeline:
        """The adapted pipeline with the adapter alone in memory: its base's weights are those that everybody uses."""
        pipeline = self.served.base.adapted(adapter)
        with self.served.lock:
            base = base_alone(self.served.base.upstream_model)
        model: Any = on_shared_weights(base, folder)
        pipeline.adapted_model = model.eval().requires_grad_(False)
        return pipeline

    def _tell(self, stage: str, step: int, steps: int, seconds_left: float | None = None) -> None:
        self.progress = Progress(stage, step, steps, seconds_left)

    def stepped(self, step: int, steps: int, seconds: float) -> None:
        """Notes that a step of the training is done.

        Args:
            step: Steps that are done.
            steps: Steps that there are.
            seconds: Seconds that those took.
        """
        self._tell(TRAINING, step, steps, seconds / step * (steps - step) if step else None)


class _Watch(TrainerCallback):
    """Tells how far a training is, and stops it where nobody waits for it."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.start = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.training.check_goes_on()
        self.training.stepped(state.global_step, state.max_steps, time.perf_counter() - self.start)

    def on_prediction_step(self, *_: Any, **__: Any) -> None:
        self.training.check_goes_on()
