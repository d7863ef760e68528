"""Both starts on a finished run: the teacher's is nearer before a step, and the table says so for every block."""

from __future__ import annotations

from deploy.cli import main
from tests.deploy.tiny_experiment import REPOSITORY, finished_run


def test_the_table_has_both_starts_before_and_after(tmp_path, tmp_path_factory, capsys):
    finished = finished_run(tmp_path_factory)
    folder = finished.copy(tmp_path / "runs")
    options = ["--config", str(finished.config), "--boards", str(REPOSITORY / "boards.toml")]
    command = ["study", "start", "--run", str(folder), *options, "--paths", "2"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["random", "0"], ["random", "30"], ["teacher", "0"], ["teacher", "30"]]
    values = {(row[0], row[1]): [float(cell) for cell in row[2:]] for row in rows}
    assert all(len(row) == 2 for row in values.values())
    assert all(a < b for a, b in zip(values["teacher", "0"], values["random", "0"], strict=True))
    assert main(command) == 0, "the trainings are there"
    assert capsys.readouterr().out == printed
    assert main([*command[:-1], "0"]) == 2
