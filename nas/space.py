"""The search space: blocks of MBConv layers, and the one text form of a subnet.

Source: QA-BWNAS (arXiv 2401.12350), Table I. A subnet is one block with a (kernel, expansion) choice for
each layer and one weight bit width; an architecture is one subnet per block.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from nas.errors import ConfigError
from nas.settings import STRICT, build, read_toml


@dataclass(frozen=True, order=True)
class Choice:
    """One MBConv layer's kernel size and expansion ratio, written `k3e6`."""

    kernel: int
    expansion: int

    def __str__(self) -> str:
        return f"k{self.kernel}e{self.expansion}"


_CHOICE = re.compile(r"k([1-9]\d?)e([1-9]\d?)")
_BOUNDARY = re.compile(r"b([1-9]\d{0,2})_(k\d+e\d+)\|b([1-9]\d{0,2})_(k\d+e\d+)")
_SUBNET = re.compile(r"b([1-9]\d{0,2})_([ke\d-]+)_w([1-9]\d?)")
_TEACHER_BLOCK = re.compile(r"b([1-9]\d{0,2})_([ke\d-]+)")
MOBILENETV2 = Choice(3, 6)
"""The layer that a teacher has where its space does not say otherwise."""


@dataclass(frozen=True, order=True)
class Subnet:
    """One block (numbered from 1) with its layers' choices and its weight bits: `b3_k3e6-k5e3_w4`."""

    block: int
    choices: tuple[Choice, ...]
    bits: int

    def __str__(self) -> str:
        return f"b{self.block}_{'-'.join(map(str, self.choices))}_w{self.bits}"

    @classmethod
    def parse(cls, text: str) -> Subnet:
        """The inverse of `str`; `ConfigError` for anything that `str` does not print."""
        match = _SUBNET.fullmatch(text)
        choices = _choices(match[2]) if match else ()
        if match is None or not choices:
            raise ConfigError(f"'{text}' is no subnet; one reads like b3_k3e6-k5e3_w8")
        return cls(int(match[1]), choices, int(match[3]))


def _choices(text: str) -> tuple[Choice, ...]:
    """Of `k3e6-k5e3`; none for anything that is not a list of choices."""
    matches = [_CHOICE.fullmatch(part) for part in text.split("-")]
    return tuple(Choice(int(m[1]), int(m[2])) for m in matches if m) if all(matches) else ()


@dataclass(frozen=True, order=True)
class Boundary:
    """Where block number `block` ends: its last layer's choice and the next block's first: `b1_k3e6|b2_k5e3`."""

    block: int
    last: Choice
    first: Choice

    def __str__(self) -> str:
        return f"b{self.block}_{self.last}|b{self.block + 1}_{self.first}"

    @classmethod
    def parse(cls, text: str) -> Boundary:
        """The inverse of `str`; `ConfigError` for anything that `str` does not print."""
        match = _BOUNDARY.fullmatch(text)
        choices = _choices(f"{match[2]}-{match[4]}") if match else ()
        if match is None or not choices or int(match[3]) != int(match[1]) + 1:
            raise ConfigError(f"'{text}' is no boundary of two blocks; one reads like b1_k3e6|b2_k5e3")
        return cls(int(match[1]), *choices)

    @classmethod
    def between(cls, before: Subnet, after: Subnet) -> Boundary:
        return cls(before.block, before.choices[-1], after.choices[0])


@dataclass(frozen=True)
class Architecture:
    """One subnet per block, in order, written joined with `+`."""

    subnets: tuple[Subnet, ...]

    def __post_init__(self) -> None:
        if [subnet.block for subnet in self.subnets] != list(range(1, len(self.subnets) + 1)):
            raise ConfigError(f"'{self}': the blocks of an architecture are b1, b2, ... in order")

    def __str__(self) -> str:
        return "+".join(map(str, self.subnets))

    @classmethod
    def parse(cls, text: str) -> Architecture:
        return cls(tuple(Subnet.parse(part) for part in text.split("+")))


@dataclass(frozen=True)
class Block:
    """A stage of the encoder.

    Attributes:
        stride: of its first layer.
        channels: of its output.
        layers: the student's depth.
        teacher_layers: the teacher's, whose layers are then MobileNetV2's (k3e6); None where the space names it.
        dilation: of depthwise convolutions, in the layers that the space's `dilate` says.
    """

    stride: Literal[1, 2]
    channels: int
    layers: int
    teacher_layers: int | None = None
    dilation: int = 1
    __pydantic_config__ = STRICT


SPACES_FOLDER = Path(__file__).parent / "spaces"
"""The spaces that ship, a TOML file each."""


@dataclass(frozen=True)
class SearchSpace:
    """Blocks, the choices of every layer, and the weight bit widths of every block.

    Attributes:
        name: for people; the space is known by its content.
        stem_channels: of the first convolution, which has stride 2.
        first_channels: of the layer after it, which enters the first block.
        blocks: in order; each is replaced as a whole.
        kernels: of a layer's depthwise convolution.
        expansions: of a layer: hidden channels over its input's.
        bits: of a block's weights.
        dilate: which layers of a dilated block carry its dilation: the first only (as MMSegmentation's M-V2-D8) or all.
        teacher: the teacher's architecture where it is not MobileNetV2's, written as `b1_k3e6-k5e4+b2_k3e3`: blocks of
            this space, of layers that need not be among its choices.
    """

    name: str
    stem_channels: int
    first_channels: int
    blocks: tuple[Block, ...]
    kernels: tuple[Literal[1, 3, 5, 7], ...] = (3, 5, 7)
    expansions: tuple[int, ...] = (3, 6)
    bits: tuple[Literal[4, 5, 6, 7, 8], ...] = (8,)
    dilate: Literal["first", "all"] = "first"
    teacher: str = ""
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not (self.blocks and self.kernels and self.expansions and self.bits):
            raise ConfigError(f"space '{self.name}': blocks, kernels, expansions and bits must not be empty")
        numbers = [self.stem_channels, self.first_channels, *self.expansions]
        numbers += [n for b in self.blocks for n in (b.channels, b.layers, b.dilation)]
        numbers += [b.teacher_layers for b in self.blocks if b.teacher_layers is not None]
        if min(numbers) < 1:
            raise ConfigError(f"space '{self.name}': channels, layers, dilations, expansions must be positive")
        _ = self.teacher_layers  # refuses a teacher that is none of this space's

    @classmethod
    def load(cls, path: Path) -> SearchSpace:
        return build(cls, read_toml(path), str(path))

    @property
    def choices(self) -> tuple[Choice, ...]:
        return tuple(Choice(k, e) for k in self.kernels for e in self.expansions)

    @property
    def output_stride(self) -> int:
        stride = 2
        for block in self.blocks:
            stride *= block.stride
        return stride

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change whenever the space does, except for its name."""
        record = {**asdict(self), "name": None}
        if not self.teacher:
            del record["teacher"]  # the digest of before it could be named
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def teacher_layers(self) -> tuple[tuple[Choice, ...], ...]:
        """The teacher's layers, block by block.

        Raises `ConfigError` for a teacher of another family: blocks that are not this space's, or kernels that have no
        middle.
        """
        depths = [block.teacher_layers for block in self.blocks]
        if not self.teacher:
            missing = [i for i, depth in enumerate(depths, start=1) if depth is None]
            if missing:
                raise ConfigError(
                    f"space '{self.name}': which teacher? give b{missing[0]} teacher_layers, or the space a teacher"
                )
            return tuple((MOBILENETV2,) * (depth or 0) for depth in depths)
        where = f"space '{self.name}', teacher '{self.teacher}'"
        parts = [_TEACHER_BLOCK.fullmatch(part) for part in self.teacher.split("+")]
        named = [(int(m[1]), _choices(m[2])) for m in parts if m]
        if not all(parts) or not all(layers for _, layers in named):
            raise ConfigError(
                f"{where}: written as b1_k3e6-k3e6+b2_k5e3, a block's layers joined with -, blocks with +"
            )
        if [number for number, _ in named] != list(range(1, len(self.blocks) + 1)):
            raise ConfigError(
                f"{where}: the space has blocks b1 to b{len(self.blocks)}; name the layers of each, in order"
            )
        for (number, layers), depth in zip(named, depths, strict=True):
            if depth not in (None, len(layers)):
                raise ConfigError(
                    f"{where}: b{number} has {len(layers)} layers, its teacher_layers are {depth}; drop one"
                )
            if even := [choice for choice in layers if choice.kernel % 2 == 0]:
                raise ConfigError(f"{where}: {even[0]} has an even kernel; this family's are odd")
        return tuple(layers for _, layers in named)

    def input_channels(self, block: int) -> int:
        """Channels that enter block number `block` (from 1)."""
        return self.first_channels if block == 1 else self.blocks[block - 2].channels

    def layer_geometry(self, block: int, layer: int) -> tuple[int, int, int, int]:
        """(input channels, output channels, stride, dilation) of layer `layer` (from 0) of `block`."""
        spec = self.blocks[block - 1]
        first = layer == 0
        dilation = spec.dilation if first or self.dilate == "all" else 1
        return (
            self.input_channels(block) if first else spec.channels,
            spec.channels,
            spec.stride if first else 1,
            dilation,
        )

    def subnets(self, block: int, bits: int | None = None) -> Iterator[Subnet]:
        """Every subnet of `block`, in lexical order of the choices, for one or every bit width."""
        for width in self.bits if bits is None else (bits,):
            for choices in itertools.product(self.choices, repeat=self.blocks[block - 1].layers):
                yield Subnet(block, choices, width)

    def all_subnets(self) -> Iterator[Subnet]:
        for block in range(1, len(self.blocks) + 1):
            yield from self.subnets(block)

    def count(self) -> int:
        """How many subnets there are, over blocks and bit widths."""
        paths: int = sum(len(self.choices) ** block.layers for block in self.blocks)
        return len(self.bits) * paths

    def sample(self, rng: random.Random) -> Architecture:
        """One architecture, uniform over choices and bit widths."""
        return Architecture(
            tuple(
                Subnet(i, tuple(rng.choice(self.choices) for _ in range(block.layers)), rng.choice(self.bits))
                for i, block in enumerate(self.blocks, start=1)
            )
        )

    def contains(self, architecture: Architecture) -> bool:
        """Whether every subnet belongs to this space."""
        try:
            self.check(architecture)
        except ConfigError:
            return False
        return True

    def check(self, architecture: Architecture) -> None:
        """`ConfigError` unless every subnet belongs to this space."""
        if len(architecture.subnets) != len(self.blocks):
            raise ConfigError(
                f"{architecture} has {len(architecture.subnets)} blocks, space '{self.name}' has {len(self.blocks)}"
            )
        for subnet, block in zip(architecture.subnets, self.blocks, strict=True):
            if len(subnet.choices) != block.layers or not set(subnet.choices) <= set(self.choices):
                raise ConfigError(f"{subnet} is not in space '{self.name}': see its layers and choices")
            if subnet.bits not in self.bits:
                raise ConfigError(f"{subnet}: space '{self.name}' has the weight bits {self.bits}")
