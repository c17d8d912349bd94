"""Tables as the bytes of a Parquet file: equal tables give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def arrow_schema(kinds: Mapping[str, str]) -> Any:
    """The schema of columns by name and type, such as `int64` or `list<float64>`."""
    import pyarrow as pa

    lists = {f"list<{kind}>": pa.list_(pa.type_for_alias(kind)) for kind in ("int64", "float64")}
    return pa.schema([(name, lists.get(kind) or pa.type_for_alias(kind)) for name, kind in kinds.items()])


def to_parquet(table: pd.DataFrame, kinds: Mapping[str, str]) -> bytes:
    """A Parquet file of the columns that `kinds` names, with their types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(kinds)
    # Column by column: `Table.from_pandas` takes twice as long, for a description of the table that is not wanted.
    columns = [pa.array(table[field.name], field.type, from_pandas=True) for field in schema]
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()
