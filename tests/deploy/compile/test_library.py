"""Every subnet of a space as files: whole, resumable, indexed, and the same as one by one."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.compile.library import INDEX, LOCK, write_all, write_branch
from deploy.compile.subnets import Writing, compile_subnets
from deploy.compile.subtrees import SubTree, sub_trees
from deploy.compile.weights import Origin
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.read import read
from deploy.formats.tflite.writer import write
from deploy.targets.placement import load_target
from hil.errors import ModelError, UsageError
from nas.engine.local import Local
from nas.engine.open import open_engine
from nas.errors import EngineError
from nas.networks.blocks import recalibrate
from nas.quant.float_graph import INPUT, run
from nas.quant.folding import fold_layers
from nas.quant.post_training import quantize
from nas.quant.ranges import OBSERVERS, observe
from nas.quant.scheme import Granularity, Scheme
from nas.space import Block, SearchSpace, Subnet
from tests.deploy.networks import interpret, simulated
from tests.deploy.tiny_experiment import HILNAS, REPOSITORY, Started, environment, one_line, start

SPACE = SearchSpace("tiny", 8, 8, (Block(2, 12, 2, 1), Block(1, 16, 1, 1)), (3, 5), (2, 3), (4, 8))
ORIGIN = Origin(SPACE, (32, 48))
RAY = find_spec("ray") is not None
FORMS = (Form(), Form(few_bits="int4"), Form(ends="float"), Form("uint8"), Form("uint8", ends="float"))
SUBNETS = list(SPACE.all_subnets())


def rows_of(out: Path) -> list[dict[str, object]]:
    _, *records = [json.loads(line) for line in (out / INDEX).read_text().splitlines()]
    return sorted((row for record in records for row in record["subnets"]), key=lambda row: row["subnet"])


def tree_of(subnet: Subnet) -> SubTree:
    """The sub-tree that a library compiles it in."""
    return next(tree for tree in sub_trees(SPACE, bits=SPACE.bits) if subnet in tree.subnets)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A library that nothing interrupted. Copy it before changing anything."""
    out = tmp_path_factory.mktemp("library")
    assert list(write_all(ORIGIN, SPACE.bits, out, Local(2)))[-1] == (SPACE.count(), SPACE.count())
    return out


@pytest.fixture
def copied(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "library"))


def completed(out: Path, whole: Path) -> None:
    """Going on leaves `out` with what is in `whole`, and nothing else."""
    list(write_all(ORIGIN, SPACE.bits, out, Local(1)))
    assert rows_of(out) == rows_of(whole)
    assert {p.name: p.read_bytes() for p in out.glob("*.tflite")} == {
        p.name: p.read_bytes() for p in whole.glob("*.tflite")
    }
    assert not [p for p in out.iterdir() if p.suffix not in (".tflite", ".jsonl") and p.name != LOCK]


def test_all_of_a_space_is_there(whole):
    rows = rows_of(whole)
    assert [row["subnet"] for row in rows] == sorted(map(str, SUBNETS))
    for row in rows:
        path = whole / row["file"]
        assert row["file"] == hashlib.sha256(path.read_bytes()).hexdigest() + ".tflite"
        assert path.stat().st_size == row["bytes"]
    assert len({row["file"] for row in rows}) == len(rows) == len(list(whole.glob("*.tflite")))


def test_every_file_says_what_it_is(whole):
    header = json.loads((whole / INDEX).read_text().splitlines()[0])["library"]
    assert header["weights"] == "random" and header["calibration"] == "noise"
    configs = set()
    for row in rows_of(whole):
        found = json.loads(bytes(read(whole / row["file"]).metadata["hilnas"]))
        assert found["subnet"] == row["subnet"]
        assert found["requested_bits"] == Subnet.parse(row["subnet"]).bits
        assert (found["weights"], found["calibration"], found["space"]) == ("random", "noise", SPACE.digest)
        configs.add(found["config"])
    assert len(configs) == 1
    others = [ORIGIN.metadata(SUBNETS[0], form)["config"] for form in FORMS]
    others += [replace(ORIGIN, scheme=Scheme("tensor")).metadata(SUBNETS[0], Form())["config"]]
    others += [replace(ORIGIN, size=(32, 64)).metadata(SUBNETS[0], Form())["config"]]
    assert len({*others, *configs}) == len(others)


def test_what_is_there_is_not_made_again(copied):
    before = {p.name: p.stat().st_mtime_ns for p in copied.iterdir()}
    assert list(write_all(ORIGIN, SPACE.bits, copied, Local(2))) == [(SPACE.count(), SPACE.count())]
    assert before == {p.name: p.stat().st_mtime_ns for p in copied.iterdir()}


@pytest.mark.parametrize("lines", [0, 1, 3, 7])
@pytest.mark.parametrize("rest", [0, 20])
def test_it_goes_on_after_a_cut(copied, whole, lines, rest):
    kept = (copied / INDEX).read_text().splitlines(keepends=True)
    cut = "".join(kept[:lines]) + kept[lines][:rest]  # killed in the middle of a line
    (copied / INDEX).write_text(cut)
    (copied / "abc.tflite.part").write_bytes(b"half")
    completed(copied, whole)


def test_files_that_were_lost_or_cut_are_made_again(copied, whole):
    first, second, *_ = sorted(copied.glob("*.tflite"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:100])
    completed(copied, whole)


def test_a_damaged_line_is_made_again(copied, whole):
    lines = (copied / INDEX).read_bytes().splitlines(keepends=True)
    (copied / INDEX).write_bytes(
        b"".join([lines[0], b"\xff\0{\n", b'{"branch": 3, "subnets": 1}\n', b"[]\n", *lines[3:]])
    )
    completed(copied, whole)


@pytest.mark.parametrize(
    ("origin", "form", "named"),
    [
        (replace(ORIGIN, size=(64, 64)), Form(), "size"),
        (replace(ORIGIN, space=replace(SPACE, kernels=(3, 7))), Form(), "space"),
        (replace(ORIGIN, scheme=Scheme("tensor")), Form(), "granularity"),
        (replace(ORIGIN, weights="0123456789abcdef"), Form(), "weights"),
        (ORIGIN, Form(ends="float"), "ends"),
    ],
)
def test_another_library_is_refused(whole, origin, form, named):
    with pytest.raises(UsageError, match=rf"holds another library \({named} .*--out"):
        next(write_all(origin, (8,), whole, Local(1), form))


def test_a_file_that_is_no_index_is_refused_and_kept(tmp_path):
    (tmp_path / INDEX).write_text("somebody's own\n")
    with pytest.raises(UsageError, match="not a library's"):
        next(write_all(ORIGIN, (8,), tmp_path, Local(1)))
    assert (tmp_path / INDEX).read_text() == "somebody's own\n"


def test_two_at_once_are_refused(tmp_path):
    first = write_all(ORIGIN, (8,), tmp_path, Local(1))
    next(first)
    with pytest.raises(UsageError, match="another hilnas writes this library"):
        next(write_all(ORIGIN, (8,), tmp_path, Local(1)))
    first.close()


def test_bit_widths_can_be_added(tmp_path, whole):
    half = SPACE.count() // 2
    assert list(write_all(ORIGIN, (8,), tmp_path, Local(1)))[-1] == (half, half)
    steps = list(write_all(ORIGIN, (8, 4), tmp_path, Local(1)))
    assert (steps[0], steps[-1]) == ((half, SPACE.count()), (SPACE.count(), SPACE.count()))
    assert rows_of(tmp_path) == rows_of(whole)


def test_the_branches_cover_the_space_without_overlap(tmp_path):
    trees = sub_trees(SPACE, bits=SPACE.bits)
    written = [file.subnet for tree in trees for file in write_branch(ORIGIN, Form(), tmp_path, tree).subnets]
    assert sorted(written) == sorted(map(str, SUBNETS))


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(SUBNETS),
    st.builds(
        Scheme,
        st.sampled_from(["channel", "tensor"]),
        st.sampled_from(sorted(OBSERVERS)),
        st.just(False),
        st.booleans(),
    ),
    st.tuples(st.integers(9, 40), st.integers(9, 40)),
)
def test_the_tree_gives_what_each_subnet_alone_gives(subnet, scheme, size):
    """Without equalization, after which the tree's float maps differ in the last place: tests/nas/test_nsr.py."""
    origin = Origin(SPACE, size, scheme)
    graph = dict(origin.graphs(tree_of(subnet).subnets))[subnet]
    path, x = origin.supernet(subnet.block).path(subnet), origin.calibration_maps(subnet.block)
    for i, layer in enumerate(path):
        recalibrate(layer, run(fold_layers(path[:i], "before", INPUT), {INPUT: x}) if i else x)
    nodes = fold_layers(path, f"b{subnet.block}", INPUT, subnet.bits)
    shape = (*origin.map_size(subnet.block), x.shape[1])
    alone = quantize(nodes, [x], shape, scheme, observe(x, INPUT, OBSERVERS[scheme.observer]))
    assert write(graph) == write(alone)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("subnet", [SUBNETS[3], SUBNETS[-1]], ids=str)
def test_one_by_one_they_are_the_librarys_and_answer_their_golden_pair(tmp_path, form, subnet):
    granularity: Granularity = "tensor" if form.activations == "uint8" else "channel"
    scheme = Scheme(granularity, few_bits="symmetric" if form.few_bits == "int4" else "asymmetric")
    origin = replace(ORIGIN, scheme=scheme)
    (model,) = compile_subnets(origin, [subnet], tmp_path, Writing(form))
    content = model.read_bytes()
    files = write_branch(origin, form, tmp_path, tree_of(subnet)).subnets
    assert (tmp_path / next(file.file for file in files if file.subnet == str(subnet))).read_bytes() == content
    if form.few_bits == "int4" and subnet.bits == 4:
        assert not model.with_suffix(".expected.bin").exists(), "these kernels round otherwise"
        return
    kind = np.float32 if form.ends == "float" else np.dtype(form.activations)
    shape = (1, *origin.map_size(subnet.block), SPACE.input_channels(subnet.block))
    q = np.frombuffer(model.with_suffix(".input.bin").read_bytes(), kind).reshape(shape)
    assert interpret(content, q).tobytes() == model.with_suffix(".expected.bin").read_bytes()


def single(tmp_path: Path, kind: str) -> tuple[bytes, np.ndarray, bytes]:
    """An 8-bit subnet by `kind` of writer: its file, golden input and golden output."""
    subnet = SUBNETS[-1]
    (model,) = compile_subnets(ORIGIN, [subnet], tmp_path, Writing(kind=kind))
    shape = (1, *ORIGIN.map_size(subnet.block), SPACE.input_channels(subnet.block))
    q = np.frombuffer((tmp_path / f"{subnet}.input.bin").read_bytes(), np.int8).reshape(shape)
    return model.read_bytes(), q, (tmp_path / f"{subnet}.expected.bin").read_bytes()


@pytest.mark.tensorflow
def test_the_converters_file_answers_its_golden_pair(tmp_path):
    pytest.importorskip("tensorflow", reason="needs the extra: pip install 'hilnas[tensorflow]'")
    content, q, expected = single(tmp_path, "converter")
    assert interpret(content, q).tobytes() == expected


def test_the_onnx_file_says_what_it_is_and_answers_nearly_its_golden_pair(tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs the extra: pip install 'hilnas[onnx]'")
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra: pip install 'hilnas[onnx]'")
    content, q, expected = single(tmp_path, "onnx")
    (entry,) = onnx.load_from_string(content).metadata_props
    assert json.loads(entry.value) == ORIGIN.metadata(SUBNETS[-1], Form())
    (answer,) = runtime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"input": q})
    wanted = np.frombuffer(expected, np.int8).reshape(answer.shape)
    assert np.abs(answer.astype(int) - wanted).max() <= 1


def test_its_models_answer_as_the_simulation():
    for _, graph in ORIGIN.graphs(tree_of(Subnet.parse("b1_k5e3-k3e2_w4")).subnets):
        q = torch.randint(-128, 128, (1, 8, 16, 24)).float()
        answer = interpret(write(graph), q.permute(0, 2, 3, 1).numpy().astype(np.int8))
        np.testing.assert_array_equal(answer, simulated(graph, q))


# On every engine


@dataclass(frozen=True, eq=False)
class Mortal(Origin):
    """The first `deaths` workers that come to the branch of `fatal` are killed in the middle of it."""

    fatal: str = ""
    folder: Path = Path()
    deaths: int = 1

    def graphs(self, wanted):
        for number, found in enumerate(super().graphs(wanted)):
            killed = len(list(self.folder.iterdir()))
            if str(wanted[0]) == self.fatal and number == 1 and killed < self.deaths:
                (self.folder / str(killed)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield found


def mortal(folder: Path, deaths: int) -> Mortal:
    folder.mkdir()
    return Mortal(SPACE, (32, 48), fatal="b1_k5e2-k3e2_w4", folder=folder, deaths=deaths)


@pytest.mark.parametrize(
    "engine",
    [
        "local",
        pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.skipif(not RAY, reason="needs the extra `ray`")]),
    ],
)
def test_every_engine_writes_the_same_though_a_worker_is_killed(engine, tmp_path, whole, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(write_all(mortal(tmp_path / "deaths", 1), SPACE.bits, Path("library"), open_engine(engine, 2)))
    assert len(list((tmp_path / "deaths").iterdir())) == 1
    completed(tmp_path / "library", whole)


def test_a_branch_that_costs_three_workers_is_named_and_the_others_are_kept(tmp_path, whole):
    out = tmp_path / "library"
    with pytest.raises(EngineError, match=r"killed 3 times at b1_k5e2_w4, .*fewer --jobs"):
        list(write_all(mortal(tmp_path / "deaths", 3), SPACE.bits, out, Local(2)))
    assert 0 < len(rows_of(out)) < SPACE.count()
    completed(out, whole)


class Elsewhere(Local):
    """Its workers write one of a branch's files to another machine's disk."""

    def each(self, function, tasks):
        for task, branch in super().each(function, tasks):
            if task == tasks[2]:
                (function.args[2] / branch.subnets[-1].file).unlink()
            yield task, branch


def test_files_that_a_worker_wrote_elsewhere_are_missed(tmp_path, whole):
    with pytest.raises(EngineError, match=rf"{tmp_path}: a worker's b1_\S+ is not here: put --out on storage"):
        list(write_all(ORIGIN, SPACE.bits, tmp_path, Elsewhere()))
    assert lines_of(tmp_path) == 3  # the library's, and two whole branches
    completed(tmp_path, whole)


# As a process: interrupted, killed, without room


TABLE1 = ("compile", "--space", "table1", "--size", "180x240", "--all", "--jobs", "2")


def lines_of(out: Path) -> int:
    return (out / INDEX).read_bytes().count(b"\n") if (out / INDEX).exists() else 0


def wait_until(holds, timeout_s: float = 180.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # which waits for nothing but its parent's attention
    except psutil.NoSuchProcess:
        return False


def children(process: Started) -> list[psutil.Process]:
    return psutil.Process(process.process.pid).children(recursive=True)


def workers(process: Started) -> list[psutil.Process]:
    return [child for child in children(process) if "spawn_main" in " ".join(child.cmdline())]


def is_clean(out: Path) -> None:
    """Every file is a whole model: its name is its content's digest."""
    for path in out.iterdir():
        if path.name not in (INDEX, LOCK):
            assert path.name == hashlib.sha256(path.read_bytes()).hexdigest() + ".tflite"


@pytest.mark.parametrize(
    ("group", "lines"),
    [(True, 1), (True, 3), (False, 3)],
    ids=["a terminal's, at the start", "a terminal's, in the middle", "a signal"],
)
def test_ctrl_c_returns_at_once_and_the_next_run_goes_on(tmp_path, group, lines):
    process = start([*TABLE1, "--out", str(tmp_path)])
    wait_until(lambda: lines_of(tmp_path) >= lines)
    left = children(process)
    if not group:
        for worker in workers(process):
            worker.suspend()  # whoever waits for its branch waits for ever
    sent = time.monotonic()
    assert process.end(signal.SIGINT, group=group) == 130
    assert time.monotonic() - sent < 10.0
    one_line(process.said, "interrupted", "run the same command to go on")
    wait_until(lambda: not [child for child in left if runs(child)])
    is_clean(tmp_path)
    done = lines_of(tmp_path)
    again = start([*TABLE1, "--out", str(tmp_path)])
    wait_until(lambda: lines_of(tmp_path) > done)
    assert again.end(signal.SIGINT) == 130


def test_a_killed_parent_leaves_no_worker(tmp_path):
    process = start([*TABLE1, "--out", str(tmp_path)])
    wait_until(lambda: lines_of(tmp_path) >= 2)
    left = children(process)
    assert len(workers(process)) == 2
    process.end(signal.SIGKILL)
    wait_until(lambda: not [child for child in left if runs(child)])


def test_a_killed_worker_is_made_up_for(tmp_path):
    process = start([*TABLE1, "--out", str(tmp_path)])
    wait_until(lambda: lines_of(tmp_path) >= 2)
    workers(process)[0].kill()
    done = lines_of(tmp_path)
    wait_until(lambda: lines_of(tmp_path) > done + 2)
    assert process.end(signal.SIGINT) == 130
    is_clean(tmp_path)


@pytest.mark.parametrize("limit_bytes", [100, 4_000, 20_000])
def test_a_full_disk(tmp_path, limit_bytes):
    """A file that cannot grow any further, as on a full disk: the index's first line, a model, a later one."""
    command = [
        HILNAS,
        "compile",
        "--space",
        write_space(tmp_path),
        "--size",
        "32x48",
        "--all",
        "--out",
        tmp_path / "out",
    ]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))

    how = {"cwd": REPOSITORY, "env": environment(), "capture_output": True, "text": True, "timeout": 180}
    ended = subprocess.run(command, **how, check=False, preexec_fn=limit)
    assert ended.returncode == 2, ended.stderr
    one_line(ended.stderr, str(tmp_path / "out"), "make room")
    is_clean(tmp_path / "out")
    again = subprocess.run(command, **how, check=False)
    assert again.returncode == 0, again.stderr
    assert len(rows_of(tmp_path / "out")) == 144
    is_clean(tmp_path / "out")


def write_space(folder: Path) -> Path:
    """144 subnets in blocks of 12 to 24 channels: models of 4 to 20 kB, an index of more than 30 kB."""
    path = folder / "space.toml"
    path.write_text(
        'name = "small"\nstem_channels = 8\nfirst_channels = 8\nbits = [4, 8]\nblocks = [\n'
        "  { stride = 2, channels = 12, layers = 2, teacher_layers = 1 },\n"
        "  { stride = 1, channels = 24, layers = 2, teacher_layers = 1 },\n]\n"
    )
    return path


@pytest.mark.parametrize("form", ["bounded", "exchanged"])
def test_a_subnet_in_context_is_written_with_its_golden_pair(form, tmp_path):
    origin = Origin(SPACE, (32, 48))
    (model,) = compile_subnets(origin, [Subnet.parse("b1_k3e2-k5e3_w8")], tmp_path, Writing(block_form=form))
    assert model.name == f"b1_k3e2-k5e3_w8.{form}.tflite"
    written = read(model)
    interpreter = Interpreter(str(model))
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    given = np.frombuffer(model.with_suffix(".input.bin").read_bytes(), np.int8)
    interpreter.set_tensor(source["index"], given.reshape(source["shape"]))
    interpreter.invoke()
    (sink,) = interpreter.get_output_details()
    assert interpreter.get_tensor(sink["index"]).tobytes() == model.with_suffix(".expected.bin").read_bytes()
    assert len(written.operators) > 6


def test_a_target_that_answers_wrongly_is_told_before_a_file_is_left(tmp_path):
    target = load_target(None, "imx8mp-vx")
    writing = Writing(block_form="exchanged", target=target)
    with pytest.raises(ModelError, match="RESIZE_BILINEAR of unequal"):
        list(compile_subnets(Origin(SPACE, (34, 50)), [Subnet.parse("b1_k3e2-k5e3_w8")], tmp_path, writing))
    assert not list(tmp_path.iterdir())
