"""A bundle: a model with everything that proves it on a board, and nothing that has to be believed.

The folder holds the model, labels, preprocessing, a golden input and output, the measurement that justified
it and a verifier of one file (standard library and the TFLite runtime). The manifest names every file with
its size and sha256.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from deploy.compile.artifact import Artifact
from deploy.formats.digest import file_digest
from deploy.formats.files import write_atomically, write_json
from deploy.formats.tflite.read import read
from deploy.targets.inspection import inspect_model
from hil.boards.board import Board
from hil.errors import ModelError, UsageError
from hil.session import DEFAULT_WORKDIR

FORMAT = "hilnas-bundle/1"
VERIFIER = "verify_bundle.py"
RESIZE = {"resize": "bilinear to the input's height and width"}
PREPROCESSING: Mapping[str, Mapping[str, str | float]] = {
    "int8": {
        "input": "int8, NHWC, batch 1, RGB",
        "from_uint8": "int8 = uint8 - 128",
        "scale": 1 / 128,
        "zero_point": 0,
        **RESIZE,
    },
    "uint8": {
        "input": "uint8, NHWC, batch 1, RGB",
        "from_uint8": "as it is",
        "scale": 1 / 128,
        "zero_point": 128,
        **RESIZE,
    },
}
"""By the type of the model's input."""


@dataclass(frozen=True)
class Answer:
    """What a task's model answers, and how far a board may be off the golden output.

    Attributes:
        max_mismatch: the largest share of elements that may differ at all.
        max_abs_diff: the largest difference of an element; None where a distance means nothing.
    """

    task: str
    output: str
    max_mismatch: float
    max_abs_diff: int | None
    tolerance: str


ANSWERS: Mapping[str, Answer] = {
    "segmentation": Answer(
        task="Semantic segmentation",
        output="the class map, int32",
        max_mismatch=0.02,
        max_abs_diff=None,
        tolerance="at most 2 % of the pixels may\ndiffer, as delegates round differently",
    ),
    "classification": Answer(
        task="Image classification",
        output="a score a class, {kind}, the largest being the answer",
        max_mismatch=1.0,
        max_abs_diff=3,
        tolerance="the scores may be off by 3\nsteps, as delegates round differently",
    ),
}
"""By the name of the task. 3 steps: what onnxruntime is off at most after a whole classifier
(tests/deploy/formats/test_classifier.py); no delegate has been tried."""


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle; `task`: a key of `ANSWERS`; `facts` is shown in the README and kept in the manifest."""

    name: str
    artifact: Artifact
    task: str
    classes: Sequence[str]
    size: tuple[int, int]
    measurement: Mapping[str, Any]
    facts: Mapping[str, Any]


def export(contents: Contents, target: Path) -> Path:
    """Write the bundle aside, then rename it into place (replacing an older one of this kit)."""
    if target.exists() and not (target / "manifest.json").exists():
        raise UsageError(f"{target}: exists and is no bundle; give another --out")
    answer = ANSWERS[contents.task]
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "golden").mkdir(parents=True)
    shutil.copyfile(contents.artifact.model, part / "model.tflite")
    shutil.copyfile(contents.artifact.input, part / "golden/input.bin")
    shutil.copyfile(contents.artifact.expected, part / "golden/output.bin")
    (part / VERIFIER).write_bytes(files("board_scripts").joinpath(VERIFIER).read_bytes())
    write_atomically(part / "labels.txt", "\n".join(contents.classes) + "\n")
    kind, steps = input_type(contents.artifact.model), preprocessing(contents.artifact.model)
    write_json(part / "preprocessing.json", {**steps, "size": list(contents.size)})
    write_json(part / "measurement.json", contents.measurement)
    write_atomically(part / "README.md", _readme(contents, kind, steps))
    listed = sorted(p for p in part.rglob("*") if p.is_file())
    write_json(
        part / "manifest.json",
        {
            "format": FORMAT,
            "name": contents.name,
            "model": "model.tflite",
            "labels": "labels.txt",
            "preprocessing": "preprocessing.json",
            "measurement": "measurement.json",
            "facts": dict(contents.facts),
            "golden": [
                {
                    "input": "golden/input.bin",
                    "output": "golden/output.bin",
                    "max_mismatch": answer.max_mismatch,
                    "max_abs_diff": answer.max_abs_diff,
                }
            ],
            "files": {str(p.relative_to(part)): {"sha256": file_digest(p), "bytes": p.stat().st_size} for p in listed},
        },
    )
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.replace(old)  # half removed, it would be no bundle that the next export may replace
    part.replace(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def input_type(model: Path) -> str:
    """What the model's file takes; `UsageError` for a type that no model of this kit has."""
    kind = inspect_model(read(model)).inputs[0].dtype.lower()
    if kind not in PREPROCESSING:
        raise UsageError(f"{model}: takes {kind}; a bundle holds models that take {' or '.join(PREPROCESSING)}")
    return kind


def preprocessing(model: Path) -> Mapping[str, str | float]:
    """From an image to the model's input: plain, or by the model's own scale where it reads fewer than 8 bits."""
    kind, end = input_type(model), inspect_model(read(model)).inputs[0]
    plain = PREPROCESSING[kind]
    if len(end.scale) != 1 or (*end.scale, *end.zero_point) == (plain["scale"], plain["zero_point"]):
        return plain
    scale, zero_point = end.scale[0], end.zero_point[0]
    formula = f"{kind} = round((uint8 - 128) / 128 / {scale!r}) + {zero_point}, ties to even"
    return {**plain, "from_uint8": formula, "scale": scale, "zero_point": zero_point}


def _readme(contents: Contents, kind: str, steps: Mapping[str, str | float]) -> str:
    answer = ANSWERS[contents.task]
    facts = "\n".join(f"- {key}: {value}" for key, value in contents.facts.items())
    return f"""# {contents.name}

{answer.task}, {len(contents.classes)} classes (labels.txt), {contents.size[0]} x {contents.size[1]} pixels.
Input: RGB, {steps["from_uint8"] if kind == "int8" else kind}, NHWC (preprocessing.json). \
Output: {answer.output.format(kind=kind)}.

{facts}

Verify it where it will run (needs Python 3.9 and a TFLite runtime, nothing else):

    python3 {VERIFIER} . [--delegate /usr/lib/libvx_delegate.so]

It checks every file's hash, runs the golden input, compares with the golden output ({answer.tolerance}), and times the
model. The latency of measurement.json is that of the board named there, under the conditions stated there.
"""


def verify(bundle: Path, board: Board, runs: int = 30) -> dict[str, Any]:
    """Run the kit's own verifier (not the bundle's copy) on the board; its checks and verdict.

    Raises `UsageError` if there is no bundle, `ModelError` naming the first check that did not hold.
    """
    if not (bundle / "manifest.json").is_file():
        raise UsageError(f"{bundle}: no bundle there (no manifest.json); make one with `hilnas bundle export`")
    workdir = (board.config.workdir or DEFAULT_WORKDIR).rstrip("/")
    remote = f"{workdir}/bundles/{file_digest(bundle / 'manifest.json')[:16]}"
    _push(bundle, board, remote)
    verifier = f"{remote}.{VERIFIER}"
    script = Path(str(files("board_scripts").joinpath(VERIFIER)))
    board.put(script, verifier)
    argv = [
        "env",
        *(f"{k}={v}" for k, v in board.config.env.items()),
        board.config.python or "python3",
        verifier,
        remote,
        "--runs",
        str(runs),
        "--threads",
        str(board.config.threads),
    ]
    if board.config.delegate:
        argv += ["--delegate", board.config.delegate]
        for key, value in board.config.delegate_options.items():
            argv += ["--delegate-option", f"{key}={value}"]
    result = board.run(argv, timeout_s=900)
    board.run(["rm", "-rf", "--", remote, verifier], timeout_s=30)
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    if not lines or "verified" not in lines[-1]:
        last = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ModelError(f"{bundle}: the verifier ended with {result.exit_code} on {board.name}: {last}")
    failed = [line for line in lines if line.get("ok") is False]
    if not lines[-1]["verified"]:
        first = failed[0] if failed else lines[-1]
        raise ModelError(f"{bundle}: not verified on {board.name}: {first.get('check')}: {first.get('detail')}")
    verdict: dict[str, Any] = lines[-1]
    return {**verdict, "board": board.name, "checks": len(lines) - 1}


def _push(bundle: Path, board: Board, remote: str) -> None:
    """The bundle's regular files, under their own relative names, to a fresh folder on the board."""
    board.run(["rm", "-rf", "--", remote], timeout_s=30)
    sources = sorted(p for p in bundle.rglob("*") if p.is_file() and not p.is_symlink())
    folders = sorted({str(Path(remote) / p.relative_to(bundle).parent) for p in sources})
    made = board.run(["mkdir", "-p", "--", *folders], timeout_s=30)
    if made.exit_code:
        raise UsageError(f"{board.name}: cannot make {remote} ({made.stderr.strip()}); mend 'workdir' in boards.toml")
    for source in sources:
        board.put(source, f"{remote}/{source.relative_to(bundle)}")
