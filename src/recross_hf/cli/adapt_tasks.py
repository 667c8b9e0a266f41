"""`recross adapt --query_files`: a task for each file, adapted to one after the other; several processes, or jobs, share the tasks."""

from __future__ import annotations

import gc
import logging
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..adaptation.arguments import AdaptationArguments
from ..adaptation.report import REPORT_FILE
from ..core.claims import shared_out
from ..core.distributed import leave_process_group
from ..core.files import matching, read_json, sha256_of, write_json
from ..core.hashing import digest_of
from ..core.output_folders import ADAPTATIONS, check_apart, check_apart_from_files, check_not_of_others
from ..core.run_settings import refuse_other_settings
from ..launching.arguments import LAUNCHER_ARGUMENTS
from ..launching.launcher import JOBS_FOLDER
from ..pipeline.pipeline import ReCrossPipeline
from .adapt_arguments import DEFAULTS, ScriptArguments
from .console import show
from .errors import UsageError, is_mistake, reason
from .jobs import run_in_jobs
from .parser import CommandParser

_OF_ONE_TASK = (
    *("query_file", "eval_file", "task", "query_set", "overwrite"),
    *("push_to_hub", "hub_model_id", "hub_token", "resume_from_checkpoint"),
)
_LOCKS = "locks"

logger = logging.getLogger(__name__)


def adapt_to_tasks(
    parser: CommandParser,
    argv: Sequence[str],
    script: ScriptArguments,
    said: dict[str, Any],
    adapt: Callable[[CommandParser, ScriptArguments, dict[str, Any], ReCrossPipeline], None],
) -> None:
    """Adapts one pipeline to the task of each file, here or in jobs. Where one fails, the exit status is 1.

    Args:
        parser: Parser of the command.
        argv: Words of the command line.
        script: Arguments of the command.
        said: What the words say, the pipeline included.
        adapt: Function that adapts a pipeline to one task, as arguments say.
    """
    if own := [name for name in _OF_ONE_TASK if name in said]:
        parser.error(f"Expected --{own[0]} of one task, with query_file, found it beside --query_files")
    rank = leave_process_group()  # each process has tasks of its own
    folder = Path(parser.made(AdaptationArguments, said).output_dir or DEFAULTS["output_dir"])
    files = _files_of(script.query_files)
    check_apart(folder, {"the pipeline": script.pipeline})
    check_apart_from_files(folder, files.values())
    check_not_of_others(folder, ADAPTATIONS)

    def is_finished(name: str) -> bool:
        return (folder / name / REPORT_FILE).is_file()  # it is written last

    _checked_settings(folder / ADAPTATIONS, said, files, is_finished)  # before anything that takes a while
    failed = {}
    if run_in_jobs(parser, "adapt", argv, said, str(folder)):
        failed = {name: f"see the logs in {folder / JOBS_FOLDER}" for name in files if not is_finished(name)}
    elif not all(map(is_finished, files)):
        pipeline = ReCrossPipeline.from_pretrained(script.pipeline, revision=script.revision)
        write_json(folder / ADAPTATIONS, _checked_settings(folder / ADAPTATIONS, said, files, is_finished, pipeline))
        for name, is_mine in shared_out(files, is_finished, lambda name: folder / _LOCKS / f"{name}.lock"):
            if not is_mine:
                continue
            try:
                one = replace(script, query_file=str(files[name]), query_files=[])
                adapt(parser, one, said | {"output_dir": str(folder / name)}, pipeline)
            except Exception as error:  # whatever it is, the other tasks can do without this one
                failed[name] = reason(error)
                logger.warning("%s failed.", files[name], exc_info=not is_mistake(error))
            finally:
                gc.collect()  # trainers are cycles, and hold a copy of the model
    if rank == 0:
        num_done = len(files) - len(failed)
        show(f"\n{num_done} of {len(files)} tasks are adapted to, each in a folder of its own in {folder}/.")
    for name, why in failed.items():
        print(f"Failed: {name}: {why}", file=sys.stderr)
    sys.exit(1 if failed else 0)


def _files_of(patterns: Sequence[str]) -> dict[str, Path]:
    """The files by the names of their tasks."""
    found = [path for pattern in patterns for path in matching(pattern) or [Path(pattern)]]
    if missing := [path for path in found if not path.is_file()]:
        raise UsageError(f"Expected a file of inputs for each task as --query_files, found none at {missing[0]}.")
    names = Counter([_LOCKS, JOBS_FOLDER, *(path.stem for path in found)])
    if taken := [path for path in found if names[path.stem] > 1]:
        raise UsageError(
            f"Expected --query_files of different names, which are those of the folders that are written, none of them {_LOCKS} or "
            f"{JOBS_FOLDER}, found {', '.join(map(str, taken))}. Rename them."
        )
    return {path.stem: path for path in found}


def _checked_settings(
    path: Path,
    said: Mapping[str, Any],
    files: Mapping[str, Path],
    is_finished: Callable[[str], bool],
    pipeline: ReCrossPipeline | None = None,
) -> dict[str, Any]:
    """What the adaptations are made with, to be written down; those of an earlier run must have been made with the same."""
    ignored = {"query_files", "output_dir", *LAUNCHER_ARGUMENTS}
    settings = {name: value for name, value in said.items() if name not in ignored}
    queries = {name: sha256_of(file) for name, file in files.items()}
    written = read_json(path) if path.is_file() else {"settings": settings, "queries": {}}
    both = {
        name: written["queries"].get(name) if is_finished(name) else digest for name, digest in queries.items()
    }  # inputs may be mended until they are adapted to
    now, before = settings | {"queries": queries}, written["settings"] | {"queries": both}
    # Under the name of a pipeline another one may lie there today.
    if pipeline is not None and pipeline.parts.stored is not None:
        manifest = pipeline.parts.stored.manifest
        parts = {name: part.to_json() for name, part in manifest.parts.items()}
        own = [manifest.dtype] if manifest.dtype else []
        now["pipeline_parts"] = f"{digest_of([parts, manifest.encoder, manifest.adaptation, *own]):016x}"
        before["pipeline_parts"] = written.setdefault("pipeline_parts", now["pipeline_parts"])
    refuse_other_settings(
        before,
        now,
        expected=f"the settings of the adaptations in {path.parent}",
        remedy="Adapt with the same, or choose another folder.",
    )
    return written | {"queries": written["queries"] | queries}
