from __future__ import annotations

from typing import Any

import pytest

from hil.measurement import Readings
from hil.trust import ADVICE, FLAGS, Timer, flags

WELL: dict[str, Any] = {
    "steady": True, "before": Readings(50.0, 1000), "after": Readings(50.0, 1000), "others_busy": 0.1, "checked": True,
}  # fmt: skip
EVEN = (1000.0,) * 9
FINE = Timer(10, 50)


@pytest.mark.parametrize(
    ("latencies_us", "changes", "wanted"),
    [
        (EVEN, {}, ()),
        (EVEN, {"steady": False}, ("unsteady",)),
        (EVEN, {"after": Readings(50.0, 949)}, ("throttled",)),
        (EVEN, {"others_busy": 0.101}, ("neighbours",)),
        (EVEN, {"oversubscribed": True, "checked": False}, ("oversubscribed", "unchecked")),
        ((1000.0,) * 6 + (1051.0,) * 3, {}, ("drift",)),
        ((1000.0,) * 6 + (1050.0,) * 3, {}, ()),
        ((11.0,) * 6 + (11.6,) * 3, {"timer": FINE}, ("drift",)),
        ((11.0,) * 6 + (11.5,) * 3, {"timer": FINE}, ()),
        ((110.0,) * 6 + (116.0,) * 3, {"timer": Timer(1, 7000)}, ("coarse",)),  # within a step of the clock
        ((11.0,) * 9, {"timer": FINE}, ()),
        ((11.0,) * 9, {}, ("coarse",)),  # in whole microseconds
        ((99.0,) * 9, {}, ("coarse",)),
        ((100.0,) * 9, {}, ()),
        ((0.0,) * 9, {}, ("coarse",)),
    ],
)
def test_each_flag_from_its_cause(latencies_us: tuple[float, ...], changes: Any, wanted: tuple[str, ...]) -> None:
    assert flags(latencies_us, **{**WELL, **changes}) == wanted


def test_every_flag_is_explained() -> None:
    assert set(ADVICE) <= set(FLAGS)
    assert Timer(10, 500).resolution_us == 0.05 and not Timer().too_coarse(())
