"""CamVid's 32 official classes: their colours, and which of the eleven usual ones each is part of.

The grouping is SegNet's (Badrinarayanan et al., arXiv 1511.00561), as in MATLAB's CamVid example. Void is unlabelled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.data.labels import Color, Palette, label_table
from nas.data.names import printable
from nas.data.sample import IGNORE
from nas.data.text import read_lines
from nas.errors import DataError

UNLABELLED = 11
VOID = "void"
GROUPS: Mapping[str, tuple[str, ...]] = {
    "sky": ("Sky",),
    "building": ("Building", "Archway", "Bridge", "Tunnel", "Wall"),
    "pole": ("Pole", "Column_Pole", "TrafficCone"),
    "road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv", "Road_marking"),
    "pavement": ("Pavement", "Sidewalk", "ParkingBlock", "RoadShoulder"),
    "tree": ("Tree", "VegetationMisc"),
    "sign symbol": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "fence": ("Fence",),
    "car": ("Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"),
    "pedestrian": ("Pedestrian", "Child", "CartLuggagePram", "Animal"),
    "bicyclist": ("Bicyclist", "MotorcycleScooter"),
    VOID: ("Void", "Unlabelled", "Unlabeled"),
}
CLASSES = tuple(name for name in GROUPS if name != VOID)
OFFICIAL: Mapping[str, Color] = {
    "Animal": (64, 128, 64),
    "Archway": (192, 0, 128),
    "Bicyclist": (0, 128, 192),
    "Bridge": (0, 128, 64),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "CartLuggagePram": (64, 0, 192),
    "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128),
    "Fence": (64, 64, 128),
    "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64),
    "Misc_Text": (128, 128, 64),
    "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64),
    "ParkingBlock": (64, 192, 128),
    "Pedestrian": (64, 64, 0),
    "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192),
    "Sidewalk": (0, 0, 192),
    "SignSymbol": (192, 128, 128),
    "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192),
    "TrafficCone": (0, 0, 64),
    "TrafficLight": (0, 64, 64),
    "Train": (192, 64, 128),
    "Tree": (128, 128, 0),
    "Truck_Bus": (192, 128, 192),
    "Tunnel": (64, 0, 64),
    "VegetationMisc": (192, 192, 0),
    "Void": (0, 0, 0),
    "Wall": (64, 192, 0),
}

RED_GREEN_BLUE = r"(\d+)[\s,;]+(\d+)[\s,;]+(\d+)"
COLOR_FIRST = re.compile(rf"{RED_GREEN_BLUE}[\s,;]+(\S.*)")  # label_colors.txt
NAME_FIRST = re.compile(rf"(.*?\S)[\s,;]+{RED_GREEN_BLUE}")  # class_dict.csv


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.casefold())


_VALUES = {
    _plain(name): UNLABELLED if group == VOID else CLASSES.index(group)
    for group, names in GROUPS.items()
    for name in names
}


def official_palette(*, always: bool) -> Palette:
    """The colours of the original label files."""
    return Palette({color: _VALUES[_plain(name)] for name, color in OFFICIAL.items()}, "CamVid", always)


def read_palette(path: Path, *, always: bool) -> Palette:
    """Colours by a label_colors.txt ("64 128 64 Animal") or class_dict.csv ("Animal,64,128,64", under a heading).

    Raises:
        DataError: a line or a class is unknown.
    """
    values: dict[Color, int] = {}
    for number, line in enumerate(read_lines(path)):
        if match := COLOR_FIRST.fullmatch(line):
            *numbers, name = match.groups()
        elif match := NAME_FIRST.fullmatch(line):
            name, *numbers = match.groups()
        elif number == 0 or line.startswith("#"):
            continue  # a heading
        else:
            raise DataError(f"{path}: '{printable(line[:60])}': give each line as 'RED GREEN BLUE NAME'")
        red, green, blue = (min(int(text), 256) for text in numbers)
        if max(red, green, blue) > 255:
            raise DataError(f"{path}: '{printable(line[:60])}': red, green and blue are 0 to 255")
        values[red, green, blue] = _value(name, path)
    if not values:
        raise DataError(f"{path}: no colour in it; give lines 'RED GREEN BLUE NAME', or remove it for CamVid's own")
    return Palette(values, str(path), always)


def read_codes(path: Path) -> NDArray[np.int16]:
    """The `label_table` of files that store a line number of codes.txt (fast.ai's CamVid); raises as `read_palette`."""
    values = [_value(name, path) for name in read_lines(path)]
    if not 0 < len(values) <= IGNORE:
        raise DataError(f"{path}: {len(values)} lines; give the name of one class on each, 255 at most")
    classes = {i: IGNORE if value == UNLABELLED else value for i, value in enumerate(values)}
    return label_table({**classes, IGNORE: IGNORE})


def _value(name: str, path: Path) -> int:
    try:
        return _VALUES[_plain(name)]
    except KeyError:
        raise DataError(
            f"{path}: '{printable(name[:60])}' is none of CamVid's 32 classes; correct its name, or give"
            " Void for what is not labelled"
        ) from None
