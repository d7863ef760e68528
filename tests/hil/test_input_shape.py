"""Sizes of inputs: their text, what they change in a job's identity and conditions, and what they leave as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.boards.config import BoardConfig
from hil.errors import Incomparable, UsageError
from hil.input_shape import InputShape, shapes_in, text_of
from hil.job import Job, MeasureProtocol, identity_of, tasks_of
from hil.measure import pooled
from hil.measurement import Conditions, Measurement
from hil.store import Store
from tests.hil.stored_measurements import CONDITIONS, ONE

names = st.text(min_size=1, max_size=12)
shapes = st.lists(st.integers(1, 200), max_size=4).map(tuple)
entries = st.builds(InputShape, names, shapes)
BOARD = BoardConfig("bench", "loopback")
SIZED = (InputShape("x", (1, 224, 224, 3)),)


@given(entries)
def test_text_and_record_are_inverses(entry: InputShape) -> None:
    assert InputShape.parse(str(entry)) == entry


@given(st.lists(entries, max_size=4).map(tuple))
def test_all_inputs_have_one_text(several: tuple[InputShape, ...]) -> None:
    assert shapes_in(text_of(several)) == several


def test_a_name_as_converters_write_it_stays_as_it_is() -> None:
    text = "serving_default_input_1:0=1x224x224x3"
    assert str(InputShape.parse(text)) == text
    assert InputShape.parse(text) == InputShape("serving_default_input_1:0", (1, 224, 224, 3))


@pytest.mark.parametrize(
    "text",
    ["", "x", "1x2x3", "=1x2", "x=1x", "x=x1", "x=1x-1", "x=1,2", "x=1.5", "x=0", "x=1x0x3", "x=" + "9" * 5000,
     "x=65536x65536", "x=1 x2", "x=１x２"],
)  # fmt: skip
def test_what_is_no_shape_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        InputShape.parse(text)
    assert "\n" not in str(caught.value) and "input shape" in str(caught.value)


def test_a_job_without_them_is_the_job_that_it_was(tmp_path: Path) -> None:
    """Digests as the version before had them: what its stores hold is not measured again."""
    for name in ("m", "x", "y"):
        (tmp_path / name).write_bytes(name.encode())
    plain = Job(tmp_path / "m", "m", tmp_path / "x", tmp_path / "y")
    assert CONDITIONS.key() == "0c224777f5e7ffaa" and "input_shapes" not in CONDITIONS.to_json()
    assert identity_of(plain, "ab" * 32, BOARD) == "f287fc489a63f669dcffe33ca1b0885c6a93ddad800933a9b3380becc241df0e"
    (task,) = tasks_of([plain], BOARD, CONDITIONS.key(), MeasureProtocol(rounds=1), 0)
    assert task.job_id == "137af4e857bd5284b97032bc72fe02dbebbb52070a51dc773bb474d7b1a4d1ee"
    assert plain.under(CONDITIONS) is CONDITIONS


def test_they_are_part_of_the_identity_and_of_the_conditions(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"m")
    other = (InputShape("x", (1, 448, 448, 3)),)
    jobs = [Job(tmp_path / "m", "m", input_shapes=shape) for shape in ((), SIZED, other)]
    assert len({identity_of(job, "ab" * 32, BOARD) for job in jobs}) == 3
    keys = [job.under(CONDITIONS).key() for job in jobs]
    assert keys[0] == CONDITIONS.key() and len(set(keys)) == 3
    assert jobs[1].under(CONDITIONS).input_shapes == "x=1x224x224x3"


def sized(shape: str, **changes: object) -> Measurement:
    return replace(ONE, conditions=replace(CONDITIONS, input_shapes=shape), job_id=f"j{shape}{changes}", **changes)


def test_a_store_keeps_them_and_old_records_have_none(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        store.add(ONE)
        store.add(sized("x=1x224x224x3"))
        assert [m.conditions.input_shapes for m in store.all()] == ["", "x=1x224x224x3"]
    raw = CONDITIONS.to_json()
    assert Conditions.from_json(raw) == CONDITIONS == Conditions.from_json({**raw, "input_shapes": ""})


def test_one_model_at_two_sizes_is_not_pooled() -> None:
    """Two models are: each has its own sizes, and all else is alike."""
    small, large = sized("x=1x8x8x3"), sized("x=1x16x16x3")
    with pytest.raises(Incomparable, match="2 different conditions"):
        pooled([small, large])
    assert set(pooled([small, replace(large, model_sha256="b" * 64)])) == {"a" * 64, "b" * 64}
    elsewhere = replace(large, model_sha256="b" * 64, conditions=replace(large.conditions, threads=4))
    with pytest.raises(Incomparable):
        pooled([small, elsewhere])
