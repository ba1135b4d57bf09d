#!/usr/bin/env python3
"""Compares a bounded, noised group-by of Sekisho with Polars, DuckDB and OpenDP, in one run over the same Parquet file.

Example: python3 simulations/bench/compare.py --binary target/release/sekisho-sim --rows 10000000

`sekisho-sim bench query` writes the file (a snapshot, sorted by patient) and measures Sekisho and plain DataFusion. Every other
library then runs in a process of its own, from a virtual environment outside the checkout into which it is installed from
PyPI; one that cannot be installed is left out, and said so. The fastest of the repeats counts for everybody.

"by weights": a patient with c > 5 rows counts each with weight 5 / c, as Sekisho bounds contributions, but without noise.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

ROWS_PER_PATIENT = 5
# Sekisho's query costs 0.1 rho.
RHO = 0.1
KEYS = {"sex": ["female", "male"] * 3, "band": [0, 0, 1, 1, 2, 2]}
CHECKOUT = pathlib.Path(__file__).resolve().parents[2]


def polars_plain(file):
    import polars as pl

    rows = pl.scan_parquet(file).with_columns((pl.col("age") // 40).alias("band"))
    return rows.group_by("sex", "band").agg(pl.len(), pl.col("value").sum()).collect().rows()


def polars_by_weights(file):
    import polars as pl

    rows = pl.scan_parquet(file).with_columns(
        (pl.col("age") // 40).alias("band"),
        pl.min_horizontal(1.0, ROWS_PER_PATIENT / pl.len().over("patient_id")).alias("weight"),
    )
    values = pl.col("value").clip(0, 1000)
    cells = rows.group_by("sex", "band").agg(pl.col("weight").sum(), (pl.col("weight") * values).sum().alias("total"))
    return cells.collect().rows()


def duckdb_plain(file):
    import duckdb

    sql = "SELECT sex, age // 40 AS band, count(*), sum(value) FROM read_parquet(?) GROUP BY ALL"
    return duckdb.execute(sql, [file]).fetchall()


def duckdb_by_weights(file):
    import duckdb

    sql = """
        SELECT sex, age // 40 AS band, sum(weight), sum(weight * greatest(0, least(1000, value)))
        FROM (SELECT *, least(1.0::DOUBLE, ?::DOUBLE / count(*) OVER (PARTITION BY patient_id)) AS weight FROM read_parquet(?))
        GROUP BY ALL"""
    return duckdb.execute(sql, [ROWS_PER_PATIENT, file]).fetchall()


def opendp(file, keep):
    import opendp.prelude as dp
    import polars as pl

    dp.enable_features("contrib")
    rows = pl.scan_parquet(file).with_columns((pl.col("age") // 40).alias("band"))
    if rows.collect_schema()["sex"] != pl.String:
        # A dictionary-coded column, which OpenDP does not group by.
        rows = rows.with_columns(pl.col("sex").cast(pl.String))
    context = dp.Context.compositor(
        data=rows.select("patient_id", "sex", "band", "value"),
        privacy_unit=dp.unit_of(contributions=1, identifier="patient_id"),
        privacy_loss=dp.loss_of(rho=RHO),
        split_evenly_over=1,
        margins=[dp.polars.Margin(by=["sex", "band"], max_length=1_000_000_000, max_groups=20)],
    )
    query = context.query().truncate_per_group(ROWS_PER_PATIENT, keep=keep).group_by("sex", "band")
    query = query.agg(dp.len(signed=True), pl.col("value").fill_null(0).dp.sum((0, 1000)))
    return query.with_keys(pl.LazyFrame(KEYS)).release().collect().rows()


# Name, package, what runs.
CONTESTANTS = {
    "Polars": ("polars", polars_plain),
    "Polars, by weights": ("polars", polars_by_weights),
    "DuckDB": ("duckdb", duckdb_plain),
    "DuckDB, by weights": ("duckdb", duckdb_by_weights),
    "OpenDP, noised, sample of 5": ("opendp[polars]", lambda file: opendp(file, "sample")),
    "OpenDP, noised, first 5": ("opendp[polars]", lambda file: opendp(file, "first")),
}


def contestant(name, file, repeat):
    """Runs one contestant in this process and prints its figures."""
    run, seconds = CONTESTANTS[name][1], []
    for _ in range(repeat):
        started = time.perf_counter()
        cells = run(file)
        seconds.append(time.perf_counter() - started)
        if len(cells) != len(KEYS["sex"]):
            raise SystemExit(f"{name} has {len(cells)} cells and not {len(KEYS['sex'])}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"seconds": min(seconds), "peak_rss_mb": peak}))


def environment(path):
    """The interpreter of a virtual environment at `path`, made if need be."""
    path = path.expanduser().resolve()
    if path.is_relative_to(CHECKOUT):
        raise SystemExit(f"{path} is inside the checkout: choose another place with --venv")
    python = path / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", path], check=True)
    return python


def installed(python, packages):
    """Which packages are there, and why others are not."""
    missing = {}
    for package in packages:
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", package], capture_output=True, text=True)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            missing[package] = lines[-1] if lines else "pip failed"
    return missing


def sekisho(args, folder):
    """Runs Sekisho and plain DataFusion; gives their figures and the snapshot's file."""
    command = [args.binary, "bench", "query", "--shape", "group-by", "--rows", str(args.rows)]
    command += ["--repeat", str(args.repeat), "--dir", folder, "--output", "json"]
    figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    file = figures.pop("files")[0]
    results = [
        {"name": "Sekisho, noised, by weights", "seconds": figures["bounded_s"], "peak_rss_mb": figures["peak_rss_mb"]},
        {"name": "DataFusion", "seconds": figures["plain_s"]},
    ]
    return results, file


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(CHECKOUT / "target/release/sekisho-sim"), help="sekisho-sim, built for release")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--venv", type=pathlib.Path, default="~/.cache/sekisho-bench-venv", help="outside the checkout")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures here")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        return contestant(args.contestant, args.file, args.repeat)

    python = environment(args.venv)
    # In this order: OpenDP's Polars front asks for a version of Polars of its own.
    missing = installed(python, ["duckdb", "polars", "opendp[polars]"])
    with tempfile.TemporaryDirectory(prefix="sekisho-compare-") as folder:
        results, file = sekisho(args, os.path.join(folder, "bench"))
        for name, (package, _) in CONTESTANTS.items():
            if package in missing:
                results.append({"name": name, "skipped": f"{package} cannot be installed: {missing[package]}"})
                continue
            command = [python, __file__, "--contestant", name, "--file", file, "--repeat", str(args.repeat)]
            print(name, file=sys.stderr)
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if done.returncode:
                lines = done.stderr.strip().splitlines()
                results.append({"name": name, "skipped": lines[-1] if lines else f"it ended with {done.returncode}"})
            else:
                results.append({"name": name, **json.loads(done.stdout)})
    ours = results[0]["seconds"]
    print(f"{'':30}{'seconds':>9}{'to Sekisho':>12}{'peak MiB':>10}")
    for result in results:
        if "skipped" in result:
            print(f"{result['name']:30}left out: {result['skipped']}")
            continue
        result["to_sekisho"] = result["seconds"] / ours
        peak = result.get("peak_rss_mb", "")
        print(f"{result['name']:30}{result['seconds']:9.3f}{result['to_sekisho']:12.2f}{peak:>10}")
    figures = {"rows": args.rows, "repeat": args.repeat, "cores": os.cpu_count(), "results": results}
    print(json.dumps(figures))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
