"""A file's expected output is that of its hardware's arithmetic: LiteRT's on a CPU, one rounding for both types."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.cli import main
from deploy.compile.artifact import Artifact, arithmetic_of, golden_pair, kernels_of, save_model
from deploy.compile.scheme import QuantizationScheme
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.writer import write
from deploy.targets.placement import Target, load_target
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.job import Job, MeasureProtocol
from hil.measure import measure
from hil.measurement import Measurement
from hil.sessions import open_session
from hil.store import Store
from nas.networks.blocks import SuperBlock
from nas.nsr import evaluate, golden_input
from nas.quant import simulate
from nas.quant.integer_graph import IntegerGraph
from nas.quant.scheme import Scheme
from nas.quant.simulations import SIMULATIONS
from tests.deploy.networks import block_data, interpret, quantized_subnet, random_integers, small_segmenter_graph, space
from tests.deploy.npu_stand_in import answer_of_npu, npu_board, npu_delegate

pytestmark = pytest.mark.usefixtures("one_thread")
DEMO = space("demo")
INT8, UINT8 = Form(), Form(activations="uint8")
NPU, CPU = (load_target(None, name) for name in ("imx8mp-vx", "cpu-xnnpack"))
QUICK = MeasureProtocol(warmup_runs=0, runs=1, rounds=1)


@pytest.fixture(scope="session")
def delegate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return npu_delegate(tmp_path_factory)


def integers(content: bytes, form: Form) -> np.ndarray:
    """A golden file's elements."""
    return np.frombuffer(content, form.activations).astype(np.int64)


# What follows from the arithmetic


def test_targets_name_their_arithmetic():
    assert (NPU.arithmetic, CPU.arithmetic, arithmetic_of(None)) == ("xnnpack", "litert", "litert")
    assert kernels_of(UINT8, NPU.arithmetic) is kernels_of(INT8, NPU.arithmetic) is simulate.apply
    assert kernels_of(UINT8, CPU.arithmetic) is not kernels_of(INT8, CPU.arithmetic) is simulate.apply


def test_int8_is_the_same_under_all_so_the_main_schemes_tables_name_none():
    assert {kernels["int8"] for kernels in SIMULATIONS.values()} == {simulate.apply}
    for text in ("channel int8", "tensor int8"):
        assert {QuantizationScheme.parse(text).key(arithmetic) for arithmetic in SIMULATIONS} == {(text,)}
    uint8 = QuantizationScheme("tensor", "uint8")
    assert uint8.key("litert") == ("tensor uint8",) and uint8.key("xnnpack") == ("tensor uint8", "xnnpack")


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(0, 10**6), st.tuples(st.integers(5, 12), st.integers(5, 12)), st.data())
def test_on_the_npu_uint8_outputs_are_int8_outputs_plus_128(delegate, block, seed, size, data):
    """Bit for bit: both types' golden pairs, LiteRT's outputs of the int8 file, the stand-in's of the uint8 file."""
    subnet = data.draw(st.sampled_from(list(DEMO.subnets(block))))
    graph = quantized_subnet(DEMO, subnet, size, "tensor", seed)
    x = simulate.dequantize(random_integers(graph, seed), graph.tensors[graph.input])
    pairs = {form: golden_pair(graph, x, form, "xnnpack") for form in (INT8, UINT8)}
    for plain, shifted in zip(pairs[INT8], pairs[UINT8], strict=True):
        assert np.array_equal(integers(plain, INT8) + 128, integers(shifted, UINT8))
    shape = (1, *graph.tensors[graph.input].shape)
    for form, answer in ((INT8, interpret), (UINT8, lambda file, q: answer_of_npu(delegate, file, q))):
        source, expected = pairs[form]
        given_ = np.frombuffer(source, form.activations).reshape(shape)
        assert answer(write(graph, form=form), given_).tobytes() == expected
    source, expected = golden_pair(graph, x, UINT8)  # and a CPU's own is LiteRT's there
    assert interpret(write(graph, form=UINT8), np.frombuffer(source, np.uint8).reshape(shape)).tobytes() == expected


def test_a_full_models_class_map_is_the_same_for_both_types(delegate):
    graph = small_segmenter_graph()
    x = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1
    (_, plain), (source, shifted) = (golden_pair(graph, x, form, "xnnpack") for form in (INT8, UINT8))
    assert plain == shifted
    answer = answer_of_npu(delegate, write(graph, form=UINT8), np.frombuffer(source, np.uint8).reshape(1, 32, 40, 3))
    assert answer.tobytes() == shifted


def test_both_types_of_a_graph_share_their_nsr_on_the_npu_and_not_on_a_cpu():
    torch.manual_seed(0)
    data, supernet = block_data(DEMO, 2, (11, 14), seed=2), SuperBlock(DEMO, 2).eval()
    wanted = list(DEMO.subnets(2, 8))[::9]

    def nsrs(form: Form, target: Target) -> list[float]:
        kernels = kernels_of(form, target.arithmetic)
        return [one.nsr for one in evaluate(supernet, data, wanted, Scheme("tensor"), applied=kernels)]

    assert nsrs(UINT8, NPU) == nsrs(INT8, NPU) == nsrs(INT8, CPU) != nsrs(UINT8, CPU)


# On a board


def untrained_block() -> tuple[IntegerGraph, torch.Tensor]:
    """One with small multipliers, as of a block before training: CPU and NPU then round it differently."""
    torch.manual_seed(0)
    data, supernet = block_data(DEMO, 2, (11, 14), seed=2), SuperBlock(DEMO, 2).eval()
    (first,) = evaluate(supernet, data, [next(iter(DEMO.subnets(2, 8)))], Scheme("tensor"))
    assert golden_input(data, Scheme("tensor")).shape == (1, *first.graph.tensors[first.graph.input].shape)
    return first.graph, data.x_evaluation[:1]


def measured(config: BoardConfig, jobs: Sequence[Job], folder: Path) -> dict[str, Measurement]:
    with open_board(config) as board, open_session(board) as session, Store(folder / "store.sqlite") as store:
        return {one.model: one for one in measure(session, jobs, QUICK, store)}


def test_each_hardware_passes_parity_under_its_own_target_alone(delegate, tmp_path):
    graph, x = untrained_block()
    artifacts = [
        save_model(graph, x, Artifact.at(tmp_path, f"{target.name}-{form.activations}"), {}, target, form=form)
        for target in (NPU, CPU)
        for form in (UINT8, INT8)
    ]
    assert artifacts[0].model.read_bytes() == artifacts[2].model.read_bytes()  # the file is no target's, the pair is
    jobs = [artifact.job() for artifact in artifacts]
    cpu = BoardConfig("cpu", "loopback", server="asyncssh")
    for config, own, other in ((npu_board(delegate), NPU, CPU), (cpu, CPU, NPU)):
        done = measured(config, jobs, tmp_path)
        for name in (f"{own.name}-uint8", f"{own.name}-int8", f"{other.name}-int8"):
            assert done[name].status == "ok" and done[name].parity and done[name].parity.mismatched == 0
        refused = done[f"{other.name}-uint8"]
        assert refused.failure is not None and "outputs differ from the expected ones" in refused.failure.reason
    assert measured(npu_board(delegate), jobs, tmp_path)[f"{NPU.name}-uint8"].delegated_nodes


# On the command line


def test_compile_expects_what_the_target_will_output(tmp_path, capsys):
    options = ["b2_k3e3-k3e3_w8", "--activations", "uint8", "--granularity", "tensor", "--size", "32x40"]
    expected = {}
    for name, more in (("npu", ["--target", "imx8mp-vx"]), ("cpu", ["--target", "cpu-xnnpack"]), ("none", [])):
        assert main(["compile", *options, "--out", str(tmp_path / name), *more]) == 0
        expected[name] = (tmp_path / name / "b2_k3e3-k3e3_w8.expected.bin").read_bytes()
    plain = [word for word in options if word not in ("--activations", "uint8")]
    assert main(["compile", *plain, "--out", str(tmp_path / "int8")]) == 0
    int8 = integers((tmp_path / "int8/b2_k3e3-k3e3_w8.expected.bin").read_bytes(), INT8)
    assert np.array_equal(integers(expected["npu"], UINT8), int8 + 128)
    assert expected["none"] == expected["cpu"] != expected["npu"]
