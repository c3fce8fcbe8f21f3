"""The metric table of a deployment: what every project has, and what its file declares.

Reads the file with line numbers; `sessions/metric_declarations.py` decides what it may hold. As a
command (`make check-config`) it says whether a file can be used.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from runs.errors import SettingsError
from sessions.metric_declarations import Node, Problem, declared_table
from sessions.metrics import POSTHOG_METRICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sessions.metric_types import MetricTable

SHIPPED_FILE: Final = Path(__file__).parent / "metrics.yaml"
_MOST_BYTES: Final = 1_000_000


@cache
def metric_table(path: Path | None = None) -> MetricTable:
    """The table that the file declares, the shipped file where none is named. Read once.

    Raises SettingsError with everything that is wrong with the file.
    """
    path = path or SHIPPED_FILE
    found = declared_table(POSTHOG_METRICS, _tree(path))
    if isinstance(found, list):
        raise SettingsError(_listed(path, found))
    return found


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0, or that of SettingsError after everything that is wrong with the file."""
    path = Path(arguments[0]) if arguments else SHIPPED_FILE
    try:
        count = len(metric_table(path).declared)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{path} declares {count} metrics and can be used.\n")
    return 0


def _listed(path: Path, problems: Iterable[Problem]) -> str:
    return "\n".join(f"{path}:{each.line}:{each.column}: {each.message}" for each in problems)


def _tree(path: Path) -> Node:
    """The file's content with places."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"The file {path} of METRICS_FILE can't be read ({error}): name one that can."
        raise SettingsError(message) from error
    if len(text) > _MOST_BYTES:
        message = f"The file {path} has over {_MOST_BYTES} characters: name a file of metrics."
        raise SettingsError(message)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            return _node(root, ())
    except yaml.MarkedYAMLError as error:
        raise SettingsError(_listed(path, [_syntax_problem(error)])) from error
    except yaml.YAMLError as error:
        message = f"The file {path} is not YAML ({error}): correct it."
        raise SettingsError(message) from error
    return Node(line=1, column=1)


def _syntax_problem(error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return Problem(line=line, column=column, message=f"This is not YAML: {error.problem}.")


def _node(node: yaml.Node, parents: tuple[yaml.Node, ...]) -> Node:
    """A node of YAML as ours. An alias that contains itself is refused."""
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    if any(node is parent for parent in parents):
        raise yaml.MarkedYAMLError(problem="an alias contains itself", problem_mark=node.start_mark)
    inside = (*parents, node)
    if isinstance(node, yaml.MappingNode):
        pairs = tuple((_node(key, inside), _node(value, inside)) for key, value in node.value)
        return Node(line=line, column=column, pairs=pairs)
    if isinstance(node, yaml.SequenceNode):
        items = tuple(_node(each, inside) for each in node.value)
        return Node(line=line, column=column, items=items)
    return Node(line=line, column=column, value=_scalar(node))


def _scalar(node: yaml.Node) -> str | float | bool | None:
    """A scalar as YAML reads it: a text, a number, a boolean or null."""
    kind = str(node.tag).rpartition(":")[2]
    text = str(node.value)
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() in {"yes", "true", "on"}
        case "int" | "float":
            try:
                return float(text) if kind == "float" else int(text)
            except ValueError:
                return text
        case _:
            return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
