"""The unrolled flatbuffer builder writes the original's bytes."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.compile.artifact import quantize
from deploy.compile.weights import Origin
from deploy.formats.tflite import writer
from deploy.formats.tflite.builder import Builder
from deploy.formats.tflite.operators import Form
from nas.networks.segmenter import Head, teacher
from nas.quant.scheme import Scheme
from tests.deploy.networks import space

DEMO = space("demo")


class Plain(flatbuffers.Builder):
    """The original, with a byte vector written the obvious way."""

    def vector(self, payload, length, alignment):
        self.StartVector(1, len(payload), alignment)
        for byte in reversed(payload):
            self.PrependByte(byte)
        self.vectorNumElems = length
        return self.EndVector()


def equal_files(monkeypatch, graph, metadata, form):
    ours = writer.write(graph, metadata, form)
    with monkeypatch.context() as patched:
        patched.setattr(writer, "Builder", Plain)
        assert writer.write(graph, metadata, form) == ours


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(list(DEMO.all_subnets())),
    st.tuples(st.integers(8, 80), st.integers(8, 80)),
    st.dictionaries(st.text(), st.text()),
    st.sampled_from(["quantized", "float"]),
    st.sampled_from(["int8", "uint8"]),
)
def test_every_subnet_is_written_alike(subnet, size, metadata, ends, activations):
    ((_, graph),) = Origin(DEMO, size, Scheme("tensor")).graphs([subnet])
    with pytest.MonkeyPatch.context() as patch:
        equal_files(patch, graph, metadata, Form(activations, ends=ends))


@pytest.mark.parametrize("form", [Form(), Form(few_bits="int4"), Form(ends="float")], ids=str)
def test_a_whole_model_is_written_alike(monkeypatch, form):
    torch.manual_seed(0)
    model = teacher(DEMO, 5, Head(8, (2,)))
    graph = quantize(model, [torch.randn(2, 3, 64, 96)], (64, 96))
    equal_files(monkeypatch, graph, {"subnet": "teacher"}, form)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=40), st.sampled_from([1, 2, 4, 8, 16]), st.text(max_size=9))),
    st.integers(1, 9),
)
def test_a_builder_that_has_to_grow_writes_alike(parts, initial_bytes):
    written = []
    for builder in (Builder(initial_bytes), Plain(initial_bytes)):
        ends = []
        for payload, alignment, text in parts:
            ends += [builder.vector(payload, len(payload), alignment), builder.CreateString(text)]
            ends.append(builder.CreateNumpyVector(np.frombuffer(payload[: len(payload) // 4 * 4], np.float32)))
        builder.StartObject(4)
        builder.PrependBoolSlot(0, True, False)
        if ends:
            builder.PrependUOffsetTRelativeSlot(2, ends[0], 0)
        builder.PrependInt32Slot(3, -7, 0)
        builder.Finish(builder.EndObject(), file_identifier=b"TFL3")
        written.append((ends, bytes(builder.Output())))
    assert written[0] == written[1]
