"""The arguments of a sub-command: dataclasses, a short help, a file of arguments, and mistakes told in a line."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, NoReturn, TypeVar

from transformers import HfArgumentParser

from ..core.output_folders import folder_to_write
from ..core.recipes import recipe_arguments
from .console import is_quiet
from .errors import UsageError, nearest, reason

Arguments = TypeVar("Arguments")

_RUNNING = {
    "--config FILE": "YAML with arguments; the command line overrides it.",
    "--quiet | --verbose": "Print the result alone, or all that the stack says.",
    "--debug": "Show where in the program a mistake was noticed.",
    "--help-all": "Show every argument, with its default.",
}
# What argparse and transformers say, of an argument with all its spellings.
_IN_OUR_WORDS = {
    r"^argument (--\w+)/\S+?:": r"argument \1:",
    r"^argument (--\w+): invalid (\w+) value: (.*)$": r"Expected \2 as \1, found \3",
    r"^argument (--\w+): invalid choice: (.*) \(choose from (.*)\)$": r"Expected one of \3 as \1, found \2",
    r"^argument (--\w+): expected (one|at least one) argument$": r"Expected \2 value after \1, found none",
    r"^argument (--\w+): Truthy value expected: got (.*) but .*$": r"Expected true or false after \1, found \2",
}
# Those of the trainer say what they are to programs.
_PLAINER = {
    "output_dir": "The folder to write.",
    "push_to_hub": "Publish it on the Hub.",
    "hub_model_id": "Its name there, such as me/tickets; that of the folder by default.",
    "per_device_train_batch_size": "Examples a step and device.",
    "max_steps": "Steps, in place of passes.",
    "num_train_epochs": "Passes over the data.",
    "learning_rate": "The learning rate.",
    "resume_from_checkpoint": "true: continue from the last checkpoint.",
    "overwrite": "Take an output folder that holds something else.",
    "dry_run": "Say what it will take, and stop.",
    "gate": "Keep the base where answers lose their form.",
    "token_budget": "Tokens a step and device, not so many examples.",
}


class CommandParser(HfArgumentParser):
    """Reads the arguments of a sub-command into its dataclasses.

    Args:
        name: the sub-command, such as `adapt`.
        dataclass_types: what to read into; no two have an argument in common.
        about: a sentence or two for the help.
        groups: the arguments that matter, under headings, for the short help.
        positional: the argument that may stand without its name.
        defaults: of this command, in place of those of the dataclasses.
    """

    def __init__(
        self,
        name: str,
        dataclass_types: Sequence[Any],
        *,
        about: str,
        groups: Mapping[str, Sequence[str]],
        positional: str | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            list(dataclass_types), prog=f"recross {name}", description=about, allow_abbrev=False, add_help=False
        )
        self.groups, self.positional, self.defaults = groups, positional, dict(defaults or {})
        for action in self._actions:
            # The dataclasses have the defaults. What is said alone is read here, so that it can come before what others say.
            action.default, action.required = argparse.SUPPRESS, False
        if positional is not None:
            self.add_argument("positional", nargs="?", default=argparse.SUPPRESS)
        self.add_argument("--config", default=argparse.SUPPRESS)
        for flags, is_short in ((("-h", "--help"), True), (("--help-all", "--help_all"), False)):
            self.add_argument(*flags, action=_Help, nargs=0, default=argparse.SUPPRESS, is_short=is_short)

    def said(self, words: Sequence[str]) -> dict[str, Any]:
        """What a command line says, and the file that its `--config` names, without any default.

        Raises:
            UsageError: something is not an argument of the command, or has a value that it cannot have.
            FileNotFoundError: there is no such file.
            ValueError: the file has faults, see [`recipe_arguments`].
        """
        words = ["--output_dir" if word == "-o" else word for word in words]
        found, unknown = self.parse_known_args(words, argparse.Namespace())
        if unknown:
            word = next((word for word in unknown if word.startswith("-")), unknown[0])
            options = [option for option in self._option_string_actions if "-" not in option[2:]]
            self.error(
                f"Expected an argument that there is, found {word}.{nearest(word.replace('-', '_').replace('__', '--', 1), options)}"
            )
        said = vars(found)
        if "positional" in said and self.positional is not None:
            value = said.pop("positional")
            if said.setdefault(self.positional, value) != value:
                self.error(
                    f"Expected `{self.positional}` once, found {value} and --{self.positional} {said[self.positional]}."
                )
        path = said.pop("config", None)
        if path is None:
            return said
        known = {argument.name for kind in self.dataclass_types for argument in fields(kind) if argument.init}
        recipe = recipe_arguments(path, known)
        try:
            return vars(self.parse_known_args(recipe, argparse.Namespace())[0]) | said
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error

    def made(self, kind: type[Arguments], said: Mapping[str, Any]) -> Arguments:
        """One of the dataclasses, of what is said and of its defaults.

        Raises:
            UsageError: an argument that has no default is missing, or the dataclass refuses what it is given.
        """
        own = [argument for argument in fields(kind) if argument.init]  # type: ignore[arg-type]
        # The trainer shows bars where the stack may warn, and here it may not.
        said = {"disable_tqdm": is_quiet()} | self.defaults | dict(said)
        if said.get("output_dir") is not None:
            try:
                said["output_dir"] = str(folder_to_write(said["output_dir"]))
            except (OSError, ValueError) as error:
                raise UsageError(reason(error)) from error
        if missing := [f"--{one.name}" for one in own if _is_required(one) and one.name not in said]:
            self.error(f"Expected the argument{'s' * (len(missing) > 1)} {', '.join(missing)}, found none.")
        try:
            return kind(**{one.name: said[one.name] for one in own if one.name in said})
        except (ValueError, TypeError, ImportError) as error:
            raise UsageError(reason(error)) from error

    def parse(self, words: Sequence[str]) -> tuple[Any, ...]:
        """All dataclasses, of what a command line says."""
        said = self.said(words)
        return tuple(self.made(kind, said) for kind in self.dataclass_types)

    def error(self, message: str) -> NoReturn:
        """Raises `UsageError`, with a pointer to the help."""
        for theirs, ours in _IN_OUR_WORDS.items():
            message = re.sub(theirs, ours, message)
        message = message.rstrip(".")
        end = "" if message.endswith("?") else "."
        raise UsageError(f"{message}{end} `{self.prog} --help` shows the arguments that matter, --help-all every one.")

    def short_help(self) -> str:
        """The arguments that matter, in a screen."""
        width = min(shutil.get_terminal_size().columns, 110)
        shown = argparse.ArgumentParser(
            prog=self.prog,
            usage=f"%(prog)s {f'[{self.positional.upper()}] ' if self.positional else ''}[ARGUMENTS]",
            description=self.description,
            add_help=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=27, width=width),
        )
        known = {argument.name: argument for kind in self.dataclass_types for argument in fields(kind)}
        for title, names in self.groups.items():
            group = shown.add_argument_group(title)
            for name in names:
                flags = ("-o", "--output_dir") if name == "output_dir" else (f"--{name}",)
                default = self.defaults.get(name, known[name].default)
                said = _PLAINER.get(name, known[name].metadata.get("help", ""))
                group.add_argument(*flags, metavar=_metavar(known[name]), help=_in_short(said, default))
        group = shown.add_argument_group("Running it")
        for shown_as, said in _RUNNING.items():
            flag, _, value = shown_as.partition(" ")
            group.add_argument(flag, metavar=value, help=said)
        return shown.format_help()

    def full_help(self) -> str:
        """Every argument, with its default."""
        known = HfArgumentParser(self.dataclass_types, prog=self.prog, description=self.description)
        flags = {f"--{argument.name}" for kind in self.dataclass_types for argument in fields(kind)}
        for shown_as, said in _RUNNING.items():
            flag, _, value = shown_as.partition(" ")
            if flag not in flags:  # --debug is one of the trainer's, too
                known.add_argument(flag, metavar=value, help=said, default=argparse.SUPPRESS)
        return known.format_help()


class _Help(argparse.Action):
    def __init__(self, *args: Any, is_short: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_short = is_short

    def __call__(self, parser: CommandParser, *_: Any) -> None:  # type: ignore[override]
        print(parser.short_help() if self.is_short else parser.full_help(), end="")
        parser.exit()


def _is_required(argument: Field[Any]) -> bool:
    return argument.default is MISSING and argument.default_factory is MISSING


def _metavar(argument: Field[Any]) -> str:
    if "choices" in argument.metadata:
        return "{" + ",".join(argument.metadata["choices"]) + "}"
    kind = argument.type
    if kind is bool:
        return ""
    word = "N" if kind is int else "X" if kind is float else argument.name.rpartition("_")[2].upper()
    return f"{word} [...]" if getattr(kind, "__origin__", None) is list else word


def _in_short(said: str, default: Any) -> str:
    sentence = re.split(r"(?<=\.)\s(?=[A-Z])", said)[0]
    if default not in (MISSING, None, "") and not isinstance(default, bool):
        sentence += f" (default: {default})"
    return sentence.replace("%", "%%")
