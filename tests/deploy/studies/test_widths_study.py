"""Final networks at one width: those of the run, quantized there, with and without the finish as integers."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.cli import main
from deploy.studies.widths import WidthsRecord
from tests.deploy.tiny_experiment import arguments, finished_run


def test_every_model_at_every_width(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = finished_run(tmp_path_factory)
    folder = finished.copy(tmp_path / "runs")
    config = tmp_path / "tiny.toml"
    config.write_text(finished.config.read_text() + "quantization_aware_steps = 2\n")
    (tmp_path / "space.toml").write_text((finished.config.parent / "space.toml").read_text())

    def table(path: Path) -> WidthsRecord:
        command = ["study", "widths", *arguments(path, tmp_path / "runs"), "--models", "teacher_plus,fast"]
        assert main([*command, "--bits", "8,4"]) == 0, capsys.readouterr().err
        return WidthsRecord.read(folder / WidthsRecord.FILE)

    plain, finish = table(finished.config), table(config)
    for record, steps in ((plain, 0), (finish, 2)):
        assert record.steps == steps
        assert [(m.name, m.bits) for m in record.models] == [(n, b) for n in ("teacher_plus", "fast") for b in (8, 4)]
        for wide, narrow in (record.models[:2], record.models[2:]):
            assert narrow.size_bits < wide.size_bits and len(wide.confusions) == 4
    assert all(a.confusions != b.confusions for a, b in zip(plain.models, finish.models, strict=True))
    assert sorted(path.name for path in (folder / "students").glob("*.finish.pt")) == [
        f"{name}-{bits}bits.finish.pt" for name in ("fast", "teacher_plus") for bits in (4, 8)
    ]
    before = (folder / WidthsRecord.FILE).read_bytes()
    assert table(config) == finish and (folder / WidthsRecord.FILE).read_bytes() == before
    capsys.readouterr()
    assert main(["study", "widths", *arguments(config, tmp_path / "none")]) == 2
    assert "final.json: no such file" in capsys.readouterr().err and not (tmp_path / "none").exists()
    for wrong, words in (("--models=slow", "no such model; there are teacher_plus, fast"), ("--bits=9", "2 to 8 bits")):
        assert main(["study", "widths", *arguments(config, tmp_path / "runs"), wrong]) == 2
        assert words in capsys.readouterr().err
