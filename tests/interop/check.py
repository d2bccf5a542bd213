"""Reads a bundle with all that a data team has, and holds the answers against each other.

usage: check.py BUNDLE
"""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TQDM_DISABLE", "1")

import datasets
import duckdb
import jsonschema
import mlcroissant
import pandas
import polars
import pyarrow.parquet
import yaml
from huggingface_hub import DatasetCard

datasets.disable_progress_bars()


def rows(records):
    """Records as a list of tuples by id."""
    return sorted(tuple(r[name] for name in COLUMNS) for r in records)


def metadata_of_duckdb(glob):
    pairs = duckdb.sql(
        f"SELECT file_name, decode(key) AS key, decode(value) AS value FROM parquet_kv_metadata('{glob}')"
    ).fetchall()
    files = {}
    for file, key, value in pairs:
        if key.startswith("dp."):
            files.setdefault(file, {})[key] = value
    return list(files.values())


def plain(value):
    return value if isinstance(value, str) else json.dumps(value)


bundle = Path(sys.argv[1]).resolve()
glob = str(bundle / "data" / "*.parquet")
shards = sorted((bundle / "data").glob("*.parquet"))
assert shards, "no shards"

# Rows.
COLUMNS = pyarrow.parquet.read_schema(shards[0]).names
assert COLUMNS[0] == "id", COLUMNS
expected = rows(pyarrow.parquet.read_table(bundle / "data").to_pylist())
assert len(expected) > 0 and len({r[0] for r in expected}) == len(expected), "ids are different"
readers = {
    "pandas": lambda: pandas.read_parquet(bundle / "data").to_dict("records"),
    "polars": lambda: polars.read_parquet(glob).to_dicts(),
    "duckdb": lambda: [dict(zip(COLUMNS, r)) for r in duckdb.sql(f"SELECT * FROM '{glob}'").fetchall()],
    "datasets": lambda: datasets.load_dataset(str(bundle), split="train").to_list(),
}
for name, read in readers.items():
    found = rows(read())
    assert found == expected, f"{name} reads other rows"
    print(f"{name}: {len(found)} equal rows")

# The guarantee, where each of them looks for it.
privacy = json.loads((bundle / "privacy.json").read_text())
parameters = privacy["guarantee"]["parameters"]
wanted = {f"dp.{key}": plain(value) for key, value in parameters.items()}
wanted["dp.run"] = privacy["run"]
wanted["dp.base_model"] = privacy["algorithm"]["base_model"]["name"]


def same(found, reader):
    assert found.keys() == wanted.keys(), f"{reader}: {found.keys() ^ wanted.keys()}"
    for key, value in wanted.items():
        number = parameters.get(key.removeprefix("dp."))
        equal = float(found[key]) == number if isinstance(number, float) else found[key] == value
        assert equal, f"{reader}: {key} is {found[key]}, not {value}"


def texts(metadata):
    return {k.decode(): v.decode() for k, v in metadata.items() if k.startswith(b"dp.")}


for shard in shards:
    same(texts(pyarrow.parquet.read_schema(shard).metadata), "pyarrow, schema")
    same(texts(pyarrow.parquet.ParquetFile(shard).metadata.metadata), "pyarrow, file")
    same({k: v for k, v in polars.read_parquet_metadata(shard).items() if k.startswith("dp.")}, "polars")
for found in metadata_of_duckdb(glob):
    same(found, "duckdb")
print(f"metadata: {len(wanted)} keys, seen alike by pyarrow, polars and duckdb")

# privacy.json against its schema.
schema = json.loads((bundle / "privacy.schema.json").read_text())
jsonschema.Draft202012Validator.check_schema(schema)
jsonschema.Draft202012Validator(schema).validate(privacy)
for key in ["epsilon", "delta", "adjacency", "unit", "sampler", "accountant"]:
    spoilt = json.loads(json.dumps(privacy))
    del spoilt["guarantee"]["parameters"][key]
    assert not jsonschema.Draft202012Validator(schema).is_valid(spoilt), f"the schema lets {key} be left out"
print("privacy.json: valid, and invalid without any of what epsilon needs (P10)")

# The card.
card = DatasetCard.load(bundle / "README.md", ignore_metadata_errors=False)
header = card.data.to_dict()
assert header["configs"] == [
    {"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}
], header
for key in ["license", "pretty_name", "size_categories", "task_categories", "tags"]:
    assert header.get(key), f"the card has no {key}"
assert privacy["guarantee"]["statement"] in card.text, "the card does not say the guarantee whole"
print(f"card: {header['pretty_name']!r}, license {header['license']}")

# The entry for the registry.
deployment = yaml.safe_load((bundle / "deployment.yaml").read_text())["deployment"]
stated = deployment["privacy_loss"]["privacy_parameters"]
assert stated == {"epsilon": parameters["epsilon"], "delta": parameters["delta"]}, stated
assert list(deployment) == [
    "basic",
    "dp_variant",
    "privacy_loss",
    "deployment_model",
    "implementation",
    "administrative",
], list(deployment)
for key in ["name", "data_curators", "description", "intended_use", "data_product_type", "data_product_region"]:
    assert deployment["basic"][key], key
assert all(isinstance(v, str) for k, v in deployment["basic"].items() if k != "data_curators"), deployment["basic"]
print("deployment.yaml: epsilon and delta as numbers, the registry's sections in order")

# Croissant: the file itself, and the records through it.
warned = []
handler = logging.Handler()
handler.emit = lambda record: warned.append(record.getMessage())
logging.getLogger("absl").addHandler(handler)
cli = Path(sys.executable).parent / "mlcroissant"
checked = subprocess.run(
    [cli, "validate", "--jsonld", bundle / "croissant.json"], capture_output=True, text=True, check=False
)
assert checked.returncode == 0, checked.stderr
dataset = mlcroissant.Dataset(jsonld=bundle / "croissant.json")
assert not dataset.metadata.ctx.issues.errors, dataset.metadata.ctx.issues.errors
through = []
for record in dataset.records(record_set="records"):
    value = {key.removeprefix("records/"): v for key, v in record.items()}
    through.append({k: v.decode() if isinstance(v, bytes) else v for k, v in value.items()})
assert rows(through) == expected, "mlcroissant reads other rows"
assert dataset.metadata.data_limitations and dataset.metadata.personal_sensitive_information, "no RAI fields"
print(f"croissant: valid, {len(through)} equal rows; {'; '.join(warned + sorted(dataset.metadata.ctx.issues.warnings)) or 'no warnings'}")
