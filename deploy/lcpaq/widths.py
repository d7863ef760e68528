"""The user's network at its policy's bits, as the file to deploy; beside it with 8, 6 and 4 bits in every layer.

Those lie in folders of their names. widths.jsonl keeps each as it is done, widths.json has all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.compile.artifact import Artifact
from deploy.formats.digest import digest, file_digest
from deploy.formats.files import write_atomically
from deploy.formats.journal import Journal
from deploy.formats.pack import pack
from deploy.lcpaq.objectives import ByLabels, ByOutputs
from deploy.lcpaq.own_network import OwnNetwork
from deploy.lcpaq.records import ComparedWidth, WidthComparison
from deploy.lcpaq.settings import StepSettings
from deploy.lcpaq.subject import kept_policy
from deploy.run.folder import Progress
from nas.lcpaq.policy import Policy
from nas.training.threads import one_thread

POLICY_ROW = "LCPAQ"
EVERYWHERE: Mapping[str, int] = {"INT8": 8, "INT6": 6, "INT4": 4}


def artifact_of(subject: OwnNetwork, name: str = POLICY_ROW) -> Artifact:
    """Where the file of a width is."""
    folder = subject.folder if name == POLICY_ROW else subject.folder / name
    return Artifact.at(folder, f"{subject.name}.{subject.quantization.activations}")


def compare_widths(subject: OwnNetwork, settings: StepSettings) -> Iterator[Progress]:
    """widths.json, and the files of policy.json's network: .tflite, golden pair, quantization.json."""
    policy, images = kept_policy(subject), settings.scoring_images
    policies = {POLICY_ROW: policy} | {name: _everywhere(policy, bits) for name, bits in EVERYWHERE.items()}
    key = digest(subject.key, str(policy), images)
    journal = Journal(subject.folder / "widths.jsonl", ComparedWidth, key)
    done = {width.name: width for width in journal.read() if _is_there(subject, width)}
    if done.keys() == policies.keys() and WidthComparison.current(subject.folder, key):
        return
    for i, (name, at) in enumerate(policies.items(), start=1):
        if name not in done:
            done[name] = _width(subject, name, at, images)
            journal.append(done[name])
        yield Progress("lcpaq widths", i, len(policies), name)
    widths = tuple(done[name] for name in policies)
    _record(subject, key, widths, images).write(subject.folder / WidthComparison.FILE)


def _is_there(subject: OwnNetwork, width: ComparedWidth) -> bool:
    """Whether the file is still the one that this is of: other settings write theirs in its place."""
    artifact = artifact_of(subject, width.name)
    return artifact.exists and file_digest(artifact.model) == width.sha256


def _everywhere(policy: Policy, bits: int) -> Policy:
    return Policy(dict.fromkeys(policy.bits, bits))


def _width(subject: OwnNetwork, name: str, policy: Policy, images: int) -> ComparedWidth:
    """Its files, and what is known of them."""
    quantized, objective = subject.quantized(policy), subject.objective
    artifact = quantized.save(artifact_of(subject, name).model.parent, subject.name, subject.calibration.text)
    content = artifact.model.read_bytes()
    with one_thread():
        return ComparedWidth(
            name=name,
            policy=str(policy),
            sha256=file_digest(artifact.model),
            size_bits=quantized.graph.size_bits,
            file_bytes=len(content),
            packed_bytes=len(pack(content)),
            noise_db=ByOutputs(subject.data).noise_db(quantized, images),
            metric=objective.validated(quantized, images) if isinstance(objective, ByLabels) else None,
        )


def _record(subject: OwnNetwork, key: str, widths: tuple[ComparedWidth, ...], images: int) -> WidthComparison:
    noted, objective = ByOutputs(subject.data).scored(images), subject.objective
    if not isinstance(objective, ByLabels):
        return WidthComparison(key, noted, widths)
    score, count = objective.float_validated(images)
    return WidthComparison(key, noted, widths, objective.metric, score, count)


def write_packed(artifact: Artifact) -> Path:
    """The policy's file beside itself, its weights packed at their bits."""
    path = artifact.model.with_suffix(".packed")
    write_atomically(path, pack(artifact.model.read_bytes()))
    return path
