"""The commands that a text of shell holds, for gcloud's own parser to judge."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

needs_gcloud = pytest.mark.skipif(
    shutil.which("gcloud") is None, reason="gcloud is not installed, so nothing can parse for it"
)

# `gcloud meta lint-gcloud-commands` by one parser for all commands; it would make one for each.
_LINTER = """
import sys
from googlecloudsdk import gcloud_main
cli = gcloud_main.CreateCLI([])
gcloud_main.CreateCLI = lambda _: cli
cli.Execute(["meta", "lint-gcloud-commands", f"--commands-file={sys.argv[1]}"])
"""


@functools.cache
def _installation() -> list[str]:
    """Where gcloud is, and its Python."""
    command = ["gcloud", "info", "--format=value(installation.sdk_root,basic.python_location)"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return ran.stdout.split()


def run_with_gcloud(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of Python that can import gcloud's own modules."""
    root, python = _installation()
    return subprocess.run(  # noqa: S603
        [python, "-S", "-c", script, *arguments],
        env=os.environ | {"PYTHONPATH": f"{root}/lib{os.pathsep}{root}/lib/third_party"},
        capture_output=True,
        text=True,
        check=False,
    )


def commands(text: str, program: str) -> list[list[str]]:
    """Every call of a program in a text of shell, within $(...) and conditions too, as words."""
    lexer = shlex.shlex(re.sub(r"\\\n\s*", " ", text), posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    found: list[list[str]] = []
    current: list[str] | None = None
    for word in lexer:
        if set(word) <= set("();<>|&\n"):
            current = None
        elif word == program and current is None:
            current = [word]
            found.append(current)
        elif current is not None:
            current.append(word)
        if " " in word:
            found += _nested(word, program)
    return found


def _nested(word: str, program: str) -> Iterator[list[str]]:
    for inner in re.findall(r"\$\((.*)\)", word, re.DOTALL):
        yield from commands(inner, program)


def _quoted(word: str) -> str:
    """A word for the linter, which takes a quote in front of a flag for the flag before's value."""
    name, equals, value = word.partition("=")
    if word.startswith("--") and equals:
        return f"{name}={shlex.quote(value)}"
    return shlex.quote(word)


def lint(calls: Iterable[list[str]], folder: Path) -> dict[str, str]:
    """What gcloud's parser says against some commands, by command; none where it accepts them."""
    texts = sorted({" ".join(map(_quoted, call)) for call in calls})
    file = folder / "commands.json"
    file.write_text(json.dumps([{"command_string": text} for text in texts]))
    ran = run_with_gcloud(_LINTER, str(file))
    assert ran.returncode == 0, ran.stderr
    answers: list[dict[str, Any]] = json.loads(ran.stdout)
    assert len(answers) == len(texts), ran.stderr
    return {
        answer["command_string"]: answer["error_message"]
        for answer in answers
        if not answer["success"]
    }
