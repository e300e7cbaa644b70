"""Facts and rows as metadata of assets and runs, which the UI plots and shows as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from fairdraw.documents import as_json
from regworkers_core.operations import downloads

if TYPE_CHECKING:
    import pyarrow as pa

Metadata = dict[str, dg.MetadataValue]


def facts_as_metadata(facts: Mapping[str, Any]) -> Metadata:
    """Numbers as numbers, so that the UI plots them; mappings and lists as JSON; None is left out. A page that the web
    application serves also gets a link, under `open`.
    """
    metadata: Metadata = {}
    for name, value in facts.items():
        if isinstance(value, dg.MetadataValue):
            metadata[name] = value
        elif isinstance(value, bool):
            metadata[name] = dg.MetadataValue.bool(value)
        elif isinstance(value, int):
            metadata[name] = dg.MetadataValue.int(value)
        elif isinstance(value, float):
            metadata[name] = dg.MetadataValue.float(value)
        elif isinstance(value, Mapping | list | tuple):
            metadata[name] = dg.MetadataValue.json(as_json(value))
        elif value is not None:
            metadata[name] = dg.MetadataValue.text(str(value))
            if path := downloads.link_to(str(value)):
                metadata["open"] = dg.MetadataValue.url(path)
    return metadata


def of_table(rows: int | None, schema: pa.Schema | None = None, *, of_partition: bool = False) -> Metadata:
    """The rows of an asset, or of its partition, and their columns, under Dagster's own keys, which its catalog shows.
    What is None is left out.
    """
    shown: Metadata = {}
    if rows is not None:
        shown["dagster/partition_row_count" if of_partition else "dagster/row_count"] = dg.MetadataValue.int(
            rows
        )
    if schema is not None:
        columns = [dg.TableColumn(each.name, str(each.type)) for each in schema]
        shown["dagster/column_schema"] = dg.MetadataValue.table_schema(dg.TableSchema(columns))
    return shown


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> dg.MarkdownMetadataValue | None:
    """A table in Markdown; None without rows, which `facts_as_metadata` leaves out."""
    if not rows:
        return None
    lines = [columns, ["---"] * len(columns), *rows]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines))


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|")


def records(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Rows with the keys of the first one as a table of Dagster. Raises IndexError without rows."""
    columns = [
        dg.TableColumn(name, "int" if isinstance(value, int) else "string") for name, value in rows[0].items()
    ]
    return dg.MetadataValue.table(
        [dg.TableRecord({name: _plain(value) for name, value in row.items()}) for row in rows],
        dg.TableSchema(columns),
    )


def _plain(value: object) -> Any:
    """Dagster keeps no enumerations, which are texts, too."""
    return value if type(value) in (str, int, float, bool, type(None)) else str(value)
