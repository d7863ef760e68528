"""The packed form comes back byte for byte, and a damaged one is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from board_scripts import unpack_model
from deploy.cli import main
from deploy.formats.pack import MAGIC, _narrowest, _packed, _segments, pack
from deploy.formats.tflite.writer import write
from nas.networks.blocks import SuperBlock
from nas.nsr import evaluate_all
from nas.quant.float_graph import INPUT, Conv, FullyConnected
from nas.quant.post_training import quantize
from nas.quant.scheme import Scheme
from tests.deploy.networks import block_data, space, trained_like
from tests.deploy.tiny_experiment import one_line

DEMO = space("demo")


FORMS = [(4, "asymmetric"), (6, "asymmetric"), (8, "asymmetric"), (4, "symmetric"), (6, "symmetric")]


@pytest.fixture(scope="module")
def models():
    """By bits, and by bits and scheme."""
    found = {}
    for bits, few_bits in FORMS:
        torch.manual_seed(0)
        supernet, data = trained_like(SuperBlock(DEMO, 4), 0), block_data(DEMO, 4, (6, 6))
        judged = next(evaluate_all(supernet, data, bits, Scheme(few_bits=few_bits)))
        found[bits, few_bits] = (judged.graph, write(judged.graph))
    return found | {bits: found[bits, few_bits] for bits, few_bits in FORMS[:3]}


@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 7), st.integers(1, 5), st.integers(0, 2**31))
def test_packing_is_undone(bits, outer, channels, inner, seed):
    """Values of any channel lie above any offset of its own, as long as they are int8."""
    generator = np.random.default_rng(seed)
    low = generator.integers(-128, 129 - (1 << bits), (channels, 1))
    values = (low + generator.integers(0, 1 << bits, (outer, channels, inner))).astype(np.int8).reshape(-1)
    segment = _narrowest(values, 0, channels, inner)
    assert segment.bits <= bits
    packed = _packed(values, segment)
    assert len(packed) == segment.stored == channels + (len(values) * segment.bits + 7) // 8
    offsets, rest = packed[:channels], packed[channels:]
    assert unpack_model.values(rest, len(values), segment.bits, offsets, inner) == values.tobytes()


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([2, 4, 6, 7, 8]),
    st.sampled_from(["asymmetric", "symmetric"]),
    st.sampled_from(["channel", "tensor"]),
    st.integers(0, 2**31),
)
def test_any_graph_comes_back_with_its_weights_at_their_width(bits, few_bits, granularity, seed):
    generator = torch.Generator().manual_seed(seed)
    nodes = [
        Conv("a", INPUT, torch.randn(20, 3, 3, 3, generator=generator) + 0.3, torch.zeros(20), bits=bits),
        Conv("b", "a", torch.randn(20, 1, 5, 5, generator=generator) - 0.5, torch.zeros(20), bits=bits),
        FullyConnected("c", "b", torch.randn(13, 20, generator=generator), torch.zeros(13), bits=bits),
    ]
    images = torch.rand(2, 3, 1, 1, generator=generator) * 1.9 - 1
    graph = quantize(nodes, [images], (1, 1, 3), Scheme(granularity, few_bits=few_bits))
    content = write(graph)
    packed = pack(content)
    assert unpack_model.unpack(packed) == content
    weights = sum(op.weight.size for op in graph.operators)
    offsets = sum(max(1, 0 if op.offset is None else op.offset.size) for op in graph.operators)
    body = len(packed) - 12 - int.from_bytes(packed[8:12], "big")
    assert body <= len(content) - weights + offsets + sum(op.weight.size * bits / 8 + 1 for op in graph.operators)


def test_what_an_older_version_packed_is_restored(models):
    """HILNASP1: one offset for all, -2^(bits - 1), which is not stored."""
    content = models[4, "symmetric"][1]
    segments = [replace(s, bits=4) for s in _segments(content)]
    packed = b""
    rest, at = b"", 0
    for s in segments:
        values = np.frombuffer(content, np.int8, s.count, s.start).astype(np.int16) + 8
        nibbles = np.append(values, np.zeros(s.count % 2, np.int16)).astype(np.uint8)
        packed += (nibbles[::2] << 4 | nibbles[1::2]).tobytes()
        rest += content[at : s.start]
        at = s.start + s.count
    header = {
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "segments": [[s.start, s.count, 4] for s in segments],
    }
    encoded = json.dumps(header).encode()
    old = b"HILNASP1" + len(encoded).to_bytes(4, "big") + encoded + packed + rest + content[at:]
    assert segments and unpack_model.unpack(old) == content
    with pytest.raises(unpack_model.Damaged):
        unpack_model.unpack(b"HILNASP2" + old[8:])
    with pytest.raises(unpack_model.Damaged, match="not a packed model"):
        unpack_model.unpack(b"HILNASP3" + old[8:])


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_a_model_comes_back_and_is_as_small_as_its_bits(models, bits):
    graph, content = models[bits]
    packed = pack(content)
    assert unpack_model.unpack(packed) == content
    weights = sum(op.weight.size for op in graph.operators if hasattr(op, "weight"))
    offsets = sum(op.bias.size for op in graph.operators if hasattr(op, "weight"))
    assert len(packed) <= len(content) - weights * (8 - bits) // 8 + offsets + 2000


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
        {"size": 9, "sha256": "", "segments": [[1, 2, 4]]},
        {"size": 9, "sha256": "", "segments": [[1, 2, 4, 0, 2]]},
        {"size": 9, "sha256": "", "segments": [[1, 2, 4, 1, 0]]},
        {"size": 9, "sha256": "", "segments": [[1, 2, 4, 3, 1]]},
        {"size": 90000, "sha256": "", "segments": [[1, 60000, 4, 1, 60000]]},
        {"size": float("inf"), "sha256": "", "segments": []},
        {"size": 9, "sha256": "", "segments": [[5, 2, 4, 1, 2], [4, 2, 4, 1, 2]]},
        {"size": 9, "sha256": "", "segments": 3},
        [],
    ],
)
def test_a_header_of_another_form_is_refused(header):
    encoded = json.dumps(header).encode()
    with pytest.raises(unpack_model.Damaged):
        unpack_model.unpack(MAGIC + len(encoded).to_bytes(4, "big") + encoded + bytes(9))


def test_a_damaged_file_leaves_nothing_behind(models, tmp_path):
    (tmp_path / "m.packed").write_bytes(pack(models[4][1])[:-1])
    assert unpack_model.main(["", str(tmp_path / "m.packed"), str(tmp_path / "m.tflite")]) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["m.packed"]


# The commands


@pytest.mark.parametrize(("bits", "least"), [(4, 0.29), (6, 0.14)])
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
                buffer.data = np.resize(np.array([127, 128], np.uint8), len(buffer.data))

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
