"""`hilnas --help`, `--version`, and commands that there are not."""

from __future__ import annotations

import argparse
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version

import pytest

from deploy.cli import main, parser
from tests.deploy.cli.failing import USAGE
from tests.deploy.tiny_experiment import HILNAS


def helps(of: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from helps(sub, (*words, name))


@pytest.mark.parametrize("words", list(helps(parser())), ids=lambda words: " ".join(words) or "hilnas")
def test_every_help_works(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"usage: {' '.join(('hilnas', *words))} ") and said.err == ""


def test_the_commands_fit_a_screen(capsys):
    """80 columns, 40 lines with the prompt; each command under a heading."""
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 40 and max(map(len, lines)) <= 80, lines
    headings = [line for line in lines if re.fullmatch(r"[A-Z][a-z ]+:", line)]
    assert headings == ["Run the loop:", "Ask:", "Your models:", "Boards:", "Results:"]
    names = [match[1] for line in lines if (match := re.match(r"  ((?:\S+, )*\S+)  ", line))]
    listed = [name for line in names for name in line.split(", ")]
    assert listed == [words[0] for words in helps(parser()) if len(words) == 1]


def test_the_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"hilnas {version('hilnas')}\n"


@pytest.mark.parametrize("words", [words for words in helps(parser()) if words], ids=" ".join)
def test_every_option_is_explained(words):
    """In words of the field: no option without a help text, and none of the words that the glossary drops."""
    parsed = parser()
    for word in words:
        parsed = next(a for a in parsed._actions if isinstance(a, argparse._SubParsersAction)).choices[word]
    silent = [a.dest for a in parsed._actions if not a.help and a.option_strings]
    assert not silent
    assert parsed.description or len(words) > 1
    text = parsed.format_help()
    assert not re.findall(r"\b(told|regressed|mend|a scale a|whole models?|found models?)\b", text)


def cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_answers_at_once():
    """In seconds of a core: a busy machine may let it wait."""
    seconds = []
    for _ in range(6):
        before = cpu_seconds_of_children()
        subprocess.run([HILNAS, "--help"], check=True, capture_output=True)
        seconds.append(cpu_seconds_of_children() - before)
    assert 0 < statistics.median(seconds[1:]) < 0.3, seconds


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom deploy.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "deploy.cli.lut" in ended.stderr.split()
    heavy = {"torch", "numpy", "pandas", "pyarrow", "scipy", "paramiko", "sqlalchemy", "pydantic", "rich", "plotly"}
    assert not heavy & set(ended.stderr.split())


@pytest.mark.parametrize("command", [[], ["lopo"], ["loop", "--no-such-option"], ["lut", "speed"]])
def test_a_command_that_there_is_not(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == USAGE
    assert "hilnas" in capsys.readouterr().err.splitlines()[-1]
