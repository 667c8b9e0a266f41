import dataclasses
import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recross_hf.planning import plan as planning
from recross_hf.planning.plan import (
    Plan,
    Room,
    Seconds,
    duration,
    existing_folder,
    peak_memory,
    size,
    warn_where_disk_is_short,
)

GB = 10**9
ADVICE = {"memory": "Take less.", "device_memory": "Take a larger GPU.", "disk": "Tidy up."}


def plan(**changes) -> Plan:
    settings = {
        "work": "Sorting 10 books",
        "probe": "2 of them",
        "seconds": Seconds(100.0, 90.0, 110.0),
        "shared": 0.8,
        "memory": GB,
        "device_memory": None,
        "disk": 3 * GB,
        "kept": 2 * GB,
        "room": Room(4 * GB, None, 5 * GB),
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
            {"device_memory": 2 * GB, "room": Room(4 * GB, GB, 5 * GB)},
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
    seconds = Seconds.of(samples, count)
    assert seconds.expected == pytest.approx(count * sum(samples) / len(samples))
    assert 0 <= seconds.low <= seconds.expected <= seconds.high
    longer = seconds.plus(5.0)
    assert dataclasses.astuple(longer) == pytest.approx([value + 5 for value in dataclasses.astuple(seconds)])


def test_the_room_is_that_of_this_machine(tmp_path, monkeypatch):
    room = Room.of(tmp_path / "not" / "yet", torch.device("cpu"))
    assert room.device_memory is None
    assert room.disk > 0
    assert room.memory > peak_memory() > 10**7
    limit = tmp_path / "memory.max"
    limit.write_text("123456\n")
    monkeypatch.setattr(planning, "CGROUP_LIMITS", (limit,))
    assert Room.of(tmp_path).memory == 123456
    limit.write_text("max\n")
    assert Room.of(tmp_path).memory > 123456
    assert existing_folder(tmp_path / "not" / "yet") == tmp_path


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
