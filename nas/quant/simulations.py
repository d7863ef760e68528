"""By the arithmetic that the hardware follows, and the type in a file: the simulation that its outputs equal.

A file's expected output and its NSR belong to that hardware. The same integers are written as int8 or, shifted by 128,
as uint8: on a CPU LiteRT has other kernels for the two types, an NPU may round both alike.
"""

from __future__ import annotations

from collections.abc import Mapping

from nas.quant import simulate, uint8
from nas.quant.arithmetic import Activations, Arithmetic
from nas.quant.simulate import Applied

SIMULATIONS: Mapping[Arithmetic, Mapping[Activations, Applied]] = {
    "litert": {"int8": simulate.apply, "uint8": uint8.apply},
    "xnnpack": {"int8": simulate.apply, "uint8": simulate.apply},
}
"""litert: LiteRT on a CPU, where XNNPACK leaves uint8's depthwise convolutions to the builtin kernels. xnnpack: its
rounding for both types. int8 is the same under all, so that no key of a run's main scheme, which is int8, names one."""
