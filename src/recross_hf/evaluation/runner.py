"""The benchmark: methods x target tasks x query sets."""

from __future__ import annotations

import copy
import gc
import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PrinterCallback

from .._version import __version__
from ..adaptation.arguments import AdaptationArguments
from ..adaptation.results import task_shares
from ..core.hashing import digest_of, weights_hash
from ..core.output_folders import check_apart, check_not_of_others
from ..models.generation import decoding_in_force
from ..models.likelihood import rank_choices
from ..pipeline.pipeline import LENGTHS_AND_BEAMS, ReCrossPipeline
from ..reranking.reranker import RememberingReranker, Reranker
from .cells import CellFiles, CellKey
from .methods import Method
from .overlaps import HANDLINGS, Overlaps, check_overlaps, find_overlaps, without_overlaps
from .results import CELLS_FILE, PREDICTION_FEATURES, Cell, EvaluationResults
from .scoring import floor_answers, score_answers
from .tasks import TargetTask

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 1.0
# What an adaptation says and where it writes changes nothing in what it finds.
_WITHOUT_EFFECT = ("output_dir", "disable_tqdm", "report_to")


def evaluate_methods(
    pipeline: ReCrossPipeline,
    tasks: Sequence[TargetTask],
    methods: Sequence[Method],
    output_dir: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    on_overlap: str = "refuse",
    show_progress: bool = True,
) -> EvaluationResults:
    """Adapts by every method to every query set of every task, and scores what the adapted models answer.

    ```python
    tasks = [load_target_task(folder) for folder in ("target/anli_r3", "target/piqa")]
    results = evaluate_methods(pipeline, tasks, paper_methods(pipeline), "benchmark")
    results.save("benchmark")
    ```

    Every cell is a file below `output_dir`. A killed run continues when it is called again; so does one that another process runs
    with the same arguments at the same time: the cells are shared, and each call returns when all are finished. A cell that fails
    is tried again by the next run. Query set by query set, so that a run that is cut short has all tasks.

    Args:
        tasks: with the test examples and query sets to use ([`TargetTask.limited`]).
        methods: see [`paper_methods`]; those without a retriever are the model as it is, which all query sets share.
        settings: fields of [`AdaptationArguments`] for all methods, beside those of the pipeline. The query set's number is added to
            `seed`.
        on_overlap: what to do about test examples that are queries or upstream, see [`Overlaps`]: "refuse", "drop" (queries out of
            the test set, test examples out of what is retrieved) or "report" in the cells' details.
        show_progress: a bar with the time left.

    Returns:
        The results, with the floors of [`floor_answers`]. A failed cell has an `error` and no predictions.

    Raises:
        OverlapError: test examples are queries or upstream, and `on_overlap` is "refuse".
        CellMismatchError: `output_dir` has a cell of other settings.
        ValueError: names repeat, the pipeline is adapted already, or settings are out of range.
        TypeError: there is no such setting.
    """
    run = prepare_evaluation(pipeline, tasks, methods, output_dir, settings=settings, on_overlap=on_overlap)
    for name in run.tasks:
        if run.overlaps[name].is_upstream:
            logger.warning("Target task %s is an upstream task, too: nothing is retrieved from it here.", name)
    with _quick_collection():
        run.work(show_progress)
    return run.results()


def prepare_evaluation(
    pipeline: ReCrossPipeline,
    tasks: Sequence[TargetTask],
    methods: Sequence[Method],
    output_dir: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    on_overlap: str = "refuse",
) -> EvaluationRun:
    """Checks all that [`evaluate_methods`] refuses, and raises as it does; nothing is computed or written.

    Returns:
        The run, with the tasks as they will be tested.
    """
    _check_arguments(pipeline, tasks, methods, on_overlap)
    check_apart(output_dir, {"the pipeline": pipeline.folder})
    check_not_of_others(output_dir, CELLS_FILE)
    settings = {"disable_tqdm": True, **(settings or {})}
    for method in methods:
        pipeline.arguments(**{**settings, **method.settings})  # what it refuses is said now and not in every cell
    retrievers = [method.retriever_for(0) for method in methods if method.retriever is not None]
    upstreams = {id(retriever.upstream): retriever.upstream for retriever in retrievers}
    overlaps = find_overlaps(tasks, upstreams.values())
    if on_overlap == "refuse":
        check_overlaps(overlaps, tasks)
    if on_overlap == "drop":
        tasks = [without_overlaps(task, overlaps[task.name]) for task in tasks]
    run = EvaluationRun(pipeline, tasks, methods, CellFiles(output_dir), settings, overlaps, on_overlap)
    run.check_finished_cells()
    return run


def _check_arguments(
    pipeline: ReCrossPipeline, tasks: Sequence[TargetTask], methods: Sequence[Method], on_overlap: str
) -> None:
    for kind, named in (("tasks", tasks), ("methods", methods)):
        names = [thing.name for thing in named]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if not names or repeated:
            raise ValueError(
                f"Expected {kind} with different names, found {', '.join(repeated) + ' twice' if names else 'none'}."
            )
    if on_overlap not in HANDLINGS:
        raise ValueError(f"`on_overlap` must be one of {', '.join(HANDLINGS)}, found {on_overlap!r}.")
    if pipeline.adapted_model is not None:
        raise ValueError(
            "Expected a pipeline that was not adapted, found one that was: the benchmark adapts its upstream model. Load the one "
            "that it was made of."
        )


class EvaluationRun:
    """One process's part in a benchmark."""

    def __init__(
        self,
        pipeline: ReCrossPipeline,
        tasks: Sequence[TargetTask],
        methods: Sequence[Method],
        files: CellFiles,
        settings: Mapping[str, Any],
        overlaps: Mapping[str, Overlaps],
        on_overlap: str,
    ) -> None:
        self.pipeline = pipeline
        self.tasks = {task.name: task for task in tasks}
        self.methods = {method.name: method for method in methods}
        self.files = files
        self.settings = settings
        self.overlaps = overlaps
        self.on_overlap = on_overlap
        self.weights = weights_hash(pipeline.upstream_model)
        self.identities: dict[tuple[str, int], dict[str, Any]] = {}
        # Methods that differ in how they choose, and ablations of mu, share a reranker's scores.
        self.rerankers: dict[int, Reranker] = {
            id(method.reranker): RememberingReranker(method.reranker)
            for method in methods
            if method.reranker is not None
        }

    def keys(self) -> list[CellKey]:
        """All cells, in the order in which they are computed."""
        shared = [
            CellKey(name, task)
            for task in self.tasks
            for name, method in self.methods.items()
            if method.retriever is None
        ]
        most = max(len(task.query_sets) for task in self.tasks.values())
        return shared + [
            CellKey(name, task.name, number)
            for number in range(most)
            for task in self.tasks.values()
            if number < len(task.query_sets)
            for name, method in self.methods.items()
            if method.retriever is not None
        ]

    # ---- settings --------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """What adaptations compute on."""
        return self.pipeline.arguments(**self.settings).device

    def arguments_of(self, key: CellKey) -> AdaptationArguments:
        """The settings of a cell's adaptation."""
        chosen = self._chosen(self.methods[key.method])
        chosen.pop("output_dir", None)  # without effect: a cell's adaptation writes nothing
        seed = chosen.get("seed", AdaptationArguments.seed) + max(key.query_set, 0)
        return self.pipeline.arguments(**{**chosen, "seed": seed})

    def _chosen(self, method: Method) -> dict[str, Any]:
        return {**self.pipeline.adaptation, **self.settings, **method.settings}

    def settings_of(self, key: CellKey) -> dict[str, Any]:
        """All that a cell depends on."""
        method, task = self.methods[key.method], self.tasks[key.task]
        common = {"version": __version__, "model": self.weights, "task": task.identity()}
        if (side := self.pipeline.processing_class.truncation_side) != "right":
            common["truncation_side"] = side
        if self.pipeline.upstream_model.generation_config.do_sample:
            common["do_sample"] = False  # what earlier versions found of such a model was drawn at random
        if decoding := self._decoding(key):
            common["decoding"] = decoding
        if method.retriever is None:
            arguments = self.arguments_of(key)
            return common | {"generation": {name: getattr(arguments, name) for name in LENGTHS_AND_BEAMS}}
        return common | {
            "task": task.identity(key.query_set, method.num_queries),
            "method": self._identity_of(method, key),
            "excluded": self._excluded(task),
            "adaptation": {
                name: json.loads(json.dumps(value, default=str))
                for name, value in sorted(self._chosen(method).items())
                if name not in _WITHOUT_EFFECT
            },
        }

    def _decoding(self, key: CellKey) -> dict[str, Any]:
        """Beams, penalties and lengths that change the answers, the model's own among them."""
        beams = self.arguments_of(key).generation_num_beams
        return decoding_in_force(self.pipeline.upstream_model, {"num_beams": beams})

    def _identity_of(self, method: Method, key: CellKey) -> dict[str, Any]:
        seed = _draw_seed(key)
        known = (method.name, seed if callable(method.retriever) else 0)
        if known not in self.identities:
            self.identities[known] = method.identity(seed)
        return self.identities[known]

    def _excluded(self, task: TargetTask) -> dict[str, list[str]]:
        overlaps = self.overlaps[task.name]
        ids = sorted(overlaps.upstream_in_test) if self.on_overlap == "drop" else []
        return {"tasks": [task.name] if overlaps.is_upstream else [], "ids": ids}

    def check_finished_cells(self) -> None:
        """Refuses finished cells of other settings.

        Raises:
            CellMismatchError: there is one.
        """
        for key in self.keys():
            if self.files.is_finished(key):
                settings = self.settings_of(key)
                if "decoding" not in self.files.read(key)["settings"]:
                    settings.pop("decoding", None)  # earlier versions decoded so, too, and did not write it down
                self.files.check(key, settings)

    # ---- work ------------------------------------------------------------------------------------------------------

    def work(self, show_progress: bool) -> None:
        """Computes cells that no other process has or computes, until all are finished or have failed."""
        started, pending = time.time(), self.keys()
        seconds: dict[CellKey, float] = {}
        before = [key for key in pending if self.files.is_finished(key)]
        for key in before:
            seconds[key] = self._seconds_of(key)
        layout = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
        with tqdm(total=len(pending), desc="Cells", bar_format=layout, disable=not show_progress) as progress:
            progress.update(len(before))
            pending = [key for key in pending if key not in seconds]
            while pending:
                held = []
                for place, key in enumerate(pending):
                    if not self._is_done_or_run(key, started):
                        held.append(key)
                        continue
                    progress.update()
                    if self.files.is_finished(key):
                        seconds[key] = self._seconds_of(key)
                    worked = sum(seconds.values()) - sum(seconds[key] for key in before)
                    if worked:
                        # Other processes' cells count, too: the more work, the sooner it is done.
                        rate = worked / (time.time() - started)
                        progress.set_postfix_str(_left(_expected(seconds, [*held, *pending[place + 1 :]]) / rate))
                if len(held) == len(pending):
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
                pending = held

    def _is_done_or_run(self, key: CellKey, started: float) -> bool:
        """Computes a cell if it is free; whether it is finished, or failed since."""
        if self.files.is_finished(key) or self.files.failed_since(key, started):
            return True
        with self.files.claimed(key) as is_mine:
            if not is_mine or self.files.failed_since(key, started):
                return self.files.is_finished(key) or self.files.failed_since(key, started)
            try:
                self.files.write(key, self._compute(key))
            except Exception as error:  # whatever it is, the other cells can do without this one
                self.files.write_failure(key, error)
                logger.warning("The cell %s failed: %s", "/".join(map(str, key)), self.files.failure(key))
            finally:
                gc.collect()  # trainers are cycles, and hold a copy of the model
        return True

    def _seconds_of(self, key: CellKey) -> float:
        return sum(self.files.read(key)["cell"]["seconds"].values())

    def _compute(self, key: CellKey) -> dict[str, Any]:
        method, task = self.methods[key.method], self.tasks[key.task]
        found: dict[str, Any] = {"settings": self.settings_of(key)}
        seconds: dict[str, float] = {}
        cell: dict[str, Any] = {"method": key.method, "task": key.task, "query_set": key.query_set, "seconds": seconds}
        if method.retriever is None:
            cell |= {"kind": "base", "family": method.family or method.name}
            adapted = copy.copy(self.pipeline)
            adapted.adaptation = self.pipeline.adaptation | found["settings"]["generation"]
        else:
            adapted, described, retrieved = self._adapt(method, task, key, seconds)
            cell |= described
            found["retrieved"] = retrieved
        with _timed(seconds, "predict"):
            predictions = adapted(task.test["input"][:], show_progress=False)
        with _timed(seconds, "rank"):
            choices = self._likeliest(adapted, task)
        return found | {"cell": cell, "predictions": predictions, "choices": choices}

    def _adapt(
        self, method: Method, task: TargetTask, key: CellKey, seconds: dict[str, float]
    ) -> tuple[ReCrossPipeline, dict[str, Any], dict[str, list]]:
        with _timed(seconds, "prepare"):
            arguments, queries = self.arguments_of(key), task.query_sets[key.query_set]
            queries = queries.select(range(min(method.num_queries, len(queries))))
            retriever, excluded = method.retriever_for(_draw_seed(key)), self._excluded(task)
            if excluded["tasks"] or excluded["ids"]:
                retriever = retriever.excluding(excluded["tasks"], excluded["ids"])
            adapter = self.pipeline.adapter(
                queries,
                arguments,
                retriever=retriever,
                reranker=self.rerankers.get(id(method.reranker)),
                rerank=method.reranker is not None,
                peft_config=method.peft_config,
            )
            adapter.remove_callback(PrinterCallback)
        adapter.retrieve()
        with _timed(seconds, "train"):
            adapter.train()
        seconds |= adapter.seconds
        seconds["train"] -= adapter.seconds.get("gate", 0.0)
        described = {
            "kind": "method",
            "family": method.family or method.name,
            "num_queries": len(queries),
            "num_retrieved": arguments.num_retrieved,
            "upsampling_ratio": arguments.upsampling_ratio if adapter.selects else None,
            "retrieved_tasks": task_shares(adapter.retrieved),
            "details": {"gate": asdict(adapter.gate)} if adapter.gate is not None else {},
        }
        distances = [None if math.isnan(value) else value for value in adapter.retrieved["distance"]]
        retrieved = {"id": adapter.retrieved["id"][:], "task": adapter.retrieved["task"][:], "distance": distances}
        return self.pipeline.adapted(adapter), described, retrieved

    def _likeliest(self, adapted: ReCrossPipeline, task: TargetTask) -> list[str | None]:
        """Of the answers that a test example may have, the one that the model finds most likely."""
        rows = [row for row, answers in enumerate(task.answers) if answers]
        inputs, answers = task.test["input"][:], [task.answers[row] for row in rows]
        places = rank_choices(
            adapted.model,
            adapted.processing_class,
            [inputs[row] for row in rows],
            answers,
            max_input_length=adapted.arguments().max_input_length,
        )
        choices: list[str | None] = [None] * len(inputs)
        for row, allowed, place in zip(rows, answers, places, strict=True):
            choices[row] = allowed[place]
        return choices

    # ---- results ---------------------------------------------------------------------------------------------------

    def results(self) -> EvaluationResults:
        """All cells in the order of methods, tasks and query sets, and the floors."""
        columns: dict[str, list] = {name: [] for name in PREDICTION_FEATURES}
        cells = []
        methods, names = list(self.methods), list(self.tasks)
        for key in sorted(
            self.keys(), key=lambda key: (methods.index(key.method), names.index(key.task), key.query_set)
        ):
            task, found = self.tasks[key.task], self.files.read(key)
            details: dict[str, Any] = {"overlaps": self.overlaps[key.task].to_json(self.on_overlap)}
            if found is None:
                method = self.methods[key.method]
                kind = "base" if method.retriever is None else "method"
                family, error = method.family or method.name, self.files.failure(key)
                cells.append(Cell(*key, kind=kind, family=family, error=error, details=details))
                continue
            details |= {
                "settings": found["settings"],
                "file": str(self.files.path(key).relative_to(self.files.folder)),
            }
            details |= found["cell"].get("details", {})
            cells.append(Cell(**{**found["cell"], "details": details}))
            _append(columns, key, task, found["predictions"], found["choices"])
        floors = {name: floor_answers(task.test) for name, task in self.tasks.items()}
        for kind in next(iter(floors.values())):
            for name, task in self.tasks.items():
                cells.append(Cell(kind, name, kind="floor", family=kind))
                _append(columns, CellKey(kind, name), task, floors[name][kind], floors[name][kind])
        return EvaluationResults(Dataset.from_dict(columns, features=PREDICTION_FEATURES), cells)


def _append(
    columns: dict[str, list],
    key: CellKey,
    task: TargetTask,
    predictions: Sequence[str],
    choices: Sequence[str | None],
) -> None:
    number = len(predictions)
    rows = {
        "method": [key.method] * number,
        "task": [key.task] * number,
        "query_set": [key.query_set] * number,
        "id": task.test["id"][:],
        "source": task.sources,
        "prediction": predictions,
        **score_answers(predictions, task.test["references"][:], task.answers, choices),
    }
    for name, values in rows.items():
        columns[name] += values


def _draw_seed(key: CellKey) -> int:
    """Another draw for each task and query set: intervals take them as independent."""
    return digest_of([key.task, key.query_set]) % 2**32


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


@contextmanager
def _quick_collection() -> Iterator[None]:
    """What is there already is not looked at by every `gc.collect`, which then takes milliseconds in place of half a second."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _expected(seconds: Mapping[CellKey, float], pending: Sequence[CellKey]) -> float:
    """Seconds of the pending cells, as finished ones of the same method and task took, else of the method, else of any."""
    means: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for key, took in seconds.items():
        for group in ((key.method, key.task), (key.method,), ()):
            means[group].append(took)
    total = 0.0
    for key in pending:
        group = next(group for group in ((key.method, key.task), (key.method,), ()) if group in means)
        total += sum(means[group]) / len(means[group])
    return total


def _left(seconds: float) -> str:
    if seconds < 100:
        return f"about {seconds:.0f} s left"
    return f"about {seconds / 60:.0f} min left" if seconds < 6000 else f"about {seconds / 3600:.1f} h left"
