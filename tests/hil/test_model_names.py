from __future__ import annotations

from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.names import Known, shortest, told_apart

WORDS = st.sampled_from(["a", "b", "m", "model.tflite"])
PATHS = st.lists(st.lists(WORDS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts)), max_size=8)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/x/a/model.tflite"], ["model.tflite"]),
        (["/x/a/model.tflite", "/x/b/model.tflite"], ["a/model.tflite", "b/model.tflite"]),
        (["/x/a/m", "/y/a/m", "/x/a/other"], ["x/a/m", "y/a/m", "other"]),
        (["/m", "/a/m"], ["/m", "a/m"]),
        (["/x/m", "/x/../x/./m"], ["m", "m"]),
        ([], []),
    ],
)
def test_the_shortest_paths(paths: list[str], names: list[str]) -> None:
    assert shortest(paths) == names


def test_paths_are_the_working_directorys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert shortest(["m", "../there/m"]) == ["here/m", "there/m"]


@given(PATHS)
def test_each_path_has_a_name_of_its_own_and_none_could_be_shorter(paths: list[str]) -> None:
    names = shortest(paths)
    assert len(set(names)) == len(set(paths))
    for path, name in zip(paths, names, strict=True):
        parts, own = PurePath(path).parts, PurePath(name).parts
        assert parts[-len(own) :] == own
        if len(own) > 1:
            assert sum(PurePath(other).parts[-len(own) + 1 :] == own[1:] for other in set(paths)) > 1


@given(st.lists(st.builds(Known, WORDS, st.sampled_from(["", "/x/a/m", "/x/b/m"]), st.sampled_from("123")), max_size=8))
def test_no_name_is_of_two_contents(models: list[Known]) -> None:
    shown = told_apart(models)
    contents: dict[str, set[str]] = {}
    for name, model in zip(shown, models, strict=True):
        contents.setdefault(name, set()).add(model.sha256)
    assert all(len(found) == 1 for found in contents.values())


def test_a_name_that_is_clear_stays() -> None:
    one, copy, other = Known("m", "/x/m", "1"), Known("m", "/y/m", "1"), Known("n", "", "2")
    assert told_apart([one, copy, other]) == ["m", "m", "n"]
    assert told_apart([one, Known("m", "", "2" * 64)]) == ["m@1", "m@22222222"]
