"""QA-BWNAS and LCPAQ together: a found model refined inside its blocks, searched beside the tables, and compiled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.cli import main
from deploy.formats.tflite.read import read
from deploy.latency.table import CPU_OPERATORS
from deploy.targets.inspection import inspect_model
from nas.estimate import Estimate
from nas.lcpaq.policy import Policy, load_policy, save_policy
from nas.space import Architecture, Subnet
from nas.table import Table
from tests.deploy.networks import interpret
from tests.deploy.tiny_experiment import REPOSITORY, arguments, finished_run, one_line, record, write_experiment

SMALLER = {'budgets = [{ name = "fast", latency = 50.0 }]': 'budgets = [{ name = "fast", size = 0.6 }]'}
QUICK = ("--images", "8", "--scoring-images", "16", "--k", "2", "--bits", "3,4,5,6,8")


@dataclass(frozen=True)
class Joint:
    """A run whose selected model has blocks of few bits, refined by LCPAQ; `runs` is its --runs-dir."""

    config: Path
    runs: Path

    @property
    def folder(self) -> Path:
        return self.runs / "tiny"

    @property
    def lcpaq(self) -> Path:
        return self.folder / "lcpaq" / "fast"

    @property
    def found(self) -> dict[str, Any]:
        (entry,) = record(self.folder / "search.json")["selected"]
        return dict(entry)

    @property
    def policy(self) -> Policy:
        return load_policy(self.lcpaq / "policy.json", record(self.lcpaq / "blocks.json")["network"])

    def refine(self) -> int:
        options = ("--model", "fast", "--size-limit", "blocks", *QUICK)
        return main(["lcpaq", "refine", *arguments(self.config, self.runs, *options)])

    def search(self, *more: str) -> int:
        return main(["search", *arguments(self.config, self.runs, "--size-budget", "100%", *more)])

    def compile(self, out: Path, *more: str) -> int:
        run = ("--config", str(self.config), "--boards", str(REPOSITORY / "boards.toml"))
        return main(["compile", *more, *run, "--weights", str(self.folder), "--out", str(out)])


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Joint:
    base = tmp_path_factory.mktemp("joint")
    made = Joint(write_experiment(base, SMALLER), base / "runs")
    finished_run(tmp_path_factory).copy(made.runs)
    assert made.refine() == 0
    return made


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """A file that is as before afterwards."""
    before = path.read_bytes()
    try:
        yield
    finally:
        path.write_bytes(before)


def rows(joint: Joint, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    """By scheme, the found model's own row of all that the search gives; and the whole answer."""
    capsys.readouterr()
    assert joint.search("--k", "100", "--json", *more) == 0
    answer = json.loads(capsys.readouterr().out)
    own = [row for row in answer["selected"] if row["subnet"] == joint.found["subnet"]]
    return {"answer": answer, **{row.get("scheme", "alone"): row for row in own}}


def test_a_selected_model_is_refined_inside_its_blocks_within_what_their_bits_take(joint: Joint):
    found, blocks, policy = joint.found, record(joint.lcpaq / "blocks.json"), joint.policy
    architecture = Architecture.parse(found["subnet"])
    assert {subnet.bits for subnet in architecture.subnets} != {8}
    assert [block["subnet"] for block in blocks["blocks"]] == found["subnet"].split("+")
    assert Policy.parse(blocks["policy"]) == policy == Policy.parse(record(joint.lcpaq / "refine.json")["best"])
    outside = {name: bits for name, bits in policy.bits.items() if not name.startswith(("b1/", "b2/"))}
    assert set(outside.values()) == {8} and len(set(policy.bits.values())) > 1
    assert blocks["outside_bits"] == record(joint.folder / "search.json")["outside_blocks"]["size_bits"]
    size_bits = blocks["outside_bits"] + sum(block["size_bits"] for block in blocks["blocks"])
    assert size_bits <= found["size_bits"] == record(joint.lcpaq / "solve.json")["limits"]["size_bits"]
    assert sum(block["plain_nsr"] for block in blocks["blocks"]) == found["nsr"]
    assert all(0 < block["nsr"] < 100 and block["nsr"] != block["plain_nsr"] for block in blocks["blocks"])


def test_the_search_shows_it_beside_the_tables(joint: Joint, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    found, blocks = rows(joint, capsys), record(joint.lcpaq / "blocks.json")
    plain, refined = found["channel int8"], found["lcpaq fast"]
    assert (plain["nsr"], plain["size_bits"]) == (joint.found["nsr"], joint.found["size_bits"])
    assert refined["nsr"] == sum(block["nsr"] for block in blocks["blocks"])
    assert refined["size_bits"] == blocks["outside_bits"] + sum(block["size_bits"] for block in blocks["blocks"])
    assert refined["latency_us"] == plain["latency_us"]
    assert found["answer"]["architectures"] == 4 * 8 + 1
    assert joint.search("--prove", "--front", str(tmp_path / "front.csv")) == 0
    assert "no difference" in capsys.readouterr().out
    lines = (tmp_path / "front.csv").read_text().splitlines()
    assert lines[0].endswith(",scheme")
    better = refined["nsr"] < plain["nsr"]
    assert any(line.endswith(",lcpaq fast") for line in lines) == (better or refined["size_bits"] < plain["size_bits"])


def test_at_its_own_bits_it_is_the_tables_model_bit_for_bit(joint: Joint, capsys: pytest.CaptureFixture[str]):
    """A policy file written by hand: the record is made anew from refine.json's policy, so that is replaced too."""
    own = {subnet.block: subnet.bits for subnet in Architecture.parse(joint.found["subnet"]).subnets}
    bits = {name: own[int(name[1])] if name[0] == "b" else 8 for name in joint.policy.bits}
    with kept(joint.lcpaq / "policy.json"), kept(joint.lcpaq / "blocks.json"), kept(joint.lcpaq / "refine.json"):
        refined = record(joint.lcpaq / "refine.json")
        (joint.lcpaq / "refine.json").write_text(json.dumps({**refined, "best": str(Policy(bits))}))
        assert joint.refine() == 0
        found = rows(joint, capsys)
        plain, same = found["channel int8"], found["lcpaq fast"]
        assert {**same, "scheme": plain["scheme"]} == plain


def test_a_record_of_other_bits_or_another_search_is_left_out(joint: Joint, capsys: pytest.CaptureFixture[str]):
    path, network = joint.lcpaq / "policy.json", record(joint.lcpaq / "blocks.json")["network"]
    with kept(path):
        save_policy(Policy({**joint.policy.bits, "b1/0/expand": 2}), path, network)
        found = rows(joint, capsys)
        assert found["answer"]["stale"] == ["fast"] and "alone" in found and "lcpaq fast" not in found
        assert joint.search() == 0
        assert "left out: lcpaq fast" in capsys.readouterr().out
        path.write_text("{")
        assert rows(joint, capsys)["answer"]["stale"] == ["fast"]
    state = joint.folder / "state.json"
    with kept(state):
        stages = record(state)
        stages["stages"]["retrain"]["key"] = "f00"
        state.write_text(json.dumps(stages))
        assert rows(joint, capsys)["answer"]["stale"] == ["fast"]
    assert "stale" not in rows(joint, capsys)["answer"]


def test_a_damaged_record_is_refused_in_a_line(joint: Joint, capsys: pytest.CaptureFixture[str]):
    path = joint.lcpaq / "blocks.json"
    whole = record(path)
    with kept(path):
        for text, words in (
            ("{", "not readable as JSON"),
            (json.dumps({**whole, "blocks": [{"subnet": 3}]}), "'blocks.0.subnet'"),
            (json.dumps({**whole, "outside_bits": None}), "'outside_bits'"),
            (json.dumps({**whole, "around_bits": 3}), "unknown key 'around_bits'"),
            (json.dumps({**whole, "blocks": whole["blocks"][:1]}), "its blocks are not those of"),
            (json.dumps({n: v for n, v in whole.items() if n != "schema_version"}), "no schema version"),
        ):
            path.write_text(text)
            capsys.readouterr()
            assert joint.search() == 2
            one_line(capsys.readouterr().err, "blocks.json", words)


def test_it_needs_the_delegate_as_the_plain_model_does(joint: Joint, capsys: pytest.CaptureFixture[str]):
    nsr = Table.load(joint.folder / "tables" / "nsr.parquet")
    path = joint.folder / "tables" / f"{CPU_OPERATORS}.parquet"
    of_selected = set(map(Subnet.parse, joint.found["subnet"].split("+")))
    for left, shown in (({}, {"channel int8", "lcpaq fast"}), (of_selected, set())):
        entries = {subnet: Estimate.exact(float(subnet in left)) for subnet in nsr.entries}
        Table("cpu_operators", "count", entries, nsr.provenance).save(path)
        assert rows(joint, capsys, "--no-cpu-fallback").keys() - {"answer"} == shown
    path.unlink()


# Compiling


def run_file(model: Path) -> None:
    """LiteRT answers the golden output to the golden input."""
    written = read(model)
    shapes = [written.tensors[i].shape for i in (*written.inputs, *written.outputs)]
    source, expected = (model.with_suffix(f".{end}.bin").read_bytes() for end in ("input", "expected"))
    answer = interpret(model.read_bytes(), np.frombuffer(source, np.int8).reshape(shapes[0]))
    assert answer.tobytes() == expected


def test_the_compiler_takes_the_policy(joint: Joint, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    policy = ("--policy", str(joint.lcpaq / "policy.json"))
    assert joint.compile(tmp_path, "fast", *policy) == joint.compile(tmp_path, "fast", "teacher") == 0
    assert [Path(line).name for line in capsys.readouterr().out.split()] == [
        "lcpaq-fast.tflite",
        "fast.tflite",
        "teacher.tflite",
    ]
    for name in ("lcpaq-fast", "fast", "teacher"):
        run_file(tmp_path / f"{name}.tflite")
    assert joint.compile(tmp_path, "fast", *policy, "--format", "onnx") == 0
    assert (tmp_path / "lcpaq-fast.onnx").stat().st_size > 20_000
    told = inspect_model(read(tmp_path / "lcpaq-fast.tflite"))
    assert told.requested_bits == tuple(sorted(set(joint.policy.bits.values())))
    shipped = joint.folder / "models" / "teacher.tflite"
    assert (tmp_path / "teacher.expected.bin").read_bytes() == shipped.with_suffix(".expected.bin").read_bytes()


def test_four_bits_that_are_asked_for_packed_make_a_smaller_file(joint: Joint, tmp_path: Path):
    network = record(joint.lcpaq / "blocks.json")["network"]
    four = {name: 8 if name in ("stem", "logits") else 4 for name in joint.policy.bits}
    save_policy(Policy(four), tmp_path / "four.json", network)
    policy = ("--policy", str(tmp_path / "four.json"))
    assert joint.compile(tmp_path / "packed", "fast", *policy, "--few-bits", "int4") == 0
    assert joint.compile(tmp_path / "plain", "fast", *policy) == 0
    sizes = [(tmp_path / form / "lcpaq-fast.tflite").stat().st_size for form in ("packed", "plain")]
    size_bits = record_of(tmp_path / "plain" / "lcpaq-fast.tflite")["size_bits"]
    assert sizes[0] < sizes[1] - 8000 and size_bits < joint.found["size_bits"]
    assert not (tmp_path / "packed" / "lcpaq-fast.expected.bin").exists()
    assert record_of(tmp_path / "packed" / "lcpaq-fast.tflite")["policy"] == str(Policy(four))


def record_of(model: Path) -> dict[str, Any]:
    """What a file says of itself."""
    return dict(inspect_model(read(model)).hilnas or {})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("fast", "none.json"), ("none.json", "no policy can be read")),
        (("fast", "damaged.json"), ("damaged.json", "not JSON")),
        (("teacher", "own.json"), ("own.json", "policy of another network")),
        (("fast", "unknown.json"), ("unknown.json", "no layer 'b1/0/expad'", "did you mean 'b1/0/expand'")),
        (("fast", "wide.json"), ("wide.json", "'stem'", "2 to 8 bits", "not 9")),
        (("--all", "own.json"), ("--policy", "not --all")),
        (("b1_k3e2_w8", "own.json"), ("--policy", "not b1_k3e2_w8")),
        (("nobody", "own.json"), ("nobody", "neither a subnet nor a network", "teacher, fast")),
        (("resnet18", "own.json"), ("resnet18", "no such network", "hilnas lcpaq run --model resnet18")),
    ],
)
def test_a_policy_that_does_not_fit_is_refused_in_a_line(
    joint: Joint, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, str], words: tuple[str, ...]
):
    (name, policy), bits = given, joint.policy.bits
    network = record(joint.lcpaq / "blocks.json")["network"]
    save_policy(Policy(bits), tmp_path / "own.json", network)
    save_policy(Policy({**bits, "b1/0/expad": 8}), tmp_path / "unknown.json", network)
    save_policy(Policy({**bits, "stem": 9}), tmp_path / "wide.json", network)
    (tmp_path / "damaged.json").write_text("policy")
    assert joint.compile(tmp_path / "out", name, "--policy", str(tmp_path / policy)) == 2
    one_line(capsys.readouterr().err, *words)
    assert not (tmp_path / "out").exists()


def test_options_of_subnets_are_not_of_networks(joint: Joint, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for more, words in (
        (("fast", "--bits", "4"), ("--bits", "--policy")),
        (("fast", "--format", "converter"), ("--format converter",)),
        (("fast", "teacher", "--policy", "p.json"), ("--policy", "one network")),
    ):
        assert joint.compile(tmp_path / "out", *more) == 2
        one_line(capsys.readouterr().err, *words)
    assert main(["compile", "fast", "--policy", "p.json", "--out", str(tmp_path / "out")]) == 2
    one_line(capsys.readouterr().err, "--policy", "add its --config")
    with kept(joint.folder / "state.json"):
        stages = record(joint.folder / "state.json")
        stages["stages"]["retrain"]["done"] = False
        (joint.folder / "state.json").write_text(json.dumps(stages))
        assert joint.compile(tmp_path / "out", "fast") == 2
        one_line(capsys.readouterr().err, "no such network", "hilnas retrain")
