"""Reports as plain text: tables without markup, links or colours, since their content is untrusted."""

from io import StringIO
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


class PlainPage(Console):
    """A console that records its output."""

    def __init__(self, width: int) -> None:
        """A page of `width` columns."""
        self._kept = StringIO()
        super().__init__(file=self._kept, width=width, color_system=None, markup=False, highlight=False, emoji=False)

    @property
    def text(self) -> str:
        """All that was printed, without spaces at the ends of lines."""
        return "\n".join(line.rstrip() for line in self._kept.getvalue().splitlines())


def plain_table(title: str, first: str, *columns: str, justify: Literal["left", "right"] = "left") -> Table:
    """A table with a title; all columns but the first are justified as asked."""
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(Text(first), overflow="fold")
    for name in columns:
        table.add_column(Text(name), justify=justify, overflow="fold")
    return table


def add_cells(table: Table, *cells: str) -> None:
    """Add a row of texts, shown as they are."""
    table.add_row(*(Text(cell) for cell in cells))
