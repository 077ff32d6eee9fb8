"""How each kind of result is shown: one file a kind, which the folder itself registers.

A view has four functions of a document, which hold what Markdown and HTML both show:

    headline(document) -> str                    one sentence worth quoting; empty without results
    highlights(document) -> list[Highlight]      the few numbers that a page shows large
    tables(document) -> list[Table]
    figures(document) -> list[Figure]            of drawings that say something with what there is
"""

import importlib
import pkgutil
from typing import Any, Protocol, cast

from vlrt.errors import OptionError

from ..wording import Figure, Highlight, Table


class View(Protocol):
    """A module of this folder."""

    def headline(self, document: dict[str, Any]) -> str:
        """One sentence worth quoting."""

    def highlights(self, document: dict[str, Any]) -> list[Highlight]:
        """The numbers to show large."""

    def tables(self, document: dict[str, Any]) -> list[Table]:
        """All numbers."""

    def figures(self, document: dict[str, Any]) -> list[Figure]:
        """The drawings."""


def kinds() -> list[str]:
    """The kinds of result that can be shown."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def view_of(kind: str) -> View:
    """The view of a kind of result.

    Raises:
        OptionError: there is none.
    """
    if kind not in kinds():
        raise OptionError(f"a result of unknown kind {kind!r}; valid: {', '.join(kinds())}")
    return cast("View", importlib.import_module(f"{__name__}.{kind}"))
