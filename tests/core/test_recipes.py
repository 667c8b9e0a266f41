"""Recipes: how they are read, and that those which come with the examples can be."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from recross_hf.cli import train
from recross_hf.cli.errors import UsageError
from recross_hf.core.recipes import named_values, recipe_arguments

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RECIPES = sorted((EXAMPLES / "recipes").glob("*.yaml"))
LAUNCHES = sorted((EXAMPLES / "recipes" / "accelerate").glob("*.yaml"))
KNOWN = {"learning_rate", "max_steps", "bf16", "columns", "output_dir", "lr_scheduler_type"}


@pytest.fixture(scope="module")
def parse():
    return train.parse


def written(folder: Path, text: str) -> Path:
    (folder / "recipe.yaml").write_text(text)
    return folder / "recipe.yaml"


def test_a_recipe_is_the_command_line_that_it_stands_for(tmp_path):
    path = written(tmp_path, "learning_rate: 3e-5\nmax_steps: 10\nbf16: true\ncolumns: [a=b, c=d]\noutput_dir: null\n")
    arguments = "--learning_rate 3e-5 --max_steps 10 --bf16 true --columns a=b c=d"
    assert recipe_arguments(path, KNOWN) == arguments.split()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("max_steps: 1\nlearnig_rate: 1", "recipe.yaml, line 2, found 'learnig_rate', .*Did you mean learning_rate?"),
        ("lr_schedule: linear", "found 'lr_schedule', which is none. Did you mean lr_scheduler_type?"),
        ("zzz: 1", "found 'zzz', which is none. `--help` lists the names there are"),
        ("- a\n- b", r"Expected names and values \(`learning_rate: 3e-5`\) in .*recipe.yaml, found list"),
        ("", "Expected names and values .* found NoneType"),
        ("a: [", "Expected YAML in .*recipe.yaml, found: .*Mend the file"),
        ("max_steps: 1\nbf16: true\nmax_steps: 2", "Expected YAML in .*'max_steps' a second time.*line 3"),
        ("columns: []", r"Expected values of `columns` in .*recipe.yaml, found \[\]. Leave it out for its default"),
        ("columns: [a=b, ]\nmax_steps: [null]", r"Expected values of `max_steps` in .*recipe.yaml, found \[None\]"),
        ("columns: [a=b, -c]", r"values of `columns` in .*recipe.yaml that do not begin with '-', found \['-c'\]"),
        ("output_dir: !!timestamp 2024-01-01", "a list of them as `output_dir` in .*recipe.yaml, found datetime"),
        ("a: !!python/object/apply:os.getcwd []", "Expected YAML in .*could not determine a constructor"),
    ],
)
def test_a_recipe_with_faults_is_refused(text, match, tmp_path):
    with pytest.raises(ValueError, match=f"(?s){match}"):
        recipe_arguments(written(tmp_path, text), KNOWN)


def test_values_are_the_words_that_are_written(tmp_path, parse):
    text = "output_dir: 2024-01-01\nlearning_rate: 3e-5\nbf16: False\ncolumns: [no, off, yes]\nlr_scheduler_type: on"
    words = "--output_dir 2024-01-01 --learning_rate 3e-5 --bf16 false --columns no off yes --lr_scheduler_type on"
    assert recipe_arguments(written(tmp_path, text), KNOWN) == words.split()
    recipe = """
        model_name_or_path: m
        save_strategy: no
        eval_strategy: no
        run_name: -x
        max_steps: -1
        lr_scheduler_type: cosine_with_min_lr
        lr_scheduler_kwargs: {min_lr: 0.1}
    """
    *_, args, _ = parse(["--config", str(written(tmp_path, recipe)), "--train_files", "x", "--use_cpu"])
    assert (args.save_strategy, args.eval_strategy, args.run_name, args.max_steps) == ("no", "no", "-x", -1)
    assert args.lr_scheduler_kwargs == {"min_lr": 0.1}


def test_a_recipe_names_no_other_and_is_named_in_full(tmp_path, parse):
    path = str(written(tmp_path, "config: other.yaml"))
    with pytest.raises(
        ValueError, match=r"Expected arguments that a recipe can set in .*, found 'config', which is none"
    ):
        parse(["--config", path, "--train_files", "x"])
    with pytest.raises(UsageError, match=r"Expected an argument that there is, found --conf. Did you mean --config\?"):
        parse(["--conf", path, "--train_files", "x", "--use_cpu", "--model_name_or_path", "m"])


def test_a_recipe_that_is_not_there_is_missed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected a recipe, a YAML file, at .*none.yaml, found none"):
        recipe_arguments(tmp_path / "none.yaml", KNOWN)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses_and_the_command_line_overrides_it(path, parse):
    recipe = yaml.safe_load(path.read_text())
    line = ["--config", str(path), "--train_files", "a", "b", "--eval_files", "c"]
    cpu = [] if "use_cpu" in recipe else ["--use_cpu"]  # bf16 asks for a device that has it
    upstream, _, _, args, _ = parse([*line, *cpu])
    assert upstream.train_files == ["a", "b"]
    for name, value in recipe.items():
        found = getattr(upstream if hasattr(upstream, name) else args, name)
        assert type(value)(getattr(found, "value", found)) == value or float(found) == float(value), name
    upstream, _, _, args, _ = parse(
        [*line, *cpu, "--learning_rate", "0.5", "--bf16", "false", "--max_target_length", "9"]
    )
    assert (args.learning_rate, args.bf16, args.max_target_length) == (0.5, False, 9)
    assert args.max_steps == recipe["max_steps"]


def test_there_are_the_recipes_of_the_paper_and_a_small_one(parse):
    assert [path.stem for path in RECIPES] == ["bart0", "minilm", "t5"]
    line = [
        "--config",
        str(EXAMPLES / "recipes" / "bart0.yaml"),
        "--train_files",
        "x",
        "--eval_files",
        "z",
        "--use_cpu",
    ]
    upstream, _, _, args, _ = parse(line)
    assert upstream.model_name_or_path == "facebook/bart-large"
    assert (args.learning_rate, args.max_steps, args.per_device_train_batch_size) == (3e-5, 22000, 14)
    assert (args.max_input_length, args.max_target_length, args.token_budget) == (512, 128, None)
    with pytest.raises(UsageError, match="--model_name_or_path or --encoder_name_or_path, one of them, found both"):
        parse([*line, "--encoder_name_or_path", "y"])
    line.remove("--eval_files")
    line.remove("z")
    with pytest.raises(UsageError, match="give --eval_files, or --eval_strategy no --load_best_model_at_end false"):
        parse(line)


@pytest.mark.parametrize("path", LAUNCHES, ids=lambda path: path.stem)
def test_every_accelerate_config_is_taken_by_accelerate(path):
    config = load_config_from_file(str(path))
    args = launch_command_parser().parse_args(["--config_file", str(path), "script.py"])
    args, _, _ = _validate_launch_command(args)
    machines = 2 if path.stem == "multi_node" else 1
    assert (config.num_machines, args.num_machines, args.num_processes) == (machines, machines, 8 * machines)
    assert (args.use_fsdp, args.multi_gpu) == (path.stem == "fsdp", path.stem != "fsdp")
    assert args.mixed_precision == "no"  # so that the recipe decides


def test_there_are_configs_for_one_node_and_for_several():
    assert [path.stem for path in LAUNCHES] == ["ddp", "fsdp", "multi_node"]


def failing(message):
    raise SystemExit(message)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["input"], "argument --columns: expected names with values, such as input=value, found 'input'"),
        (["input="], "found 'input='"),
        (["=x"], "found '=x'"),
        (["inputs=x"], "expected one of the names input, id, found 'inputs'"),
        (["input=a", "input=b"], r"each name once, found 'input' twice \('a' and 'b'\)"),
    ],
)
def test_options_of_names_with_values_are_checked(words, match):
    with pytest.raises(SystemExit, match=match):
        named_values("--columns", words, failing, known=["input", "id"])


def test_options_of_names_with_values_are_read():
    assert named_values("--columns", ["input=a=b", "id=c"], failing) == {"input": "a=b", "id": "c"}
    assert named_values("--columns", [], failing) == {}
