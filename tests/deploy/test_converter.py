"""Our file and the TensorFlow converter's, given the same quantization parameters, answer alike."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import OpResolverType
from networks import interpret, space, trained_like
from tensorflow_reference import converted, parameters, with_constants_of

from deploy.tflite.read import read
from deploy.tflite.writer import write
from nas.blocks import SuperBlock, recalibrate
from nas.quant.float_graph import INPUT, fold_layers, run
from nas.quant.integer_graph import IntegerGraph, IntTensor
from nas.quant.lower import lower_nodes

DEMO = space("demo")


@pytest.mark.tensorflow
def test_20_random_subnets_equal_the_converters(tmp_path):
    pytest.importorskip("tensorflow", reason="needs the extra: pip install 'hilnas[tensorflow]'")
    rng = random.Random(20)
    for i in range(20):
        subnet = rng.choice(list(DEMO.subnets(rng.randint(1, 4))))
        torch.manual_seed(i)
        supernet = trained_like(SuperBlock(DEMO, subnet.block), i)
        x = torch.randn(4, DEMO.input_channels(subnet.block), 12, 16) * 2
        y = x
        for layer in supernet.path(subnet):
            recalibrate(layer, y)
            y = run(fold_layers([layer], "layer", INPUT), {INPUT: y})
        nodes = fold_layers(supernet.path(subnet), "b", INPUT)
        (tmp_path / "theirs.tflite").write_bytes(theirs := converted(nodes, x))
        model = read(tmp_path / "theirs.tflite")
        injected = parameters(model, nodes)
        tensors = {INPUT: IntTensor(INPUT, (12, 16, x.shape[1]), *injected[INPUT])}
        operators = with_constants_of(model, lower_nodes(nodes, tensors, injected))
        graph = IntegerGraph(tensors, tuple(operators), INPUT)
        q = torch.randint(-128, 128, (1, 12, 16, x.shape[1])).numpy().astype(np.int8)
        for kernels in (OpResolverType.AUTO, OpResolverType.BUILTIN_REF):
            np.testing.assert_array_equal(
                interpret(write(graph), q, kernels), interpret(theirs, q, kernels), f"{i} {subnet} {kernels}"
            )
