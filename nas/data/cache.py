"""Decoded samples kept in memory, up to a number of bytes."""

from __future__ import annotations

from collections.abc import Callable

from nas.data.sample import Sample

CACHE_BYTES = 512 * 2**20  # CamVid's 367 training images take 64 MB at 180x240


class SampleCache:
    """Keeps the first samples that fit into `limit_bytes` and never evicts one.

    Training visits every sample once per epoch; in that order a least-recently-used cache that is too small always
    misses, this one misses only what did not fit. Its samples are read-only.
    """

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._samples: dict[int, Sample] = {}

    def get(self, index: int, make: Callable[[int], Sample]) -> Sample:
        """The sample at `index`, made by `make(index)` where it is not kept."""
        if (kept := self._samples.get(index)) is not None:
            return kept
        sample = make(index)
        sample.image.setflags(write=False)
        sample.label.setflags(write=False)
        needed_bytes = sample.image.nbytes + sample.label.nbytes
        if self.used_bytes + needed_bytes <= self.limit_bytes:
            self._samples[index] = sample
            self.used_bytes += needed_bytes
        return sample
