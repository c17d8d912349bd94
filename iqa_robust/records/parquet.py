"""Tables as the bytes of a Parquet file: equal tables give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def to_parquet(table: pd.DataFrame, kinds: Mapping[str, str]) -> bytes:
    """A Parquet file of the columns that `kinds` names with their types, such as `int64` or `list<float64>`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = {f"list<{kind}>": pa.list_(pa.type_for_alias(kind)) for kind in ("int64", "float64")}
    schema = pa.schema([(name, lists.get(kind) or pa.type_for_alias(kind)) for name, kind in kinds.items()])
    made = pa.Table.from_pandas(table[list(kinds)], schema=schema, preserve_index=False)
    buffer = io.BytesIO()
    pq.write_table(made.replace_schema_metadata(None), buffer, compression="zstd")
    return buffer.getvalue()
