"""The packed form comes back byte for byte, and a damaged one is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from board_scripts import unpack_model
from deploy.cli import main
from deploy.formats.pack import _packed, pack
from deploy.formats.tflite.writer import write
from nas.networks.blocks import SuperBlock
from nas.nsr import walk
from tests.deploy.networks import block_data, space, trained_like
from tests.deploy.tiny_experiment import one_line

DEMO = space("demo")


@pytest.fixture(scope="module")
def models():
    found = {}
    for bits in (4, 6, 8):
        torch.manual_seed(0)
        judged = next(walk(trained_like(SuperBlock(DEMO, 4), 0), block_data(DEMO, 4, (6, 6)), bits))
        found[bits] = (judged.graph, write(judged.graph))
    return found


@given(st.integers(2, 8), st.integers(1, 50), st.integers(0, 2**31))
def test_packing_is_undone(bits, count, seed):
    half = 1 << (bits - 1)
    values = np.random.default_rng(seed).integers(-half, half, count).astype(np.int8)
    packed = _packed(values, bits)
    assert len(packed) == (count * bits + 7) // 8
    assert unpack_model.values(packed, count, bits) == values.tobytes()


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_a_model_comes_back_and_is_as_small_as_its_bits(models, bits):
    graph, content = models[bits]
    packed = pack(content)
    assert unpack_model.unpack(packed) == content
    weights = sum(op.weight.size for op in graph.operators if hasattr(op, "weight"))
    assert len(packed) <= len(content) - weights * (8 - bits) // 8 + 2000


def test_a_model_of_few_bits_is_that_much_smaller(models):
    sizes = {bits: len(pack(content)) for bits, (_, content) in models.items()}
    assert sizes[4] < sizes[6] < sizes[8]


def test_the_script_restores_on_the_board(models, tmp_path):
    (tmp_path / "m.packed").write_bytes(pack(models[4][1]))
    script = unpack_model.__file__
    done = subprocess.run(
        [sys.executable, "-S", script, "m.packed", "m.tflite"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes"] == len(models[4][1])
    assert (tmp_path / "m.tflite").read_bytes() == models[4][1]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused(models, data):
    packed = bytearray(pack(models[4][1]))
    if data.draw(st.booleans()):
        packed = packed[: data.draw(st.integers(0, len(packed) - 1))]
    else:
        position = data.draw(st.integers(0, len(packed) - 1))
        packed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(unpack_model.Damaged):
        unpack_model.unpack(bytes(packed))


@pytest.mark.parametrize(
    "header",
    [
        {"size": 9, "sha256": "", "segments": [[1, 2]]},
        {"size": 9, "sha256": "", "segments": [[1, 2, 4, 4]]},
        {"size": float("inf"), "sha256": "", "segments": []},
        {"size": 9, "sha256": "", "segments": [[5, 2, 4], [4, 2, 4]]},
        {"size": 9, "sha256": "", "segments": 3},
        [],
    ],
)
def test_a_header_of_another_form_is_refused(header):
    encoded = json.dumps(header).encode()
    with pytest.raises(unpack_model.Damaged):
        unpack_model.unpack(unpack_model.MAGIC + len(encoded).to_bytes(4, "big") + encoded + bytes(9))


def test_a_damaged_file_leaves_nothing_behind(models, tmp_path):
    (tmp_path / "m.packed").write_bytes(pack(models[4][1])[:-1])
    assert unpack_model.main(["", str(tmp_path / "m.packed"), str(tmp_path / "m.tflite")]) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["m.packed"]


# The commands


@pytest.mark.parametrize(("bits", "least"), [(4, 0.3), (6, 0.15)])
def test_pack_and_unpack_say_both_sizes(models, tmp_path, capsys, bits, least):
    content = models[bits][1]
    model, packed, back = (tmp_path / name for name in ("m.tflite", "m.packed", "back.tflite"))
    model.write_bytes(content)
    assert main(["pack", str(model), "--out", str(packed)]) == 0
    smaller = 1 - packed.stat().st_size / len(content)
    assert smaller > least
    sizes = f"{len(content)} bytes; {packed}: {packed.stat().st_size} bytes, {smaller:.1%} smaller\n"
    assert capsys.readouterr().out == f"{model}: {sizes}"
    assert main(["unpack", str(packed), "--out", str(back)]) == 0
    assert capsys.readouterr().out == f"{back}: {sizes}"
    assert back.read_bytes() == content


def test_pack_says_that_eight_bits_gain_nothing(tmp_path, capsys):
    from tests.deploy.inspected_models import TENSOR, edited, written

    def full_width(model):
        for buffer in model.buffers:
            if buffer.data is not None and len(buffer.data) > 8:
                buffer.data = np.full(len(buffer.data), 127, np.uint8)

    (tmp_path / "m.tflite").write_bytes(edited(written(TENSOR), full_width))
    assert main(["pack", str(tmp_path / "m.tflite"), "--out", str(tmp_path / "m.packed")]) == 0
    assert "larger: its weights need all their bits" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"no model at all", None])
def test_what_is_no_model_is_not_packed(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "m.tflite").write_bytes(content)
    assert main(["pack", str(tmp_path / "m.tflite"), "--out", str(tmp_path / "out")]) == (2 if content is None else 4)
    one_line(capsys.readouterr().err, "m.tflite")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut", "not packed", "missing"])
def test_what_is_not_whole_is_not_unpacked(models, tmp_path, capsys, damage):
    packed = tmp_path / "m.packed"
    if damage != "missing":
        packed.write_bytes(pack(models[4][1])[:-1] if damage == "cut" else models[4][1])
    assert main(["unpack", str(packed), "--out", str(tmp_path / "out")]) == 4
    one_line(capsys.readouterr().err, "m.packed", "hilnas pack")
    assert not list(tmp_path.glob("out*"))
