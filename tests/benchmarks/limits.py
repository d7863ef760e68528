"""Read a pytest-benchmark file and say which figures of merit hold; exit 1 where one does not."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(path: Path) -> int:
    """Every benchmark carries figure, unit, limit and holds in its extra_info."""
    benchmarks = json.loads(path.read_text(encoding="utf8"))["benchmarks"]
    broken = 0
    for benchmark in benchmarks:
        info = benchmark["extra_info"]
        ratio = f", ratio {info['ratio']:.1f}" if "ratio" in info else ""
        state = "holds" if info["holds"] else "BROKEN"
        broken += not info["holds"]
        name = benchmark["name"].removeprefix("test_")
        print(f"{state:7} {name}: {info['figure']:.4g} {info['unit']} (limit {info['limit']:g}){ratio}")
    print(f"{path}: {len(benchmarks)} benchmarks, {broken} broken")
    return 1 if broken or not benchmarks else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
