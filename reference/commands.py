"""commands.md: every command with its options, from the parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from deploy.cli.help import EXIT_CODES, TopParser, sentence
from reference.markdown import code, plain, table

INTRODUCTION = """# Commands

Generated from the parsers: what `hilnas COMMAND --help` prints. """


def page(top: TopParser) -> str:
    lines = [INTRODUCTION + plain(EXIT_CODES) + ".", ""]
    for group in top.groups:
        lines += [f"## {group.heading}", ""]
        for name, _ in group.texts:
            lines += _section(top.commands.choices[name])
    return "\n".join(lines)


def _section(parser: argparse.ArgumentParser, text: str = "") -> list[str]:
    """A command, then its actions; `text` where the parser itself has no description."""
    lines = [f"### {parser.prog}", "", plain(parser.description or sentence(text)), ""]
    rows = [(code(_written(action)), plain(explained(parser, action))) for action in _options(parser)]
    if rows:
        lines += table(("option", "meaning"), rows)
    if parser.epilog:
        lines += [plain(parser.epilog), ""]
    for action in subcommands(parser):
        helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for name, child in action.choices.items():
            lines += _section(child, helps.get(name, ""))
    return lines


def subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse._SubParsersAction[argparse.ArgumentParser]]:
    """argparse has no public way to ask a parser for its actions."""
    return (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    hidden = (argparse._HelpAction, argparse._SubParsersAction)
    return (
        action for action in parser._actions if not isinstance(action, hidden) and action.help is not argparse.SUPPRESS
    )


def _written(action: argparse.Action) -> str:
    """As a command line has it: `--size-limit SHARE`, `MODEL...`."""
    metavar = action.metavar or (",".join(map(str, action.choices)) if action.choices else action.dest)
    value = " ".join(metavar) if isinstance(metavar, tuple) else metavar
    value += "..." if action.nargs in ("*", "+") else ""
    if not action.option_strings:
        return f"[{value}]" if action.nargs in ("?", "*") else value
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {value}")


def explained(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """The help text with its default filled in."""
    return parser._get_formatter()._expand_help(action) if action.help else ""
