"""Small files in the forms the benchmarks are published in, made on the spot."""

import io
import json

import pyarrow
import pyarrow.parquet
from PIL import Image


def png(colour="red", size=(40, 30)):
    encoded = io.BytesIO()
    Image.new("RGB", size, colour).save(encoded, "PNG")
    return encoded.getvalue()


def picture_file(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png())
    return path


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def hub_image(colour="red"):
    """A picture as the hub's parquet holds it."""
    return {"bytes": png(colour), "path": None}
