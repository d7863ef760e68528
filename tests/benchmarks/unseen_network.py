"""A network that nobody had tried, Basic Pitch of Spotify (`nmp.onnx` in its wheel), behind its own spectrogram.

    pip download --no-deps basic-pitch==0.4.0, unpack it, then
    .venv/bin/python -m tests.benchmarks.unseen_network basic_pitch/saved_models/icassp_2022/nmp.onnx

onnxruntime computes the spectrograms of drawn chords inside of the network; from there on it is imported, compared with
onnxruntime's float outputs and quantized.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.formats.importers.files import import_network
from deploy.quantize import quantize
from hil.input_shape import InputShape

START = "model_1/normalized_log_1/Reshape_2;model_1/normalized_log_1/Reshape_2"
SHAPE = (1, 172, 309)
RATE, SAMPLES = 22_050, 43_844  # of the audio that the network reads
CHORDS = 40


def chord(rng: np.random.Generator) -> NDArray[np.float32]:
    """One to four decaying notes, as audio (1, samples, 1)."""
    seconds, audio = np.arange(SAMPLES) / RATE, np.zeros(SAMPLES)
    for _ in range(rng.integers(1, 5)):
        frequency = 440 * 2 ** ((rng.integers(30, 90) - 69) / 12)
        decay = np.exp(-rng.uniform(0, 3) * np.maximum(seconds - rng.uniform(0, 1.5), 0))
        audio += rng.uniform(0.1, 1) * np.sin(2 * np.pi * frequency * seconds + rng.uniform(0, 6)) * decay
    return (audio / np.abs(audio).max()).astype(np.float32)[None, :, None]


def main(argv: list[str] | None = None) -> int:
    import onnx
    import onnxruntime

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="nmp.onnx")
    path: Path = parser.parse_args(argv).model
    whole = onnx.load(path)
    whole.graph.output.append(onnx.helper.make_tensor_value_info(START, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    rng, source = np.random.default_rng(0), session.get_inputs()[0].name
    answers = [session.run(None, {source: chord(rng)}) for _ in range(CHORDS)]
    network = import_network(path, [InputShape(START, SHAPE)], start=START)
    spectrograms = [answer[-1] for answer in answers]
    found = [network.run(x) for x in spectrograms]
    quantized = quantize(network, [np.concatenate(spectrograms)])
    for i, (name, value) in enumerate(network.outputs.items()):
        off = max(float(np.abs(mine[name] - theirs[i]).max()) for mine, theirs in zip(found, answers, strict=True))
        print(f"{name}: at most {off:.1e} off onnxruntime, noise {quantized.noise_db[value.tensor]:.1f} dB in int8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
