"""Where networks are trained, and in what precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.settings import STRICT

DeviceName = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[str, ...] = get_args(DeviceName)
DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Compute:
    """Device and precision of a training.

    Attributes:
        device: auto takes a GPU where torch finds one, else the CPU.
        precision: of convolutions and products under autocast; weights, batch norms' statistics and losses stay
            float32. float16 scales the loss against underflow; bfloat16 does not need that. auto takes bfloat16 where
            the device computes in it (on such a CPU a step takes 0.65 to 0.9 of float32's time), else float32.
    """

    device: DeviceName = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    NOT_IN_KEY: ClassVar[frozenset[str]] = frozenset({"device"})  # it only rounds otherwise
    __pydantic_config__ = STRICT

    def place(self, number: int = 0) -> torch.device:
        """The device; several processes, by their `number`, are distributed over the GPUs in turn.

        Raises `ConfigError` if a GPU is demanded and torch finds none.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                f"device cuda: torch {torch.__version__} sees no GPU; install a CUDA build and its driver, or take cpu"
            )
        if self.device == "cpu" or not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", number % torch.cuda.device_count())

    def dtype(self, device: torch.device) -> torch.dtype:
        """What convolutions compute in on `device`."""
        if self.precision == "auto":
            return torch.bfloat16 if computes_bfloat16(device) else torch.float32
        return DTYPES[self.precision]

    def autocast(self, device: torch.device) -> torch.autocast:
        dtype = self.dtype(device)
        return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(device.type, enabled=self.precision == "float16")


def computes_bfloat16(device: torch.device) -> bool:
    """Whether `device` has instructions for it; elsewhere it is emulated, and slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public ones
    return any(getattr(torch.cpu, name, lambda: False)() for name in tests)


FLOAT32 = Compute()
CPU = torch.device("cpu")


def on_its_device(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """`model` as a function of images (N, 3, H, W) that may be on another device."""
    return lambda images: model(channels_last(images, device_of(model)))


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def channels_last(images: Tensor, device: torch.device) -> Tensor:
    """(N, C, H, W) on `device` in the memory order in which convolutions are fastest."""
    return images.to(device, memory_format=torch.channels_last, non_blocking=True)
