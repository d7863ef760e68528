"""Networks from ONNX: layouts held to onnxruntime on random graphs, what is fused, and files that are no networks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from deploy.formats.importers.onnx import import_onnx, imported  # noqa: E402
from deploy.formats.importers.onnx_graph import parse  # noqa: E402
from hil.errors import HilError, ModelError, UsageError  # noqa: E402
from hil.input_shape import InputShape  # noqa: E402

SHARED = Path(__file__).parents[5] / "shared/data/models"
LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


class Graph:
    """A chain of ONNX nodes under construction; `y` is the last tensor, `shape` its shape."""

    def __init__(self, shape, seed=0):
        self.first, self.shape, self.y = list(shape), list(shape), "x"
        self.nodes, self.constants, self.rng = [], [], np.random.default_rng(seed)

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weights(self, *shape):
        return self.constant(self.rng.standard_normal(shape).astype(np.float32))

    def node(self, kind, *inputs, shape=None, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], f"n{len(self.nodes)}", **attributes))
        self.y, self.shape = name, list(self.shape if shape is None else shape)
        return name

    def model(self, *outputs, opset=17):
        names = outputs or (self.y,)
        source = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.first)
        sinks = [onnx.ValueInfoProto(name=name) for name in names]
        graph = helper.make_graph(self.nodes, "g", [source], sinks, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def network(model, shapes=None, outputs=()):
    return imported(parse(model.SerializeToString(), "m.onnx"), "m.onnx", shapes or {}, outputs)


def agree(model, x, rtol=1e-4):
    content = model if isinstance(model, bytes) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    imported_network = imported(parse(content, "m.onnx"), "m.onnx", {"x": x.shape})
    got = imported_network.run(x)
    wanted = session.run(list(got), {session.get_inputs()[0].name: x})
    for mine, theirs in zip(got.values(), wanted, strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol * max(float(np.abs(theirs).max()), 1e-3))
    return imported_network


@st.composite
def moving(draw):
    """A chain of nodes that move, cut, join and combine elements, over a tensor of any rank up to 5."""
    graph = Graph(
        (1, *draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4))), draw(st.integers(0, 99))
    )
    for _ in range(draw(st.integers(1, 7))):
        rank, shape = len(graph.shape), graph.shape
        axis = draw(st.integers(0, rank - 1))
        match draw(st.sampled_from(["turn", "shape", "cut", "join", "add", "mean", "soft", "squeeze", "unsqueeze"])):
            case "turn":
                order = draw(st.permutations(range(rank)))
                graph.node("Transpose", graph.y, perm=list(order), shape=[shape[i] for i in order])
            case "shape":
                sizes = draw(st.permutations([n for n in shape if n > 1] or [1]))
                merged = [int(np.prod(sizes[:2])), *sizes[2:]] if draw(st.booleans()) else list(sizes)
                new = [*[1] * draw(st.integers(0, 2)), *merged][:5]
                if np.prod(new) == np.prod(shape):
                    graph.node("Reshape", graph.y, graph.constant(np.array(new, np.int64)), shape=new)
            case "cut" if shape[axis] > 1:
                step = draw(st.sampled_from([1, 2]))
                begin = draw(st.integers(0, shape[axis] - 2))
                index = [graph.constant(np.array([n], np.int64)) for n in (begin, shape[axis], axis, step)]
                left = [len(range(begin, n, step)) if i == axis else n for i, n in enumerate(shape)]
                graph.node("Slice", graph.y, *index, shape=left)
            case "join":
                new = [n * 2 if i == axis else n for i, n in enumerate(shape)]
                graph.node("Concat", graph.y, graph.y, axis=axis, shape=new)
            case "add":
                kept = [n if draw(st.booleans()) else 1 for n in shape]
                kind = draw(st.sampled_from(["Add", "Mul", "Sub"]))
                graph.node(kind, *draw(st.permutations([graph.y, graph.weights(*kept)])))
            case "mean":
                graph.node(
                    "ReduceMean", graph.y, axes=[axis], shape=[1 if i == axis else n for i, n in enumerate(shape)]
                )
            case "soft":
                graph.node("Softmax", graph.y, axis=axis)
            case "squeeze" if shape[axis] == 1 and rank > 1:
                new = [n for i, n in enumerate(shape) if i != axis]
                graph.node("Squeeze", graph.y, graph.constant(np.array([axis], np.int64)), shape=new)
            case "unsqueeze" if rank < 5:
                new = [*shape[:axis], 1, *shape[axis:]]
                graph.node("Unsqueeze", graph.y, graph.constant(np.array([axis], np.int64)), shape=new)
    if not graph.nodes:
        graph.node("Identity", graph.y)
    return graph


@settings(max_examples=150, deadline=None)
@given(moving())
def test_elements_end_where_onnx_has_them(graph):
    agree(graph.model(), graph.rng.standard_normal(graph.first).astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 99),
    *[st.tuples(st.integers(1, most), st.integers(1, most)) for most in (9, 4, 3)],
    st.tuples(*[st.integers(0, 2)] * 4),
    st.sampled_from([1, 2, 4]),
    st.sampled_from(["Conv", "ConvTranspose", "MaxPool", "AveragePool"]),
)
def test_windows_slide_as_onnx_has_them(seed, size, kernel, stride, pads, groups, kind):  # noqa: PLR0917
    pads = [
        min(pads[0], kernel[0] - 1),
        min(pads[1], kernel[1] - 1),
        min(pads[2], kernel[0] - 1),
        min(pads[3], kernel[1] - 1),
    ]
    room = (size[0] + pads[0] + pads[2], size[1] + pads[1] + pads[3])
    if kind != "ConvTranspose" and (room[0] < kernel[0] or room[1] < kernel[1]):
        return
    full = [(n - 1) * s + k for n, s, k in zip(size, stride, kernel, strict=True)]
    if kind == "ConvTranspose" and (full[0] <= pads[0] + pads[2] or full[1] <= pads[1] + pads[3]):
        return
    graph = Graph((1, 4, *size), seed)
    how = {"strides": stride, "pads": pads}
    if kind == "Conv":
        graph.node(kind, "x", graph.weights(8, 4 // groups, *kernel), graph.weights(8), group=groups, **how)
    elif kind == "ConvTranspose":
        graph.node(kind, "x", graph.weights(4, 8 // groups, *kernel), graph.weights(8), group=groups, **how)
    else:
        more = {"count_include_pad": seed % 2} if kind == "AveragePool" else {}
        graph.node(kind, "x", kernel_shape=kernel, **how, **more)
    agree(graph.model(), graph.rng.standard_normal(graph.first).astype(np.float32))


def test_softmax_before_opset_13_is_over_all_axes_from_the_one_on():
    graph = Graph((1, 3, 4, 5))
    graph.node("Softmax", "x", axis=1)
    agree(graph.model(opset=11), graph.rng.standard_normal(graph.first).astype(np.float32))


def kinds(imported_network):
    return Counter(type(node).__name__ for node in imported_network.nodes)


def test_what_exporters_write_around_a_convolution_is_one_node():
    """Batch norm, scale and shift, RELU6, and the padding before it."""
    graph = Graph((1, 3, 8, 8))
    graph.node("Pad", "x", graph.constant(np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64)))
    graph.node("Conv", graph.y, graph.weights(4, 3, 3, 3), strides=[2, 2])
    positive = graph.constant(np.full(4, 0.7, np.float32))
    graph.node("BatchNormalization", graph.y, graph.weights(4), graph.weights(4), graph.weights(4), positive)
    graph.node("Mul", graph.constant(np.float32(3)), graph.y)
    graph.node("Sub", graph.constant(np.ones((4, 1, 1), np.float32)), graph.y)
    graph.node("Clip", graph.y, graph.constant(np.float32(0)), graph.constant(np.float32(6)))
    made = agree(graph.model(), graph.rng.standard_normal(graph.first).astype(np.float32))
    (conv,) = made.nodes
    assert (conv.activation, conv.padding, conv.stride) == ("relu6", "same", 2)


@pytest.mark.parametrize(("kernel", "kind"), [([4, 5], "Mean"), ([4, 4], "AveragePool")])
def test_a_window_as_large_as_its_map_is_a_mean(kernel, kind):
    graph = Graph((1, 3, 4, 5))
    graph.node("AveragePool", "x", kernel_shape=kernel)
    assert kinds(agree(graph.model(), graph.rng.standard_normal(graph.first).astype(np.float32))) == {kind: 1}


def test_a_vector_is_scaled_and_shifted_without_a_convolution():
    """Which a vector in the deployed file cannot have."""
    for shape, parts in (((1, 6), {"Mul": 1, "Add": 1}), ((1, 6, 2, 2), {"Conv": 1})):
        graph = Graph(shape)
        ones = [1] * (len(shape) - 2)
        graph.node("Mul", "x", graph.weights(6, *ones))
        graph.node("Add", graph.y, graph.weights(6, *ones))
        found = kinds(agree(graph.model(), graph.rng.standard_normal(graph.first).astype(np.float32)))
        assert {kind: n for kind, n in found.items() if kind != "Const"} == parts


def test_a_layer_that_is_read_twice_keeps_its_result():
    graph = Graph((1, 3, 4, 4))
    first = graph.node("Conv", "x", graph.weights(3, 3, 1, 1))
    graph.node("Relu", first)
    graph.node("Add", graph.y, first)
    made = agree(graph.model(), graph.rng.standard_normal(graph.first).astype(np.float32))
    assert kinds(made) == {"Conv": 1, "Clip": 1, "Add": 1}


@pytest.mark.parametrize("division", ["in the gate", "at the end"])
def test_hard_swish_in_parts_is_one_node(division):
    graph = Graph((1, 3, 4, 4))
    first = graph.node("Conv", "x", graph.weights(3, 3, 1, 1))
    graph.node("Add", first, graph.constant(np.float32(3)))
    gate = graph.node("Clip", graph.y, graph.constant(np.float32(0)), graph.constant(np.float32(6)))
    if division == "in the gate":
        gate = graph.node("Div", gate, graph.constant(np.float32(6)))
    graph.node("Mul", first, gate)
    if division == "at the end":
        graph.node("Div", graph.y, graph.constant(np.float32(6)))
    made = agree(graph.model(), graph.rng.standard_normal(graph.first).astype(np.float32))
    assert kinds(made) == {"Conv": 1, "HardSwish": 1}


def test_a_flattened_map_goes_into_the_order_of_the_weights():
    graph = Graph((1, 3, 4, 5))
    graph.node("Conv", "x", graph.weights(6, 3, 1, 1))
    graph.node("Flatten", graph.y)
    graph.node("Gemm", graph.y, graph.weights(7, 6 * 4 * 5), graph.weights(7), transB=1)
    made = agree(graph.model(), graph.rng.standard_normal(graph.first).astype(np.float32))
    assert kinds(made) == {"Conv": 1, "Reshape": 1, "FullyConnected": 1}


def test_an_input_that_is_turned_at_once_is_read_as_it_is():
    graph = Graph((1, 4, 5, 3))
    graph.node("Transpose", "x", perm=[0, 3, 1, 2])
    graph.node("Conv", graph.y, graph.weights(6, 3, 1, 1))
    graph.node("Transpose", graph.y, perm=[0, 2, 3, 1])
    made = agree(graph.model(), graph.rng.standard_normal(graph.first).astype(np.float32))
    assert kinds(made) == {"Conv": 1}


def test_shape_arithmetic_is_folded():
    """A flatten as exporters write it: Shape, Gather, Unsqueeze, Concat, Reshape."""
    graph = Graph((1, 3, 4, 5))
    graph.node("Shape", "x")
    graph.node("Gather", graph.y, graph.constant(np.int64(0)))
    graph.node("Unsqueeze", graph.y, graph.constant(np.array([0], np.int64)))
    shape = graph.node("Concat", graph.y, graph.constant(np.array([-1], np.int64)), axis=0)
    graph.node("Reshape", "x", shape)
    assert kinds(agree(graph.model(), graph.rng.standard_normal(graph.first).astype(np.float32)))["Reshape"] == 1


@pytest.mark.parametrize("name", ["densenet121", "inception_v2", "resnet50", "shufflenet"])
def test_networks_that_the_package_ships(name):
    """With weights that say nothing, brought to an opset from 11 on; shufflenet has transpositions of its own."""
    model = onnx.version_converter.convert_version(onnx.load(LIGHT / f"light_{name}.onnx"), 12)
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    constants = {tensor.name for tensor in model.graph.initializer}
    (source,) = (entry for entry in model.graph.input if entry.name not in constants)
    old, source.name = source.name, "x"
    for node in model.graph.node:
        node.input[:] = ["x" if read == old else read for read in node.input]
    made = agree(model, x)
    assert not {"Mul", "Add"} & set(kinds(made)) or name in ("resnet50", "shufflenet")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("ch_ppocr_mobile_v2.0_cls_infer", (1, 3, 48, 192)), ("ch_PP-OCRv4_det_infer", (1, 3, 96, 160))],
)
def test_networks_in_use(name, shape):
    path = SHARED / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    agree(path.read_bytes(), np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def test_a_batch_runs_as_its_images_do():
    graph = Graph((1, 3, 4, 4))
    graph.node("Conv", "x", graph.weights(4, 3, 3, 3), pads=[1, 1, 1, 1])
    graph.node("Reshape", graph.y, graph.constant(np.array([1, 8, 8], np.int64)), shape=(1, 8, 8))
    made, x = network(graph.model()), graph.rng.standard_normal((5, 3, 4, 4)).astype(np.float32)
    (together,), singly = made.run(x).values(), [next(iter(made.run(image[None]).values())) for image in x]
    np.testing.assert_allclose(together, np.concatenate(singly), rtol=1e-5, atol=1e-5)


def refusal(model, shapes=None, outputs=()):
    with pytest.raises(HilError) as error:
        network(model, shapes, outputs)
    assert "\n" not in str(error.value)
    return error.value


def test_all_nodes_that_cannot_be_imported_are_named_at_once():
    graph = Graph((1, 3, 4, 4))
    first = graph.node("Conv", "x", graph.weights(3, 3, 1, 1))
    graph.node("LRN", graph.y, size=3)
    graph.node("Relu", graph.y)  # reads what is not there: no fault of its own
    graph.node("Erf", graph.y)
    model = graph.model()
    error = refusal(model)
    assert isinstance(error, ModelError)
    assert "2 nodes" in str(error) and "'n1' (LRN)" in str(error) and "'n3' (Erf)" in str(error)
    assert "'n2'" not in str(error) and "--outputs" in str(error)
    assert list(network(model, outputs=[first]).outputs) == [first]


def test_calls_and_files_that_do_not_fit():
    graph = Graph((1, 3, "height", 4))
    graph.node("Conv", "x", graph.weights(3, 3, 1, 1))
    assert "--input-shape x=1x3xNx4" in str(refusal(graph.model()))
    assert isinstance(refusal(graph.model(), {"x": (1, 3, 4, 5)}), UsageError)
    assert "input is 'x'" in str(refusal(graph.model(), {"y": (1, 3, 4, 5)}))
    assert "no node computes" in str(refusal(graph.model(), {"x": (1, 3, 4, 4)}, ["nothing"]))
    assert network(graph.model(), {"x": (1, 3, 6, 4)}).input.shape == (1, 3, 6, 4)


def test_a_network_begins_at_any_tensor(tmp_path):
    graph = Graph((1, 3, 8, 8))
    graph.node("Erf", "x")  # what comes before may be anything
    start = graph.node("Conv", graph.y, graph.weights(4, 3, 3, 3), shape=(1, 4, 6, 6))
    first = graph.node("Relu", start)
    graph.node("Add", graph.node("Conv", first, graph.weights(4, 4, 1, 1)), start)
    path = tmp_path / "m.onnx"
    path.write_bytes(graph.model(start, graph.y).SerializeToString())
    x = graph.rng.standard_normal((1, 3, 8, 8)).astype(np.float32)
    middle, wanted = onnxruntime.InferenceSession(path.read_bytes()).run([start, graph.y], {"x": x})
    with pytest.raises(ModelError, match=r"\(Erf\).*or behind them with --input NAME"):
        import_onnx(path, outputs=[graph.y])
    begun = import_onnx(path, outputs=[graph.y], start=start)
    assert begun.input_name == start and begun.input.shape == (1, 4, 6, 6), "onnx infers the shape"
    np.testing.assert_allclose(begun.run(middle)[graph.y], wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="--input t9: no node reads a tensor of that name"):
        import_onnx(path, start="t9")
    with pytest.raises(ModelError, match=rf"2 inputs \({start}, {first}\)|2 inputs \(x, {first}\)"):
        import_onnx(path, outputs=[graph.y], start=first)
    assert import_onnx(path, outputs=[first], start=start).input_name == start


def test_a_tensor_of_unknown_shape_is_given_one(tmp_path):
    graph = Graph((1, 3, 8, 8))
    start = graph.node("FrontEnd", "x", domain="mine")
    graph.node("Relu", start)
    path = tmp_path / "m.onnx"
    path.write_bytes(graph.model().SerializeToString())
    with pytest.raises(HilError, match=rf"add --input-shape {start}=1xN, with its sizes"):
        import_onnx(path, start=start)
    network = import_onnx(path, [InputShape(start, (1, 5))], start=start)
    assert network.run(-np.ones((1, 5), np.float32))["t1"].tolist() == [[0, 0, 0, 0, 0]]


def test_files_that_cannot_be_believed(tmp_path):
    graph = Graph((1, 3, 4, 4))
    weight = np.full((3, 3, 1, 1), np.nan, np.float32)
    graph.node("Conv", "x", graph.constant(weight))
    assert "NaN" in str(refusal(graph.model()))
    assert "opset 9" in str(refusal(Graph.model(graph, opset=9)))
    assert "opset 99" in str(refusal(graph.model(opset=99)))
    graph = Graph((8, 3, 4, 4))
    graph.node("Conv", "x", graph.weights(3, 3, 1, 1))
    assert "a batch of 8" in str(refusal(graph.model()))
    graph = Graph((1, 3, 4, 4))
    graph.node("Expand", graph.constant(np.float32(1)), graph.constant(np.array([1 << 20, 1 << 20], np.int64)))
    graph.node("Add", "x", graph.y)
    assert "elements" in str(refusal(graph.model()))
    graph = Graph((1, 3, 4, 4))
    graph.node("Conv", "x", graph.weights(3, 3, 1, 1))
    model = graph.model()
    onnx.external_data_helper.convert_model_to_external_data(model, location="w.data", size_threshold=0)
    onnx.save(model, tmp_path / "m.onnx")
    assert import_onnx(tmp_path / "m.onnx").nodes
    (tmp_path / "w.data").unlink()
    with pytest.raises(ModelError, match=r"another file, 'w.data'"):
        import_onnx(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=r"nothing\.onnx"):
        import_onnx(tmp_path / "nothing.onnx")


def test_an_output_that_is_a_constant(tmp_path):
    graph = Graph((1, 3, 4, 4))
    first = graph.node("Relu", "x")
    constant = graph.node("Shape", "x")
    onnx.save(graph.model(first, constant), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=f"'{constant}' is a constant"):
        import_onnx(tmp_path / "m.onnx")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_in_one_line(data):
    """Bytes that are cut or changed anywhere: imported all the same, or one error of ours."""
    graph = Graph((1, 3, 4, 4))
    graph.node("Conv", "x", graph.weights(2, 3, 1, 1), pads=[1, 1, 1, 1])
    graph.node("Reshape", graph.y, graph.constant(np.array([1, -1], np.int64)), shape=(1, 72))
    graph.node("Softmax", graph.y, axis=-1)
    content = bytearray(graph.model().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    try:
        imported(parse(bytes(content), "m.onnx"), "m.onnx", {})
    except HilError as error:
        assert "\n" not in str(error) and str(error).startswith("m.onnx")
