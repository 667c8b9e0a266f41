"""What `recross train` measures of the weights that it wrote, and how often."""

import json

import tiny

from recross_hf.cli import train

ARGUMENTS = [
    "--model_name_or_path",
    "bart",
    "--train_files",
    "upstream.parquet",
    "--eval_files",
    "upstream.parquet",
    "--output_dir",
    "out",
    "--use_cpu",
    "--max_steps",
    "2",
    "--eval_strategy",
    "steps",
    "--eval_steps",
    "1",
    "--save_strategy",
    "steps",
    "--save_steps",
    "1",
    "--max_target_length",
    "4",
    "--disable_tqdm",
    "true",
    "--report_to",
    "none",
]


def test_the_last_weights_are_evaluated_once_and_again_where_the_run_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny.examples().to_parquet("upstream.parquet")
    tokenizer = tiny.tokenizer()
    for part in (tiny.bart(tokenizer, dropout=0.0), tokenizer):
        part.save_pretrained("bart")
    evaluate, evaluations = train.UpstreamTrainer.evaluate, []

    def counted(self, eval_dataset=None, *args, **kwargs):
        if eval_dataset is None:  # of all tasks
            evaluations.append(self.state.global_step)
        return evaluate(self, eval_dataset, *args, **kwargs)

    monkeypatch.setattr(train.UpstreamTrainer, "evaluate", counted)
    train.main([*ARGUMENTS, "--max_eval_examples_per_task", "2"])
    assert evaluations == [1, 2]
    first = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert {found["n"] for found in first["tasks"].values()} == {2}
    # The finished run that is told to go on has other examples to evaluate than those that it has logged.
    train.main([*ARGUMENTS, "--max_eval_examples_per_task", "5", "--resume_from_checkpoint", "true"])
    assert evaluations == [1, 2, 2]
    again = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert {found["n"] for found in again["tasks"].values()} == {5}
    assert again["eval_loss"] != first["eval_loss"]
