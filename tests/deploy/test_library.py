"""Every subnet of a space as files: whole, resumable, indexed."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from networks import interpret, simulated

from deploy.library import INDEX, Branch, _descend, _Prefix, branches, write_all, write_branch
from deploy.tflite.read import read
from hil.errors import UsageError
from nas.quant.float_graph import INPUT
from nas.quant.integer_graph import IntTensor
from nas.space import Block, Choice, SearchSpace

SPACE = SearchSpace("tiny", 8, 8, (Block(2, 12, 2, 1), Block(1, 16, 1, 1)), (3, 5), (2, 3), (4, 8))


def rows_of(out):
    _, *records = [json.loads(line) for line in (out / INDEX).read_text().splitlines()]
    return [row for record in records for row in record["subnets"]]


def test_all_of_a_space_once_and_again(tmp_path):
    steps = list(write_all(SPACE, (32, 48), tmp_path, 2))
    assert steps[-1] == (SPACE.count(), SPACE.count())
    rows = rows_of(tmp_path)
    assert sorted(row["subnet"] for row in rows) == sorted(str(subnet) for subnet in SPACE.all_subnets())
    for row in rows:
        content = (tmp_path / row["file"]).read_bytes()
        assert row["file"] == hashlib.sha256(content).hexdigest() + ".tflite"
        assert read(tmp_path / row["file"]).size_bytes == row["bytes"]
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.tflite")}
    assert list(write_all(SPACE, (32, 48), tmp_path, 2)) == [(SPACE.count(), SPACE.count())]
    assert before == {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.tflite")}


def test_it_goes_on_after_a_cut(tmp_path):
    list(write_all(SPACE, (32, 48), tmp_path, 2))
    whole = (tmp_path / INDEX).read_text()
    lines = whole.splitlines(keepends=True)
    (tmp_path / INDEX).write_text("".join(lines[:3]) + lines[3][:20])  # killed in the middle of a line
    list(write_all(SPACE, (32, 48), tmp_path, 2))
    key = lambda row: row["subnet"]  # noqa: E731
    assert sorted(rows_of(tmp_path), key=key) == sorted(
        [row for line in lines[1:] for row in json.loads(line)["subnets"]], key=key
    )


def test_another_spaces_library_is_refused(tmp_path):
    list(write_all(SPACE, (32, 48), tmp_path, 1))
    with pytest.raises(UsageError, match="another space or size"):
        next(write_all(SPACE, (64, 64), tmp_path, 1))


def test_the_branches_cover_the_space_without_overlap(tmp_path):
    found = [row["subnet"] for branch in branches(SPACE) for row in write_branch(SPACE, branch, (16, 16), tmp_path)]
    assert sorted(found) == sorted(str(subnet) for subnet in SPACE.all_subnets())


def test_its_models_answer_as_the_simulation():
    source = IntTensor(INPUT, (6, 7, 8), 0.02, 3)
    prefix = _Prefix((), INPUT, torch.randn(1, 8, 8, 8), {INPUT: source}, ())
    from deploy.tflite.writer import write

    for _, graph in _descend(SPACE, Branch(1, 4, Choice(5, 3)), prefix):
        q = torch.randint(-128, 128, (1, 8, 6, 7)).float()
        answer = interpret(write(graph), q.permute(0, 2, 3, 1).numpy().astype(np.int8))
        np.testing.assert_array_equal(answer, simulated(graph, q))
