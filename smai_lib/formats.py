"""Values and tables as text: the formats of facts in the report."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from .core import paths

SPACE = "\u00a0"  # that does not break


class Mean(NamedTuple):
    """A mean over seeds, shown with its standard deviation: 94.67 ± 0.06 %."""

    mean: float
    sd: float

    def __format__(self, form: str) -> str:
        mean, sd = format(self.mean, form), format(self.sd, form)
        unit = "%" if mean.endswith("%") else ""
        return f"{mean.removesuffix('%')}{SPACE}±{SPACE}{sd.removesuffix('%')}{unit}"


def flat(prefix: str, values: pd.DataFrame | Mapping) -> dict[str, object]:
    """Return facts `prefix.row.column` of a table, or `prefix.key` of a mapping."""
    if isinstance(values, pd.DataFrame):
        values = values.T.to_dict()
    facts = {}
    for key, value in values.items():
        words = re.findall(r"\w+", str(key).lower())
        name = f"{prefix}.{'_'.join(words)}"
        facts |= flat(name, value) if isinstance(value, Mapping) else {name: value}
    return facts


def means(results: pd.DataFrame) -> pd.DataFrame:
    """Return the Mean over seeds of every metric, with the keys of each configuration."""
    groups = results.groupby("name", sort=False)
    table = groups.first().assign(seeds=groups.size())
    for key in results.filter(regex="^(val|test|best)_"):
        averages = groups[key].agg(["mean", "std"])
        table[key] = [Mean(*pair) for pair in averages.to_numpy()]
    return table


def show_value(value: object, form: str) -> str:
    """Return a fact as text: in Python's format, ".2points" for a difference of shares, "p" for p.

    A missing value is a dash. A space that does not break stands before a unit.
    """
    if value is None or value != value:  # NaN
        return "–"
    if form == "p":
        return f"<{SPACE}0.001" if value < 0.001 else f"{value:.3f}"
    if form.endswith("points"):
        return f"{100 * value:{form.removesuffix('points')}f}{SPACE}points"
    return re.sub(r"(?<=\d)%", f"{SPACE}%", format(value, form))


def table_fact(name: str, values: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the fact `name`: a table as text, with columns and formats as in `tables.csv`."""
    columns = pd.read_csv(paths.REPORT / "tables.csv", keep_default_na=False)
    values, text = values.reset_index(), pd.DataFrame()
    for _, column in columns[columns["table"] == name].iterrows():
        cells = values[column["column"]]
        text[column["heading"]] = [show_value(cell, column["format"]) for cell in cells]
    return {name: text}


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table of text as Markdown; columns of numbers are aligned to the right."""
    cells = table.astype(object).where(table.notna(), "–").astype(str)
    rules = []
    for column in table:
        # pandoc gives the columns of a wide table shares of the width, by the dashes in the rule
        longest = cells[column].str.replace(r"\]\([^)]*\)", "]", regex=True).str.len().max()
        dashes = "-" * (3 + max(len(column) // 2, min(55, longest)))
        numbers = cells[column].str.fullmatch(r"–|[-+≤≥<]?\s?\d[\d.,]*.{0,9}").all()
        rules.append(f"{dashes}:" if numbers else f":{dashes}")
    rows = [list(table.columns), rules, *cells.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
