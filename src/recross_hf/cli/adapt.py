"""`recross adapt`: adapt an upstream model to an unseen task from a few unlabelled inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from ..adaptation.adapter import RetrievalAugmentedAdapter
from ..adaptation.arguments import AUTHORS_CODE, PAPER, AdaptationArguments, in_todays_names
from ..adaptation.record import RETRIEVED_FILE
from ..adaptation.report import REPORT_FILE, SHOWN_INPUTS, Answers
from ..adaptation.results import adaptation_results, format_results, plot_task_shares
from ..core.distributed import agreed, end_process_group
from ..core.environment import PIPELINE_VARIABLE
from ..core.files import write_json
from ..core.output_folders import check_apart
from ..core.recipes import named_values
from ..data.conversations import texts_of
from ..data.readers import load_examples, load_queries
from ..data.schema import COLUMNS, ExampleError
from ..data.starter import load_starter_task, starter_tasks
from ..hub.publishing import check_may_publish
from ..hub.safety import MANIFEST_FILE
from ..launching.arguments import LAUNCHER_ARGUMENTS, LauncherArguments
from ..models.adapters import is_peft_model
from ..pipeline.pipeline import ReCrossPipeline
from ..pipeline.publication import CARD_FILE
from ..retrieval.lance.retriever import dense_retriever, rows_of
from ..retrieval.retriever import RandomRetriever, Retriever
from .adapt_arguments import ABOUT, DEFAULTS, GROUPS, ScriptArguments
from .adapt_tasks import adapt_to_tasks
from .bars import use_bars
from .console import show
from .errors import NO_PICTURE, UsageError, can_draw
from .lora import LORA_SHAPE, LoraArguments
from .outputs import make_way, write_adapted_manifest, write_report
from .parser import CommandParser
from .stages import Stages

if TYPE_CHECKING:
    from peft import PeftConfig

PICTURE = "retrieved_tasks.png"


def main(argv: Sequence[str]) -> None:
    """Adapts a model as the command line says."""
    parser = CommandParser(
        "adapt",
        (ScriptArguments, LauncherArguments, LoraArguments, AdaptationArguments),
        about=ABOUT,
        groups=GROUPS,
        positional="query_file",
        defaults=DEFAULTS,
    )
    said = parser.said(argv)
    script = parser.made(ScriptArguments, said)
    if script.query_files:
        script.pipeline = script.pipeline or os.environ.get(PIPELINE_VARIABLE) or None
        adapt_to_tasks(parser, argv, script, said | {"pipeline": script.pipeline}, adapt)
        return
    if own := [name for name in LAUNCHER_ARGUMENTS if name in said]:
        parser.error(f"--{own[0]} needs --query_files, the tasks that jobs share")
    if script.pipeline is not None and script.query_file is None:
        parser.error("--pipeline needs --query_file, the unlabelled inputs of your task")
    if script.query_file is not None:
        if script.query_file == "-":
            parser.error(
                "Expected a file of inputs, found -: standard input is not read, so that it must be saved first"
            )
        if "query_set" in said:
            parser.error(
                "Expected --query_set with a task of the starter, found it beside a query_file, which is one set"
            )
        script.pipeline = script.pipeline or os.environ.get(PIPELINE_VARIABLE) or None
    adapt(parser, script, said)


def adapt(
    parser: CommandParser, script: ScriptArguments, said: dict[str, Any], pipeline: ReCrossPipeline | None = None
) -> None:
    """Adapts a model, evaluates it where there are labels, writes what came of it and publishes it where that was asked for."""
    stages = Stages()
    if script.num_queries is not None and script.num_queries < 1:
        parser.error(f"Expected --num_queries of at least 1, found {script.num_queries}")
    with stages("load"):
        columns = named_values("--columns", script.columns, parser.error, known=list(COLUMNS))
        if columns and script.eval_file is None and str(script.query_file).endswith(".txt"):
            parser.error("Expected --columns of a file that has columns, found a text file of one input a line")
        pipeline = pipeline or ReCrossPipeline.from_pretrained(script.pipeline, revision=script.revision)
        presets = {
            None: in_todays_names(pipeline.adaptation),
            "paper": PAPER,
            "authors_code": AUTHORS_CODE,
            "as_run": AUTHORS_CODE,
        }
        settings = presets[script.preset]
        args = parser.made(AdaptationArguments, settings | said)
        output_dir = Path(args.output_dir or DEFAULTS["output_dir"])
        check_apart(output_dir, {"the pipeline": pipeline.folder})
        if not script.overwrite:
            pipeline.check_output_dir(output_dir)
        # The pipeline is pushed when it is whole, and not the model while it trains.
        push_to_hub, args.push_to_hub = args.push_to_hub, False
        if said.get("num_retrieved", 0) > (there := len(pipeline.index)):
            parser.error(
                f"Expected --num_retrieved of at most {there:,}, the upstream examples that there are, found {said['num_retrieved']:,}"
            )
        task, queries, evaluation = inputs_of(script, columns)
        retriever = retriever_of(script, pipeline, args.seed)
        peft_config = peft_config_of(parser, script, args, pipeline, said)
        if script.overwrite:
            make_way(output_dir, others=[CARD_FILE])
        adapter = pipeline.adapter(
            queries, args, retriever=retriever, peft_config=peft_config, eval_dataset=evaluation
        )
        if push_to_hub:  # after all that a mistake could be in: it makes the repository where there is none
            check = partial(check_may_publish, token=args.hub_token, private=args.hub_private_repo)
            repo_id = agreed(partial(check, args.hub_model_id or output_dir.resolve().name))
        use_bars(adapter, shows_logs=False)
    answers = run(adapter, output_dir, stages, is_evaluated=evaluation is not None, merges=script.merge)
    adapted = pipeline.adapted(adapter)
    if adapter.is_world_process_zero():
        results = adaptation_results(adapter.adaptation, adapter.retrieved, task=task, seconds=stages.seconds)
        write_beside(adapter, output_dir, results)
        left_out = write_adapted_manifest(pipeline, adapted, output_dir)
        write_report(adapter, output_dir, results, answers, opens_as_pipeline=left_out is None)
        tell(output_dir, results, left_out)
    # The others are done: none of them waits while the main process uploads.
    end_process_group()
    if push_to_hub and adapter.is_world_process_zero():
        commit = adapted.push_to_hub(
            repo_id, token=args.hub_token, private=args.hub_private_repo, revision=args.hub_revision
        )
        print(f"Published: {commit.commit_url if commit else repo_id}")


def run(
    adapter: RetrievalAugmentedAdapter, output_dir: Path, stages: Stages, *, is_evaluated: bool, merges: bool
) -> Answers | None:
    """Retrieves, trains and saves, and evaluates and answers the first inputs before and after."""
    if is_evaluated:
        with stages("evaluate base"):
            adapter.evaluate(metric_key_prefix="base")
    checkpoint = adapter.args.resume_from_checkpoint
    if checkpoint is None:
        adapter.retrieve()
        stages.seconds.update(adapter.seconds)
    # That of an earlier adaptation names files that are written now; it is written when they are whole.
    for name in (MANIFEST_FILE, REPORT_FILE):
        agreed(partial((output_dir / name).unlink, missing_ok=True))
    # FSDP and DeepSpeed spread the weights: there, one process cannot answer alone.
    can_answer = not (adapter.is_fsdp_enabled or adapter.is_deepspeed_enabled)
    inputs = texts_of(adapter.query_dataset)[:SHOWN_INPUTS]
    # What the gate has answered is not answered again.
    by_gate = {*adapter.answered_by_gate()}
    others = [text for text in inputs if text not in by_gate]
    if can_answer and others:
        with stages("answer"):
            before = adapter.answer(others)
    with stages("train"):
        adapter.train(resume_from_checkpoint=checkpoint)
    if adapter.gate is not None:
        stages.seconds["gate"] = adapter.seconds["gate"]
        stages.seconds["train"] -= adapter.seconds["gate"]
    if merges:
        adapter.merge_adapter()
    if is_evaluated:
        with stages("evaluate adapted"):
            adapter.evaluate(metric_key_prefix="adapted")
    answers = dict(adapter.gate_answers)
    if can_answer and others:
        with stages("answer"):
            answers |= zip(others, zip(before, adapter.answer(others), strict=True), strict=True)
    with stages("save"):
        adapter.save_model()
    return ([answers[text][0] for text in inputs], [answers[text][1] for text in inputs]) if can_answer else None


def inputs_of(script: ScriptArguments, columns: dict[str, str]) -> tuple[str, Dataset, Dataset | None]:
    """The name of the task, its unlabelled inputs, and labelled examples if there are any."""
    if script.query_file is None:
        task = script.task or starter_tasks()[0]
        queries, evaluation = load_starter_task(task, script.query_set)
    else:
        task = script.task or Path(script.query_file).stem
        has_columns = not script.query_file.endswith(".txt")
        unlabelled = {name: column for name, column in columns.items() if name != "references" and has_columns}
        try:
            queries = load_queries(script.query_file, columns=unlabelled, task=task)
        except ExampleError as error:
            raise UsageError(f"{script.query_file}: {error}") from error
        evaluation = load_examples(script.eval_file, columns=columns, task=task) if script.eval_file else None
    if script.num_queries is not None:
        queries = queries.select(range(min(script.num_queries, len(queries))))
    return task, queries, evaluation


def retriever_of(script: ScriptArguments, pipeline: ReCrossPipeline, seed: int) -> Retriever:
    """What to learn from: near examples, or random ones."""
    if script.retriever == "dense":
        return dense_retriever(pipeline.index, exclude_tasks=script.exclude_tasks)
    return RandomRetriever(rows_of(pipeline.index), seed=seed, exclude_tasks=script.exclude_tasks)


def peft_config_of(
    parser: CommandParser,
    script: ScriptArguments,
    args: AdaptationArguments,
    pipeline: ReCrossPipeline,
    said: Mapping[str, Any],
) -> PeftConfig | None:
    """The LoRA adapter that is asked for; None where all weights are trained, or the upstream model's own adapter further."""
    lora = parser.made(LoraArguments, said)
    has_adapter = is_peft_model(pipeline.upstream_model)
    goes_on = has_adapter and args.upstream_adapter == "continue"
    if script.merge and not (lora.use_peft or goes_on):
        parser.error("--merge needs an adapter to merge: --use_peft, or a pipeline whose upstream model is one")
    if goes_on and not set(LORA_SHAPE) & set(said):
        return None
    return lora.config_for(pipeline.upstream_model) if lora.use_peft else None


def write_beside(adapter: RetrievalAugmentedAdapter, output_dir: Path, results: dict[str, Any]) -> None:
    """Writes what stands beside the model: its card, what it learned from as a picture, and the results."""
    adapter.create_model_card()
    title = f"What {results['task']} was learned from"
    if can_draw():
        plot_task_shares(adapter.retrieved, output_dir / PICTURE, title=title)
    write_json(output_dir / "results.json", results)


def tell(output_dir: Path, results: dict[str, Any], left_out: str | None) -> None:
    """Says what came of an adaptation, and how to load it."""
    show(
        f"\n{format_results(results)}\n\nWritten to {output_dir}/: the model, {REPORT_FILE}, README.md, results.json, "
        f"{RETRIEVED_FILE}"
        f"{', ' + PICTURE if can_draw() else ''}"
    )
    if not can_draw():
        show(f"{PICTURE} was left out: {NO_PICTURE}")
    show(f"See what changed: open {output_dir / REPORT_FILE} in a browser.")
    print(left_out or f'Load it: ReCrossPipeline.from_pretrained("{output_dir}")("one more input")')
    if results["base"] is None and (results["gate"] is None or results["gate"]["level"] == "form"):
        show(
            "Nobody can say without labels whether it got better: --gate strict keeps the base where more signs speak for it."
        )
