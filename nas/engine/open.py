"""Which engine a name means."""

from __future__ import annotations

from nas.engine.local import Local
from nas.engine.protocol import Engine
from nas.engine.ray import Ray
from nas.errors import ConfigError


def open_engine(name: str, workers: int) -> Engine:
    """`local`, `ray` (a cluster on this machine, or the one at RAY_ADDRESS) or `ray://HOST:PORT`.

    Raises `ConfigError` for another name or for no workers.
    """
    if workers < 1:
        raise ConfigError(f"--workers {workers}: give 1 or more")
    if name == "local":
        return Local(workers)
    if name == "ray" or name.startswith("ray://"):
        return Ray(workers, None if name == "ray" else name)
    raise ConfigError(f"--engine {name}: there are local, ray and ray://HOST:PORT")
