"""The command out of a wheel, as users install it: away from a checkout of the project."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OF_A_BUILD = ("pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The content of the wheel, in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        ROOT / "src", folder / "project" / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
    )
    for name in OF_A_BUILD:
        shutil.copy(ROOT / name, folder / "project" / name)
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", ".", "./project"]
    subprocess.run([sys.executable, "-m", *build], cwd=folder, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


@pytest.mark.slow
def test_a_wheel_publishes_the_starter_and_says_once_what_it_leaves_out(installed, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "recross_hf", "publish", "--namespace", "me", "--dry_run"]
    for more, said in (
        ([], ["the SoftEM metric and the starter's own card"]),
        (["--no_metric"], ["installed package: the starter's own card"]),
        (["--no_metric", "--pipeline", str(installed / "recross_hf" / "starter_data")], []),
    ):
        done = subprocess.run(
            [*command, *more], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        told = [line for line in done.stdout.splitlines() if line.startswith("Left out")]
        assert len(told) == len(said)
        assert all(words in line for words, line in zip(said, told, strict=True))
        assert "me/soft_em" not in done.stdout
        assert "Nothing was published: this was a dry run." in done.stdout
