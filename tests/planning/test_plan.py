import dataclasses
import importlib.util
import logging
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recross_hf.planning import resources as resources_module
from recross_hf.planning.plan import Plan, TimeEstimate, duration, size, warn_where_disk_is_short
from recross_hf.planning.resources import Resources, existing_folder, peak_memory

GB = 10**9
ADVICE = {"memory": "Take less.", "device_memory": "Take a larger GPU.", "disk": "Tidy up."}


def plan(**changes) -> Plan:
    settings = {
        "work": "Sorting 10 books",
        "probe": "2 of them",
        "seconds": TimeEstimate(100.0, 90.0, 110.0),
        "shared": 0.8,
        "memory": GB,
        "device_memory": None,
        "disk": 3 * GB,
        "kept": 2 * GB,
        "resources": Resources(4 * GB, None, 5 * GB),
        "num_processes": 1,
        "advice": ADVICE,
    }
    return Plan(**settings | changes)


def test_a_plan_that_fits_warns_of_nothing_and_prints_as_a_table():
    assert plan().warnings == []
    text = str(plan())
    assert text.startswith("Sorting 10 books. Tried out: 2 of them.")
    lines = [line.split() for line in text.splitlines()]
    assert ["memory", "1", "GB", "4", "GB"] in lines
    assert ["disk", "3", "GB,", "2", "GB", "of", "it", "to", "stay", "5", "GB"] in lines
    assert "(computed): 2: 60 s, 4: 40 s, 8: 30 s" in text


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"memory": 5 * GB}, "This cannot fit: memory of 5 GB is needed, there is 4 GB. Take less."),
        ({"disk": 6 * GB}, "This cannot fit: disk space of 6 GB is needed, there is 5 GB. Tidy up."),
        (
            {"device_memory": 2 * GB, "resources": Resources(4 * GB, GB, 5 * GB)},
            "This cannot fit: GPU memory of 2 GB is needed, there is 1 GB. Take a larger GPU.",
        ),
    ],
)
def test_what_there_is_too_little_of_is_said_with_what_to_do(changes, warning):
    assert plan(**changes).warnings == [warning]
    assert str(plan(**changes)).endswith(warning)


def test_processes_of_one_host_share_its_memory(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    many = plan(num_processes=8)
    assert "memory of 8 GB is needed" in many.warnings[0]
    assert "1 GB x 8" in str(many)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert plan(num_processes=8).warnings == []


@given(st.floats(0, 1), st.integers(1, 64), st.integers(1, 64))
def test_more_processes_share_what_can_be_shared(shared, measured, wanted):
    of = plan(shared=shared, num_processes=measured)
    assert of.seconds_on(measured) == pytest.approx(100)
    assert of.seconds_on(wanted) == pytest.approx(100 * (1 - shared) + 100 * shared * measured / wanted)


def test_a_plan_without_a_probe_has_no_time():
    unknown = plan(seconds=None)
    assert "unknown" in str(unknown)
    with pytest.raises(ValueError, match="Expected a plan with `seconds`, found one of a run that cannot fit"):
        unknown.seconds_on(2)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=20), st.integers(1, 1000))
def test_time_is_extrapolated_with_a_spread(samples, count):
    seconds = TimeEstimate.of(samples, count)
    assert seconds.expected == pytest.approx(count * sum(samples) / len(samples))
    assert 0 <= seconds.low <= seconds.expected <= seconds.high
    longer = seconds.plus(5.0)
    assert dataclasses.astuple(longer) == pytest.approx([value + 5 for value in dataclasses.astuple(seconds)])


def test_the_resources_are_those_of_this_machine(tmp_path, monkeypatch):
    resources = Resources.of(tmp_path / "not" / "yet", torch.device("cpu"))
    assert resources.device_memory is None
    assert resources.disk > 0
    assert resources.memory > peak_memory() > 10**7
    limit = tmp_path / "memory.max"
    limit.write_text("123456\n")
    monkeypatch.setattr(resources_module, "CGROUP_LIMITS", (limit,))
    assert Resources.of(tmp_path).memory == 123456
    limit.write_text("max\n")
    assert Resources.of(tmp_path).memory > 123456
    assert existing_folder(tmp_path / "not" / "yet") == tmp_path


def test_the_peak_of_memory_is_no_less_than_what_was_held():
    before = peak_memory()
    held = np.ones(before + 50 * 10**6, dtype=np.uint8)  # more than there ever was, so that the peak must rise
    assert peak_memory() >= before + 50 * 10**6
    peak = peak_memory()
    del held
    assert peak_memory() >= peak - 10**7  # Linux corrects its peak by some pages


def test_the_peak_is_had_without_the_files_of_linux_too(tmp_path, monkeypatch):
    peak = peak_memory()
    monkeypatch.setattr(resources_module, "PROCESS_STATUS", tmp_path / "none")
    assert peak_memory() == pytest.approx(peak, rel=0.5)  # where a parent was larger, Unix counts its memory in
    (tmp_path / "status").write_text("Name:\tpython\n")  # as a kernel that counts no peaks has it
    monkeypatch.setattr(resources_module, "PROCESS_STATUS", tmp_path / "status")
    assert peak_memory() == pytest.approx(peak, rel=0.5)


def test_on_windows_there_is_a_peak_without_the_module_resource(tmp_path, monkeypatch):
    """The module is loaded afresh, as if no module `resource` could be imported."""
    monkeypatch.setitem(sys.modules, "resource", None)
    spec = importlib.util.spec_from_file_location("resources_of_windows", resources_module.__file__)
    windows = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, windows)  # where dataclasses look for it
    spec.loader.exec_module(windows)
    windows.PROCESS_STATUS = tmp_path / "none"
    told = type("Memory", (), {"rss": 10**8, "peak_wset": 3 * 10**8})()
    monkeypatch.setattr(windows.psutil.Process, "memory_info", lambda self: told)
    assert windows.peak_memory() == 3 * 10**8
    assert windows.Resources.of(tmp_path).memory > 10**8


def test_a_run_says_before_it_starts_that_the_disk_is_too_small(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    warn_where_disk_is_short(tmp_path, 1000, "Tidy up.")
    assert not caplog.records
    warn_where_disk_is_short(tmp_path / "new", 10**18, "Tidy up.")
    assert "This cannot fit: at least 1,000,000.0 TB are needed below" in caplog.text
    assert caplog.text.strip().endswith("Tidy up.")


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1234, "1.23 kB"), (5.1e10, "51 GB")]
)
def test_sizes_are_for_people(number, text):
    assert size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (99, "99 s"), (150, "2.5 min"), (7200, "2 h"), (864000, "10 days")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text
