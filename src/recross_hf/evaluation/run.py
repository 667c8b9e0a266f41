"""`EvaluationRun`: methods, tasks and settings that were checked, and the cells to compute of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .._version import __version__
from ..adaptation.arguments import AdaptationArguments, in_todays_names
from ..core.hashing import digest_of, weights_hash
from ..core.output_folders import check_apart, check_not_of_others, folder_to_write
from ..models.architectures import chat_reading
from ..models.decoding import decoding_in_force
from ..pipeline.pipeline import ReCrossPipeline
from ..pipeline.prediction import LENGTHS_AND_BEAMS
from ..reranking.reranker import RememberingReranker, Reranker
from .cells import CellFiles, CellKey
from .methods import Method
from .overlaps import HANDLINGS, Overlaps, check_overlaps, find_overlaps, without_overlaps
from .results import CELLS_FILE
from .tasks import TargetTask

# The messages of an adaptation and the folder that it writes to change nothing in its result; a token is nobody's business.
_WITHOUT_EFFECT = ("output_dir", "disable_tqdm", "report_to", "hub_token")


def prepare_evaluation(
    pipeline: ReCrossPipeline,
    tasks: Sequence[TargetTask],
    methods: Sequence[Method],
    output_dir: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    on_overlap: str = "refuse",
    signals: bool = False,
) -> EvaluationRun:
    """Checks all arguments of [`evaluate_methods`], and raises as it does; nothing is computed or written.

    Args:
        pipeline: Pipeline that adapts.
        tasks: Target tasks to test on.
        methods: Methods to compare.
        output_dir: Folder of the cells.
        settings: Fields of [`AdaptationArguments`] for all methods.
        on_overlap: Handling of overlaps, one of [`HANDLINGS`].
        signals: Whether the signals of each adaptation are recorded.

    Returns:
        The run, with the tasks as they will be tested.
    """
    _check_arguments(pipeline, tasks, methods, on_overlap)
    output_dir = folder_to_write(output_dir)
    check_apart(output_dir, {"the pipeline": pipeline.folder})
    check_not_of_others(output_dir, CELLS_FILE)
    settings = {"disable_tqdm": True, **(settings or {})}
    for method in methods:
        pipeline.arguments(**{**settings, **method.settings})  # an error is raised here and not in every cell
    retrievers = [method.retriever_for(0) for method in methods if method.retriever is not None]
    upstreams = {id(retriever.rows.source): retriever.rows for retriever in retrievers}
    overlaps = find_overlaps(tasks, upstreams.values())
    if on_overlap == "refuse":
        check_overlaps(overlaps, tasks)
    if on_overlap == "drop":
        tasks = [without_overlaps(task, overlaps[task.name]) for task in tasks]
    run = EvaluationRun(pipeline, tasks, methods, CellFiles(output_dir), settings, overlaps, on_overlap, signals)
    run.check_signals()
    run.check_finished_cells()
    return run


def _check_arguments(
    pipeline: ReCrossPipeline, tasks: Sequence[TargetTask], methods: Sequence[Method], on_overlap: str
) -> None:
    for kind, names in (("tasks", [task.name for task in tasks]), ("methods", [method.name for method in methods])):
        repeated = sorted({name for name in names if names.count(name) > 1})
        if not names or repeated:
            raise ValueError(
                f"Expected {kind} with different names, found {', '.join(repeated) + ' twice' if names else 'none'}."
            )
    if on_overlap not in HANDLINGS:
        raise ValueError(f"`on_overlap` must be one of {', '.join(HANDLINGS)}, found {on_overlap!r}.")
    if pipeline.adapted_model is not None:
        raise ValueError(
            "Expected a pipeline that was not adapted, found one that was: an evaluation adapts its upstream model. Load the pipeline "
            "that it was made of."
        )


class EvaluationRun:
    """The methods, tasks and settings of an evaluation, of which each process computes some cells.

    Args:
        pipeline: Pipeline that adapts.
        tasks: Target tasks as they will be tested.
        methods: Methods to compare.
        files: Folder of the cells.
        settings: Fields of [`AdaptationArguments`] for all methods.
        overlaps: Overlaps of each target task.
        on_overlap: Handling of overlaps, one of [`HANDLINGS`].
        signals: Whether the signals of each adaptation are recorded.

    Attributes:
        tasks: Target tasks by name.
        methods: Methods by name.
        rerankers: Rerankers that remember their scores, by the `id` of a method's reranker.
    """

    def __init__(
        self,
        pipeline: ReCrossPipeline,
        tasks: Sequence[TargetTask],
        methods: Sequence[Method],
        files: CellFiles,
        settings: Mapping[str, Any],
        overlaps: Mapping[str, Overlaps],
        on_overlap: str,
        signals: bool = False,
    ) -> None:
        self.pipeline = pipeline
        self.tasks = {task.name: task for task in tasks}
        self.methods = {method.name: method for method in methods}
        self.files = files
        self.settings = settings
        self.overlaps = overlaps
        self.on_overlap = on_overlap
        self.signals = signals
        self._weights = weights_hash(pipeline.upstream_model)
        self._identities: dict[tuple[str, int], dict[str, Any]] = {}
        # Methods that differ in how they choose, and ablations of mu, share a reranker's scores.
        self.rerankers: dict[int, Reranker] = {
            id(method.reranker): RememberingReranker(method.reranker)
            for method in methods
            if method.reranker is not None
        }

    def keys(self) -> list[CellKey]:
        """The keys of all cells, in the order in which they are computed.

        Query set comes after query set, so that a run that is cut short has all tasks.
        """
        shared = [
            CellKey(name, task) for task in self.tasks for name, method in self.methods.items() if method.is_shared
        ]
        most = max(len(task.query_sets) for task in self.tasks.values())
        return shared + [
            CellKey(name, task.name, number)
            for number in range(most)
            for task in self.tasks.values()
            if number < len(task.query_sets)
            for name, method in self.methods.items()
            if not method.is_shared
        ]

    @property
    def device(self) -> torch.device:
        """The device that adaptations compute on."""
        return self.pipeline.arguments(**self.settings).device

    def arguments_of(self, key: CellKey) -> AdaptationArguments:
        """The settings of a cell's adaptation."""
        chosen = self._chosen(self.methods[key.method])
        chosen.pop("output_dir", None)  # a cell's adaptation writes nothing
        seed = chosen.get("seed", AdaptationArguments.seed) + max(key.query_set, 0)
        # What adapting does is measured, as in the paper; whoever measures a gate says so.
        return self.pipeline.arguments(**{"gate": "off", **chosen, "seed": seed})

    def _chosen(self, method: Method) -> dict[str, Any]:
        chosen = [in_todays_names(one) for one in (self.pipeline.adaptation, self.settings, method.settings)]
        return {**chosen[0], **chosen[1], **chosen[2]}

    def settings_of(self, key: CellKey) -> dict[str, Any]:
        """Everything that the content of a cell depends on, as JSON values."""
        method, task = self.methods[key.method], self.tasks[key.task]
        common: dict[str, Any] = {"version": __version__, "model": self._weights, "task": task.identity()}
        if (side := self.pipeline.processing_class.truncation_side) != "right":
            common["truncation_side"] = side
        # Where a method has no index of the model's own, nothing else tells how inputs are read.
        if reading := chat_reading(self.pipeline.upstream_model, self.pipeline.processing_class):
            common["chat"] = reading
        if self.pipeline.upstream_model.generation_config.do_sample:
            common["do_sample"] = False  # earlier versions drew the answers of such a model at random
        if decoding := self._decoding(key):
            common["decoding"] = decoding
        if not method.trains:
            arguments = self.arguments_of(key)
            common["generation"] = {name: getattr(arguments, name) for name in LENGTHS_AND_BEAMS}
            if method.retriever is None:
                return common
            shown = common | {"method": self._identity_of(method, key), "excluded": self.excluded(task)}
            return shown | ({} if method.is_shared else {"task": task.identity(key.query_set, method.num_queries)})
        return common | {
            "task": task.identity(key.query_set, method.num_queries),
            "method": self._identity_of(method, key),
            "excluded": self.excluded(task),
            "adaptation": {
                name: json.loads(json.dumps(value, default=str))
                for name, value in sorted(self._chosen(method).items())
                if name not in _WITHOUT_EFFECT and (name, value) != ("gate", "off")
            },
            **({"signals": True} if self.signals else {}),
        }

    def _decoding(self, key: CellKey) -> dict[str, Any]:
        """Beams, penalties and lengths that change the answers, the model's own among them."""
        beams = self.arguments_of(key).generation_num_beams
        return decoding_in_force(self.pipeline.upstream_model, {"num_beams": beams})

    def _identity_of(self, method: Method, key: CellKey) -> dict[str, Any]:
        seed = draw_seed(key)
        name = method.name, seed if method.draws else 0
        if name not in self._identities:
            self._identities[name] = method.identity(seed)
        return self._identities[name]

    def excluded(self, task: TargetTask) -> dict[str, list[str]]:
        """The upstream tasks and the ids of upstream examples that are never retrieved for a target task."""
        overlaps = self.overlaps[task.name]
        ids = sorted(overlaps.upstream_in_test) if self.on_overlap == "drop" else []
        return {"tasks": [task.name] if overlaps.is_upstream else [], "ids": ids}

    def check_signals(self) -> None:
        """Refuses to record the signals of adaptations that a gate may undo.

        Raises:
            ValueError: Signals are asked for, and a method has a gate.
        """
        for method in self.methods.values() if self.signals else ():
            gate = self._chosen(method).get("gate", "off") if method.retriever is not None else "off"
            if gate != "off":
                raise ValueError(
                    f"Expected `gate='off'` where signals are recorded, found {gate!r} for the method {method.name}: what the gate undoes has "
                    "no signals. Leave the gate out, or `signals`."
                )

    def check_finished_cells(self) -> None:
        """Refuses finished cells of other settings.

        Raises:
            CellMismatchError: There is one.
        """
        for key in self.keys():
            if (cell := self.files.read(key)) is not None:
                settings = self.settings_of(key)
                if "decoding" not in cell["settings"]:
                    settings.pop("decoding", None)  # earlier versions decoded so, too, and did not write it down
                if self.methods[key.method].retriever is not None and cell["settings"].get("signals"):
                    settings["signals"] = True  # a cell that has more than is asked for has that, too
                adaptation = cell["settings"].get("adaptation", {})
                if "safety_gate" in adaptation and settings["adaptation"].get("gate") != "form":
                    is_strict = settings["adaptation"].pop("gate", "off") == "strict"
                    settings["adaptation"]["safety_gate"] = is_strict  # the gate's earlier name
                self.files.check(key, settings)


def draw_seed(key: CellKey) -> int:
    """The seed for drawing examples, another one for each task and query set: intervals take the draws as independent."""
    return digest_of([key.task, key.query_set]) % 2**32
