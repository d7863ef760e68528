"""records.md: the JSON files that runs, evaluations, quantized networks and bundles have, from the classes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from deploy.quantize.record import QuantizationRecord
from deploy.run.records import (
    AgreementRecord,
    DataRecord,
    FinalRecord,
    ProfileRecord,
    Record,
    RunState,
    SchemesRecord,
    SearchRecord,
    Summary,
)
from deploy.ship.evaluation_record import EvaluationRecord
from deploy.ship.layers import QuantizedLayers
from deploy.ship.manifest import BundleMeasurement, Manifest
from deploy.ship.provenance import Provenance
from hil.measurement import Measurement
from reference.docstrings import attributes, classes, summary
from reference.markdown import code, plain, table

FILES: tuple[type[Record], ...] = (
    RunState,
    DataRecord,
    ProfileRecord,
    AgreementRecord,
    SchemesRecord,
    SearchRecord,
    FinalRecord,
    Summary,
    QuantizationRecord,
    EvaluationRecord,
    Manifest,
    BundleMeasurement,
    QuantizedLayers,
    Provenance,
)
INTRODUCTION = """# Records

The JSON files of runs, evaluations, quantized networks and bundles, generated from the classes that read and write
them. Each file has its `schema_version` beside these fields; an unknown or missing field is refused. Units are in the
names.
"""
PARTS = """## Parts

What the files consist of. A [Measurement](#measurement) is a row of the store of results, an [Estimate](#estimate) the
one form of a number with doubt.
"""
HEADS = ("field", "value", "meaning")


def page() -> str:
    lines = [INTRODUCTION]
    for record in FILES:
        lines += [f"## {record.FILE}", "", f"{plain(summary(record))} Made by `hilnas {record.COMMAND}`.", ""]
        lines += _fields(record)
    lines.append(PARTS)
    for part in sorted(parts(*FILES, Measurement) - set(FILES), key=lambda cls: cls.__name__):
        lines += [f"### {part.__name__}", "", plain(summary(part)), "", *_fields(part)]
    return "\n".join(lines)


def parts(*wholes: type) -> set[type]:
    """The dataclasses themselves and those that stand in their fields, at any depth."""
    found: set[type] = set()
    waiting = list(wholes)
    while waiting:
        cls = waiting.pop()
        if cls not in found:
            found.add(cls)
            waiting += [part for hint in get_type_hints(cls).values() for part in classes(hint)]
    return found


def _fields(cls: type) -> list[str]:
    hints, meanings = get_type_hints(cls), attributes(cls)
    name_of = getattr(cls, "__pydantic_config__", {}).get("alias_generator", str)
    return table(
        HEADS, ((code(name_of(f.name)), written(hints[f.name]), plain(meanings.get(f.name, ""))) for f in fields(cls))
    )


def written(hint: Any) -> str:
    """What JSON holds for an annotation."""
    kept = [part for part in get_args(hint) if part not in (NoneType, Ellipsis)]
    origin = get_origin(hint)
    if hint in FILES:
        return f"[{hint.FILE}](#{hint.FILE.replace('.', '')})"
    if isinstance(hint, type) and is_dataclass(hint):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    if origin is Literal:
        return ", ".join(code(f'"{part}"') for part in kept)
    if origin in (Union, UnionType):
        return " or ".join(map(written, kept)) + (" or null" if NoneType in get_args(hint) else "")
    if origin is tuple:
        return f"list of {written(kept[0])}" if Ellipsis in get_args(hint) else f"[{', '.join(map(written, kept))}]"
    if origin is not None and issubclass(origin, Mapping):
        return f"object of {written(kept[-1])}"
    return {str: "text", int: "integer", float: "number", bool: "true or false"}.get(hint, "any")
