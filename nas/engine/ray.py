"""Tasks on a Ray cluster: a new one on this machine, or one that runs already.

Ray itself runs a lost worker's task again. Every node needs this kit (`pip install 'hilnas[ray]'`), and the files that
tasks read and write must have the same path on all of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nas.engine.protocol import ATTEMPTS, THREADS, R, T
from nas.errors import ConfigError, EngineError


@dataclass(frozen=True)
class Ray:
    """`workers` CPUs of a new local cluster, or all CPUs of the one at `address`, at RAY_ADDRESS or connected to."""

    workers: int
    address: str | None = None

    def each(self, function: Callable[[T], R], tasks: Sequence[T]) -> Generator[tuple[T, R], None, None]:
        remote = self.address or os.environ.get("RAY_ADDRESS")
        # Workers on this machine import what this process can; on other machines paths differ.
        variables = {THREADS: "1"} if remote else {THREADS: "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        with _cluster(self.workers, remote) as ray:
            shared = ray.put(function)
            environment = {"env_vars": variables}
            call = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1, runtime_env=environment)(_call)
            running = {call.remote(shared, task): task for task in tasks}
            try:
                while running:
                    (ended, *_), _ = ray.wait(list(running))
                    task = running.pop(ended)
                    yield task, _result(ray, ended, task)
            finally:
                for reference in running:
                    ray.cancel(reference, force=True)


def _call(function: Callable[[Any], Any], task: Any) -> Any:
    return function(task)


def _result(ray: Any, reference: Any, task: object) -> Any:
    """What a task returned; what it raised is raised. `EngineError` where Ray gave up."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if not isinstance(error.cause, ray.exceptions.RayError):
            raise error.cause from None
        reason = _first_line(error.cause)
    except ray.exceptions.WorkerCrashedError:
        reason = f"its worker was killed {ATTEMPTS} times, perhaps for want of memory"
    except ray.exceptions.RayError as error:
        reason = _first_line(error)
    raise EngineError(f"Ray could not run {task}: {reason}; fix the cluster, then run again")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _connect(ray: Any, address: str | None, local: Mapping[str, Any]) -> None:
    """A head that did not start its proxy in time answers a client with "Initialization failure": try once more."""
    for last in (False, True):
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
            return
        except ConnectionError as error:
            if last or "Initialization failure" not in str(error):
                raise
            ray.shutdown()


@contextmanager
def _cluster(workers: int, address: str | None) -> Iterator[Any]:
    """The `ray` module, connected; a connection or cluster that was made here ends with the context."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its future default; it warns about the present
    try:
        import ray
    except ImportError:
        raise ConfigError("--engine ray: Ray is not installed; pip install 'hilnas[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    local = {} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        _connect(ray, address, local)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"--engine {address or 'ray'}: no cluster there ({_first_line(error)}); start one, or --engine local"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()
