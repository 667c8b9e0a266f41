import pytest

from recross_hf.adaptation.record import RETRIEVED_FILE
from recross_hf.core.output_folders import (
    ADAPTATIONS,
    OF_MODELS,
    WRITTEN_BY,
    check_apart,
    check_apart_from_files,
    check_not_of_others,
    folder_to_write,
)
from recross_hf.evaluation.results import CELLS_FILE
from recross_hf.hub.safety import MANIFEST_FILE
from recross_hf.mixture.prepare import MIXTURE_FILE
from recross_hf.retrieval.index_files import CONFIG_FILE
from recross_hf.supervision.query_sets import SETTINGS_FILE


def test_the_files_that_tell_are_those_that_are_written():
    assert set(WRITTEN_BY) == {
        MANIFEST_FILE,
        CONFIG_FILE,
        RETRIEVED_FILE,
        MIXTURE_FILE,
        SETTINGS_FILE,
        CELLS_FILE,
        ADAPTATIONS,
    }


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("made/pipeline", "itself"),
        ("made/other/../pipeline", "itself"),
        ("link", "itself"),
        ("made/pipeline/index", "which lies inside it"),
        ("made/pipeline/new", "which lies inside it"),
        ("made", "which holds it"),
        (".", "which holds it"),
    ],
)
def test_an_output_folder_is_apart_from_what_is_read(output, found, tmp_path, monkeypatch):
    (tmp_path / "made" / "pipeline" / "index").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "made" / "pipeline")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"apart from the pipeline, the folder .*, found .*{found}.*Choose another"):
        check_apart(output, {"the model": "org/name", "the index": None, "the pipeline": "made/pipeline"})
    for apart in ("made/pipeline-2", "made/new", "new"):
        check_apart(apart, {"the pipeline": tmp_path / "made" / "pipeline"})
    (tmp_path / "made" / "x.parquet").touch()
    with pytest.raises(ValueError, match=r"apart from the files that are read, found .*made, which holds x\.parquet"):
        check_apart_from_files("made", ["made/x.parquet"])
    with pytest.raises(ValueError, match=r"which holds made/x\.parquet"):
        check_apart_from_files(".", ["made/x.parquet"])
    check_apart_from_files("made/new", ["made/x.parquet"])


def test_a_folder_of_something_else_is_refused_and_one_of_an_earlier_run_is_not(tmp_path):
    for own in (*WRITTEN_BY, None):
        check_not_of_others(tmp_path / "none", own, overwritten=OF_MODELS)
        for name, what in WRITTEN_BY.items():
            folder = tmp_path / f"{own}-{name}"
            folder.mkdir()
            (folder / name).touch()
            if own == name:
                (folder / "config.json").touch()
                check_not_of_others(folder, own, overwritten=OF_MODELS)
            else:
                with pytest.raises(FileExistsError, match=rf"found {what} \({name}\) in .*or empty this one first"):
                    check_not_of_others(folder, own)
    (tmp_path / "README.md").touch()
    with pytest.raises(FileExistsError, match=r"or an adapted model, found README\.md of something else in"):
        check_not_of_others(tmp_path, RETRIEVED_FILE, overwritten=["README.md"])
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / RETRIEVED_FILE).touch()
    check_not_of_others(tmp_path, RETRIEVED_FILE, overwritten=["README.md"])


def test_an_adaptation_may_go_where_an_earlier_one_left_its_manifest_and_not_into_a_saved_pipeline(tmp_path):
    for name in (RETRIEVED_FILE, MANIFEST_FILE):  # a saved pipeline that was adapted keeps its models below
        (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match=r"found a pipeline \(recross\.json\)"):
        check_not_of_others(tmp_path, RETRIEVED_FILE, overwritten=OF_MODELS)
    (tmp_path / "adapter_model.safetensors").touch()
    check_not_of_others(tmp_path, RETRIEVED_FILE, overwritten=OF_MODELS)
    with pytest.raises(FileExistsError, match=r"found a pipeline \(recross\.json\)"):
        check_not_of_others(tmp_path, None)


def test_a_model_that_was_made_in_memory_is_in_no_folder(tmp_path, monkeypatch):
    """Its name is an empty text, which is no name of the working directory."""
    monkeypatch.chdir(tmp_path)
    check_apart("pipeline", {"the upstream model": "", "the reranker": None})


@pytest.mark.parametrize("path", ["", " ", "a\0b"])
def test_a_folder_to_write_has_a_name(path):
    with pytest.raises(ValueError, match="the name of a folder to write"):
        folder_to_write(path)
