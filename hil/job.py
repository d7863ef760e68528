"""What a board measures: a model with its golden pair, by a protocol, in interleaved rounds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from hil.boards.config import BoardConfig
from hil.errors import UsageError
from hil.input_shape import InputShape, text_of
from hil.measurement import Conditions, digest
from hil.request import Pass, Request
from hil.spread import KernelSpread
from hil.stage import sha256_of

CACHE_FILE = "cache_file_path"
"""The option of VeriSilicon's delegate that names the file of its own graph cache."""


@dataclass(frozen=True)
class Job:
    """A model to measure.

    Attributes:
        model: the .tflite file.
        name: the model's name in reports.
        input: raw little-endian bytes of its inputs, one after the other; None: random, the same each time.
        expected: raw little-endian bytes of its outputs for that input; None: parity is not checked.
        input_shapes: the sizes of all of its inputs in the model's order; empty: those of its file.
        class_map: (H, W) after each of the resizes that the board's CPU makes of the model's logits before their
            arg-max; `expected` is then the class map (int32), and a latency is from the input's bytes to it. (): the
            output is that map. None: the outputs are the result, and a latency is that of the inference.
        spread: what two kernel sets differ by on the model and its input, where that is known; called only if outputs
            exceed the board's tolerance. None: the tolerance alone decides.
        hint: what may explain outputs that differ on a board, and what to do then; "" where nothing is known.
    """

    model: Path
    name: str
    input: Path | None = None
    expected: Path | None = None
    input_shapes: tuple[InputShape, ...] = ()
    class_map: tuple[tuple[int, int], ...] | None = None
    spread: Callable[[], KernelSpread | None] | None = field(default=None, compare=False, repr=False)
    hint: Callable[[BoardConfig], str] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.expected is not None and self.input is None:
            raise UsageError(f"job {self.name}: expected outputs belong to an input: give both files")

    def under(self, conditions: Conditions) -> Conditions:
        """A session's conditions with the sizes of this model's inputs, where they are not those of its file."""
        return replace(conditions, input_shapes=text_of(self.input_shapes)) if self.input_shapes else conditions


@dataclass(frozen=True)
class MeasureProtocol:
    """How a model is measured.

    Attributes:
        warmup_runs: least number of runs after the first one that are not counted.
        warmup_runs_most: largest number of them; the warm-up ends earlier when two windows of three runs have
            medians within 2 % of each other.
        runs: steady runs per round, which are counted.
        rounds: how often the whole set of models is measured.
        compile_deadline_s: until the first inference is done (an NPU compiles the graph then: minutes).
        run_deadline_s: for all runs after it together.
        series: a stored measurement is reused only for the same word.
    """

    warmup_runs: int = 5
    warmup_runs_most: int = 50
    runs: int = 30
    rounds: int = 2
    compile_deadline_s: float = 600.0
    run_deadline_s: float = 60.0
    series: str = ""

    def __post_init__(self) -> None:
        if self.warmup_runs < 0 or self.runs < 1 or self.rounds < 1:
            raise UsageError(f"{self}: runs and rounds must be 1 or more, warmup_runs 0 or more")
        if self.compile_deadline_s <= 0 or self.run_deadline_s <= 0:
            raise UsageError(f"{self}: deadlines must be above 0 s")

    def key(self) -> str:
        """Over what changes a measurement. Not over `rounds`: more of them keep those that are done."""
        return digest({name: value for name, value in asdict(self).items() if name != "rounds"})[:16]


@dataclass(frozen=True)
class RoundTask:
    """A job in one round.

    Attributes:
        identity: of the job without its round and conditions (`identity_of`).
        attempt: 0, and one more each time that a failed job is measured again.
    """

    job: Job
    identity: str
    round: int
    job_id: str
    model_sha256: str
    attempt: int = 0


def tasks_of(
    jobs: Sequence[Job], config: BoardConfig, conditions_key: str, protocol: MeasureProtocol, seed: int
) -> Iterator[RoundTask]:
    """Every job once per round, each round in its own order.

    Where only benchmark_model runs, all latencies are of the inference: raises UsageError for a job whose class map is
    the CPU's.
    """
    if config.driver != "python":
        finished = next((job for job in jobs if job.class_map), None)
        if finished is not None:
            raise UsageError(
                f"board {config.name}: {config.driver} runs nothing after a model, and {finished.name} leaves its "
                'class map to the CPU: use driver = "python", or the tail "classes"'
            )
        jobs = [replace(job, class_map=None) for job in jobs]
    models = [sha256_of(job.model) for job in jobs]
    identities = [identity_of(job, sha256, config) for job, sha256 in zip(jobs, models, strict=True)]
    for round_number in range(protocol.rounds):
        order = list(range(len(jobs)))
        random.Random(f"{seed}:{round_number}").shuffle(order)
        for index in order:
            job_id = digest([identities[index], conditions_key, protocol.key(), round_number])
            yield RoundTask(jobs[index], identities[index], round_number, job_id, models[index])


def identity_of(job: Job, model_sha256: str, config: BoardConfig) -> str:
    """Over the files, the sizes of the inputs where they are not those of the file and the CPU's part where there is
    one, and over the tolerances where they decide: with looser ones, a refused model runs again.
    """
    files = [sha256_of(path) if path is not None else None for path in (job.input, job.expected)]
    tolerances = [config.parity_max_abs_diff, config.parity_max_mismatch] if job.expected is not None else []
    shapes = [[entry.name, list(entry.shape)] for entry in job.input_shapes]
    needs_delegate = bool(config.delegate) and not config.allow_fallback
    after = [] if job.class_map is None else [{"class_map": [list(size) for size in job.class_map]}]
    return digest([model_sha256, *files, *tolerances, needs_delegate, *([shapes] if shapes else []), *after])


def files_of(job: Job) -> list[Path]:
    return [path for path in (job.model, job.input, job.expected) if path is not None]


def delegate_options_for(config: BoardConfig, model: str) -> dict[str, str]:
    """The board's, with a cache file of this model's own: from another's the delegate would run the other's graph."""
    path = config.delegate_options.get(CACHE_FILE)
    return {**config.delegate_options, CACHE_FILE: f"{path}.{model}"} if path else config.delegate_options


def request_of(
    task: RoundTask,
    config: BoardConfig,
    conditions_key: str,
    protocol: MeasureProtocol,
    paths: Mapping[Path, str],
    *,
    measured: Pass = "time",
) -> Request:
    """The task as a request to the runner; `paths` are the files' on the board, `conditions_key` is of `Job.under`."""
    job, limited = task.job, bool(config.max_temperature_c)
    cache = digest([task.model_sha256, conditions_key])[:32]  # of the model, the driver and the environment
    return Request(
        id=task.job_id,
        name=job.name,
        model=paths[job.model],
        warmup_runs=protocol.warmup_runs,
        warmup_runs_most=protocol.warmup_runs_most,
        runs=protocol.runs,
        threads=config.threads,
        kernels=config.kernels,
        compile_deadline_s=protocol.compile_deadline_s,
        run_deadline_s=protocol.run_deadline_s,
        attempt=task.attempt,
        round=task.round,
        conditions=conditions_key,
        graph_cache=cache,
        input=paths[job.input] if job.input is not None else None,
        expected=paths[job.expected] if job.expected is not None else None,
        delegate=config.delegate or None,
        delegate_options=delegate_options_for(config, cache),
        max_temperature_c=config.max_temperature_c if limited else None,
        cool_down_s=config.cool_down_s if limited else None,
        input_shapes=job.input_shapes,
        class_map=job.class_map,
        measured=measured,
    )
