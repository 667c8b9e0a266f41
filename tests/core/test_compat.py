"""Each private name that the lower packages hold on to does what is needed of it in the versions that are installed."""

import copy

from accelerate import PartialState
from datasets import Dataset
from example_scripts import as_of_a_new_process
from peft import LoraConfig, get_peft_model

from recross_hf.core._compat import commit_of, fingerprint_of, has_process_state, note_commit


def test_a_process_that_asked_for_its_device_has_a_state_and_another_has_none():
    with as_of_a_new_process():
        assert (has_process_state(), has_process_state()) == (False, False)
        PartialState(cpu=True)
        assert has_process_state()


def test_a_fingerprint_stands_for_the_content_of_a_data_set(tmp_path):
    dataset = Dataset.from_dict({"text": ["a", "b"]})
    dataset.save_to_disk(tmp_path)
    first, second = (Dataset.load_from_disk(tmp_path) for _ in range(2))
    assert fingerprint_of(first) == fingerprint_of(second)
    assert fingerprint_of(first.select([1])) == fingerprint_of(second.select([1])) != fingerprint_of(first)


def test_the_commit_that_was_noted_with_a_model_stays_with_it_and_is_not_saved(bart, tmp_path):
    assert commit_of(bart) is None
    model = copy.deepcopy(bart)
    note_commit(model, "0123abc")
    wrapped = get_peft_model(copy.deepcopy(model), LoraConfig(task_type="SEQ_2_SEQ_LM"))
    assert commit_of(model) == commit_of(wrapped) == "0123abc"
    model.save_pretrained(tmp_path)
    assert "0123abc" not in (tmp_path / "config.json").read_text()
