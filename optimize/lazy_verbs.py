"""Verbs of the command line that are imported when they are called; the list of them in the help imports none."""

import ast
import importlib
import importlib.util
from collections import UserDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand


class LazyVerbs(UserDict[str, Any]):
    """Commands by name, each imported where it is looked up; `panels` maps a package of verbs to its panel in the help.

    The package lists its verbs in `VERBS`: name to ``module:attribute``, a function or a `typer.Typer` of more verbs.
    """

    def __init__(self, panels: Mapping[str, str]) -> None:
        super().__init__()
        self._panels: dict[str, str] = {}
        for package, panel in panels.items():
            for name, target in importlib.import_module(package).VERBS.items():
                self.data[name], self._panels[name] = f"{package}.{target}", panel

    def __getitem__(self, name: str) -> Any:
        """Return the command, imported if it was not before."""
        found = self.data[name]
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            verb, room = getattr(importlib.import_module(module), attribute), typer.Typer()
            if isinstance(verb, typer.Typer):
                room.add_typer(verb, name=name)
            else:
                room.command(name)(verb)
            found = self.data[name] = typer.main.get_group(room).commands[name]
        return found

    def listed(self) -> dict[str, TyperCommand]:
        """Return commands that only have their name, first sentence and panel."""
        return {
            name: TyperCommand(name, help=_help(target), rich_help_panel=self._panels[name])
            if isinstance(target, str)
            else target
            for name, target in self.data.items()
        }


def _help(target: str) -> str:
    """Return the help of a verb from its source: a function's docstring, or what a `typer.Typer` is given."""
    module, _, attribute = target.partition(":")
    found = importlib.util.find_spec(module)
    for node in ast.parse(Path(found.origin).read_bytes()).body if found is not None and found.origin else ():
        if isinstance(node, ast.FunctionDef) and node.name == attribute:
            return ast.get_docstring(node) or ""
        if isinstance(node, ast.Assign) and [ast.unparse(each) for each in node.targets] == [attribute]:
            given = node.value.keywords if isinstance(node.value, ast.Call) else ()
            return next((ast.literal_eval(each.value) for each in given if each.arg == "help"), "")
    return ""
