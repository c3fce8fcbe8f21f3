"""Statements with stand-ins for names of datasets, runs and days, and what they are parsed to.

A text is split and parsed once for all that differ from it in such names alone. A stand-in is as
long as what it stands for, so that places in error messages are right. Of a statement whose query
nobody looks at before it is translated, the emulator gets an outline, without that query.
For local-bigquery 0.3.2.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from local_bigquery.errors import BigQueryError
from local_bigquery.sql.script import Statement
from sqlglot import exp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandbox.fast.shared import SharedValues

type Parse = Callable[[str], list[exp.Expression]]
type Split = Callable[[str], list[Statement]]

_MOST: Final = 1000
_MOST_NAMES: Final = 100  # of each kind in a statement
# Each begins with what a search goes through a text for quickly, and looks behind afterwards.
_DATASET: Final = re.compile(r"`[\w-]+`?\.`?(\w{7,})`?\.`?[^`*.]+`")
_RUN: Final = re.compile(r"(\d{8}T\d{6}_[0-9a-f]{8})(?<![^\W_].{24})(?![^\W_])")
_DATE: Final = re.compile(r"DATE '(?<=\bDATE ')(\d{4}-\d\d-\d\d)'")
_TIME: Final = re.compile(r"TIMESTAMP '(?<=\bTIMESTAMP ')(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00)'")
_STAND_INS: Final = (
    (_DATASET, "zzd{:02}zz"),
    (_RUN, "99991231T235959_000000{:02}"),
    (_DATE, "97{:02}-12-31"),
    (_TIME, "98{:02}-12-31 23:59:59+00"),
)
_STAND_IN: Final = re.compile(
    r"zzd\d\dz+|zzt\d\dzz|99991231T235959_000000\d\d|97\d\d-12-31|98\d\d-12-31 23:59:59\+00"
)
_LOOKS_LIKE_ONE: Final = re.compile(r"zz[dt]\d|99991231|9[78]\d\d-12")
_OF_TABLES: Final = ("db", "this")


class NoStandInsError(Exception):
    """The text can't have stand-ins."""


@dataclass(frozen=True, slots=True)
class Text:
    """The text with stand-ins that a tree was parsed from; copies of the tree carry it, too."""

    text: str
    names: Mapping[str, str]
    """What each stand-in stands for."""

    tree: exp.Expression
    is_outline: bool
    """Whether the tree lacks its query."""

    def __deepcopy__(self, _: object) -> Text:
        return self


class Trees:
    """What texts are parsed to: the rules that rewrite a tree get a copy, other code an outline."""

    def __init__(self, parse: Parse, split: Split, shared: SharedValues) -> None:
        self._parse = parse
        self._split = split
        self._shared = shared
        self._kept: OrderedDict[str, exp.Expression] = OrderedDict()
        self._outlines: OrderedDict[str, list[exp.Expression | None]] = OrderedDict()
        self._scripts: OrderedDict[str, list[Statement]] = OrderedDict()

    def split(self, script: str) -> list[Statement]:
        """What `split` returns."""
        try:
            with_stand_ins, names = put_stand_ins(script)
            key = ("script", with_stand_ins)
            kept = self._scripts.get(with_stand_ins) or self._shared.get(key)
            if not kept:
                kept = self._split(with_stand_ins)
                self._shared.put(key, kept)
            _keep(self._scripts, with_stand_ins, kept)
        except (NoStandInsError, BigQueryError):
            return self._split(script)
        if any(each != Statement(each.kind, each.text, names=each.names) for each in kept):
            return self._split(script)  # it has blocks
        return [
            Statement(
                each.kind, real(each.text, names), names=[real(name, names) for name in each.names]
            )
            for each in kept
        ]

    def parse(self, text: str) -> list[exp.Expression]:
        """What `parse` returns. A single statement has its Text in its meta."""
        try:
            with_stand_ins, names = put_stand_ins(text)
            outline = self._outline(with_stand_ins)
            tree = (outline or self.kept(with_stand_ins)).copy()
        except (NoStandInsError, BigQueryError):
            return self._parse(text)
        _put_names(tree, names)
        tree.meta["text"] = Text(with_stand_ins, names, tree, is_outline=outline is not None)
        return [tree]

    def kept(self, text: str) -> exp.Expression:
        """What a text with stand-ins is parsed to, if it is one statement; not to be changed."""
        kept = self._kept.get(text)
        if kept is None:
            trees = self._parse(text)
            if len(trees) != 1:
                raise NoStandInsError
            kept = trees[0]
            _keep(self._kept, text, kept)
        return kept

    def _outline(self, text: str) -> exp.Expression | None:
        found = self._outlines.get(text) or self._shared.get(("outline", text))
        if not found:
            found = [_outline(self.kept(text))]
            self._shared.put(("outline", text), found)
        _keep(self._outlines, text, found)
        return found[0]

    def whole(self, tree: exp.Expression) -> exp.Expression:
        """A tree that `parse` returned, with the query that its outline lacks."""
        text = tree.meta.get("text")
        if not (isinstance(text, Text) and text.tree is tree and text.is_outline):
            return tree
        whole = self.kept(text.text).copy()
        _put_names(whole, text.names)
        return whole


def _keep[T](cache: OrderedDict[str, T], text: str, value: T) -> None:
    cache[text] = value
    if len(cache) > _MOST:
        cache.popitem(last=False)


@lru_cache(maxsize=100)  # a script is often one statement
def put_stand_ins(text: str) -> tuple[str, Mapping[str, str]]:
    """The text with stand-ins, and what each stands for."""
    if _LOOKS_LIKE_ONE.search(text):
        raise NoStandInsError
    names: dict[str, str] = {}
    for pattern, form in _STAND_INS:
        stand_ins: dict[str, str] = {}

        def stand_in(match: re.Match[str], form: str = form, to: dict[str, str] = stand_ins) -> str:
            value, start = match[1], match.start()
            if value not in to:
                to[value] = form.format(len(to)).ljust(len(value), "z")
            before, after = match[0][: match.start(1) - start], match[0][match.end(1) - start :]
            return f"{before}{to[value]}{after}"

        text = pattern.sub(stand_in, text)
        if len(stand_ins) > _MOST_NAMES:
            raise NoStandInsError
        names |= {name: value for value, name in stand_ins.items()}
    return text, names


def real(text: str, names: Mapping[str, str]) -> str:
    """The text with the names that stand-ins stand for."""
    return _STAND_IN.sub(lambda match: names.get(match[0], match[0]), text)


def has_more(text: str) -> bool:
    """Whether something that looks like a stand-in, and is none, is in a text."""
    return bool(_LOOKS_LIKE_ONE.search(_STAND_IN.sub("", text)))


def check_places(tree: exp.Expression) -> None:
    """Refuse stand-ins for names of anything but tables and datasets."""
    for identifier in tree.find_all(exp.Identifier):
        is_of_table = isinstance(identifier.parent, exp.Table) and identifier.arg_key in _OF_TABLES
        if not is_of_table and _STAND_IN.search(identifier.name):
            raise NoStandInsError


def _outline(tree: exp.Expression) -> exp.Expression | None:
    """A copy with nothing in the place of its query; None where the emulator looks into that."""
    if isinstance(tree, exp.Query):
        return exp.Select()
    is_table = isinstance(tree, exp.Create) and tree.args["kind"] == "TABLE"
    has_no_columns = is_table and isinstance(tree.this, exp.Table)
    if not (has_no_columns or isinstance(tree, exp.Insert)):
        return None
    if not isinstance(tree.expression, exp.Query):
        return None
    outline = type(tree)(
        **{key: _copied(value) for key, value in tree.args.items() if key != "expression"}
    )
    outline.set("expression", exp.Select())
    return outline


def _copied(value: object) -> object:
    if isinstance(value, list):
        return [_copied(each) for each in value]
    return value.copy() if isinstance(value, exp.Expression) else value


def _put_names(tree: exp.Expression, names: Mapping[str, str]) -> None:
    for node in tree.walk():
        for key, value in node.args.items():
            if isinstance(value, str) and _STAND_IN.search(value):
                node.set(key, real(value, names))
        if node.comments:
            node.comments = [real(comment, names) for comment in node.comments]
