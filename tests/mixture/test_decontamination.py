import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

import recross_hf
from recross_hf import load_examples
from recross_hf.data.schema import EXAMPLE_FEATURES
from recross_hf.mixture.decontamination import Decontaminator, Overlap, source_example

PASSAGE = "the old lighthouse keeper counts seven green boats every evening before he lights the lamp again"


def target(inputs, task="target", references=None, ids=None):
    references = references or [["yes"]] * len(inputs)
    ids = ids or [f"{task}|test|plain|#{number}" for number in range(len(inputs))]
    rows = {"id": ids, "task": [task] * len(inputs), "template": ["plain"] * len(inputs), "input": inputs}
    return load_examples(
        Dataset.from_dict(
            rows | {"references": references, "choices": [[]] * len(inputs)},
            features=EXAMPLE_FEATURES,
        )
    )


def find(texts, *inputs, references=(), ids=()):
    ids = ids or [f"upstream/{number}" for number in range(len(inputs))]
    return texts.find(ids, inputs, references or [[]] * len(inputs))


def test_the_name_of_one_release_ago_still_works_and_says_the_new_one():
    with pytest.warns(DeprecationWarning, match=r"`recross_hf\.TargetTexts` is now `recross_hf\.Decontaminator`"):
        assert recross_hf.TargetTexts is Decontaminator
    assert not Decontaminator()


def test_an_example_with_the_words_of_a_target_is_found_whatever_its_case_and_punctuation():
    texts = Decontaminator.of([target(["Is it wet? It rains."])])
    assert find(texts, "is it WET -- it rains!", "Is it wet? It snows.") == [
        Overlap("exact", "target", "target|test|plain|#0", "is it wet it rains"),
        None,
    ]


def test_a_shared_ngram_is_found_in_the_input_and_in_the_answer():
    texts = Decontaminator.of([target([f"Read: {PASSAGE}. Is it late?"])], ngram_size=8)
    thirteen = " ".join(PASSAGE.split()[2:10])
    inputs = [f"Summarise: {thirteen} and more", "Write something.", "Nothing in common here, not a single thing."]
    found = find(texts, *inputs, references=[["a"], [f"So {thirteen}."], ["b"]])
    assert [overlap and overlap.kind for overlap in found] == ["ngram", "ngram", None]
    assert found[0].shared == thirteen
    assert find(texts, " ".join(PASSAGE.split()[2:9])) == [None]  # one word short


def test_no_ngram_crosses_from_the_input_into_the_answer():
    words = PASSAGE.split()
    texts = Decontaminator.of([target([PASSAGE])], ngram_size=8)
    assert find(texts, " ".join(words[:4]), references=[[" ".join(words[4:8])]]) == [None]
    assert Decontaminator.of([target(["a b c"], references=[["d e f g h"]])], ngram_size=8).find(
        ["x"], ["a b c d e f g h"], [[]]
    ) == [None]


def test_the_same_source_example_is_found_by_its_id_whatever_the_template():
    texts = Decontaminator.of([target(["one"], ids=["cb|validation|GPT-3 style|#7"])])
    found = find(texts, "a", "b", ids=["cb|validation|can we infer|#7", "cb|train|can we infer|#7"])
    assert found == [Overlap("id", "target", "cb|validation|GPT-3 style|#7", "cb|validation|#7"), None]


@pytest.mark.parametrize(
    ("identity", "source"),
    [
        ("cb|validation|a|b|#7", "cb|validation|#7"),
        ("cb|validation|#7", "cb|validation|#7"),
        ("ticket-7", "ticket-7"),
        ("a|b|c|d", "a|b|c|d"),
    ],
)
def test_ids_say_their_source_example(identity, source):
    assert source_example(identity) == source


INSTRUCTION = "given the following passage please say in one word whether the statement below follows from it"


def kinds(texts, *inputs):
    return [overlap and overlap.kind for overlap in find(texts, *inputs)]


def test_the_wording_of_a_template_is_no_overlap_but_a_shared_passage_is():
    inputs = [f"{INSTRUCTION} number{n} stands alone here" for n in range(40)]
    # Ten questions on one passage are content.
    inputs[:10] = [f"{INSTRUCTION}: {PASSAGE} question{n}" for n in range(10)]
    texts = Decontaminator.of([target(inputs)])
    assert kinds(texts, f"{INSTRUCTION}: my own passage", f"My own words. {PASSAGE}") == [None, "ngram"]


def test_wording_is_told_template_by_template():
    """Each of fifteen templates is in a fifteenth of the examples."""
    names = [f"t{n}" for n in range(15)]
    inputs = [f"{name} {name} {name} {name}. {INSTRUCTION} w{n}" for n in range(20) for name in names]
    examples = target(inputs, ids=[f"cb|test|{name}|#{n}" for n in range(20) for name in names])
    examples = examples.remove_columns("template").add_column("template", names * 20)
    assert kinds(Decontaminator.of([examples]), f"t3 t3 t3 t3 {INSTRUCTION} for mine") == [None]
    # Of few examples nothing is told.
    assert kinds(Decontaminator.of([examples.select(range(15 * 9))]), f"t3 t3 t3 t3 {INSTRUCTION} for mine") == [
        "ngram"
    ]


def test_few_passages_with_many_questions_are_content():
    inputs = [f"Passage {n % 5}: {PASSAGE.replace('seven', f'number{n % 5}')} Question {n}" for n in range(100)]
    texts = Decontaminator.of([target(inputs)])
    assert kinds(texts, *(PASSAGE.replace("seven", f"number{n}") for n in range(5))) == ["ngram"] * 5


def test_a_task_may_be_spread_over_several_data_sets():
    inputs = [f"{INSTRUCTION} number{n} stands alone here" for n in range(40)]
    whole = target(inputs)
    spread = [whole.select(range(start, start + 4)) for start in range(0, 40, 4)]
    assert Decontaminator.of(spread).identity() == Decontaminator.of([whole]).identity()


def test_without_names_of_templates_wording_is_what_many_examples_have():
    inputs = [f"{INSTRUCTION} number{n} alone" if n % 4 else f"Something else {n}" for n in range(80)]
    unnamed = target(inputs).remove_columns("template")
    assert kinds(Decontaminator.of([unnamed]), f"{INSTRUCTION} mine") == [None]


def test_prompts_of_one_source_example_count_once_in_telling_templates_from_content():
    ids = [f"t|test|prompt{n}|#{n // 15}" for n in range(30)]
    inputs = [f"{PASSAGE} version{n}" for n in range(15)] + [f"word{n} alone" for n in range(15)]
    texts = Decontaminator.of([target(inputs, ids=ids)])
    assert find(texts, PASSAGE)[0].kind == "ngram"


def test_targets_of_several_tasks_are_told_apart():
    texts = Decontaminator.of([target(["one two"], "first"), target(["three four"], "second")])
    assert [overlap.target_task for overlap in find(texts, "three, four", "One two")] == ["second", "first"]
    assert len(texts) == 2


def test_query_sets_have_no_answers():
    texts = Decontaminator.of([target(["one two"]).remove_columns("references")])
    assert find(texts, "one two")[0].kind == "exact"


def test_nothing_overlaps_with_no_target_or_no_words():
    assert find(Decontaminator(), "a") == [None]
    assert find(Decontaminator.of([target(["?!"])]), "...") == [None]
    with pytest.raises(ValueError, match="Expected `ngram_size` to be at least 2 words, found 1"):
        Decontaminator(1)


def test_the_identity_depends_on_what_is_compared_with():
    one, two = target(["one two"]), target(["one three"])
    assert Decontaminator.of([one]).identity() == Decontaminator.of([one]).identity()
    different = [
        Decontaminator.of([two]),
        Decontaminator.of([one], ngram_size=2),
        Decontaminator(),
        Decontaminator.of([one, two]),
    ]
    assert len({texts.identity() for texts in (Decontaminator.of([one]), *different)}) == 5


words = st.lists(st.sampled_from("abcd"), min_size=0, max_size=12)


@given(words, st.lists(words, min_size=1, max_size=6), st.integers(2, 4))
def test_ngrams_are_found_as_by_comparing_all_of_them(target_words, examples, size):
    def ngrams(text):
        return {tuple(text[start : start + size]) for start in range(len(text) - size + 1)}

    texts = Decontaminator.of([target([" ".join(["z", *target_words])])], ngram_size=size)
    found = find(texts, *(" ".join(example) for example in examples))
    expected = [bool(ngrams(example) & ngrams(["z", *target_words])) for example in examples]
    assert [overlap is not None for overlap in found] == expected
    for overlap, example in zip(found, examples, strict=True):
        if overlap is not None:
            assert overlap.shared in " ".join(example)


def test_hashes_do_not_depend_on_the_process():
    texts = Decontaminator.of([target(["one two three"])], ngram_size=2)
    assert texts.identity() == "b12868e7746ad4451c4bb355471e1b94"
    assert texts._ngrams.hashes.dtype == np.uint64
