"""Every mechanism beside what its user would otherwise take: time and memory, forward and with gradients.

    python -m benchmarks.mechanism_speed                       all of it: 1,024 to 262,144 tokens
    python -m benchmarks.mechanism_speed --only mano --sizes 1024,16384
    python -m benchmarks.mechanism_speed --calm                what others on the machine disturbed, once more
    python -m benchmarks.mechanism_speed --report              the tables again, from rows that are there

Each group, size and pass is a process of its own, in which the modules of the group take turns; before that, those that
ought to give the same outputs are held against each other. What would take longer than --limit seconds a step, or more
memory than --memory GiB, by what smaller sizes took, is not run, and stands in the table as such.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
from itertools import product
from math import log2
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
COLUMNS: list[str] = ["group", "tokens", "gradients", "label", "status", "rounds", "ms", "ms_q25", "ms_q75", "mib"]
COLUMNS += ["foreign_cpu", "ratios", "commit", "device"]
BUSY = 0.1  # share of the machine's cores that others took, above which a timing is disturbed
Row = dict[str, Any]


def main() -> None:
    options = parsed()
    if options.case:
        print(json.dumps(child(options)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.report:
        measure(options)
    from benchmarks._report import write

    write(options.out)
    print(f"{options.out / 'summary.md'} and its figure are written.")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Every mechanism beside what its user would otherwise take.")
    parser.add_argument("--only", default="", help="only groups whose name holds this")
    parser.add_argument("--sizes", default="", help="numbers of tokens, with commas; 1,024 to 262,144 unless given")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda runs in bfloat16")
    parser.add_argument("--limit", type=float, default=10.0, help="seconds of one step beyond which a size is not run")
    parser.add_argument("--memory", type=float, default=10.0, help="GiB of one step beyond which a size is not run")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "mechanism_speed", help="folder of the tables")
    parser.add_argument("--calm", action="store_true", help="only what is not there yet or was disturbed by others")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--case", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace) -> None:
    """Runs every case in a process of its own; rows are written after each, and replace older ones of the same case."""
    from benchmarks._groups import COMPILED, GROUPS, SIZES
    from benchmarks._host import here

    sizes = [int(size) for size in options.sizes.split(",")] if options.sizes else SIZES
    names = [name for name in GROUPS if options.only in name]
    if not names:
        sys.exit(f"No group's name holds '{options.only}'. There are: {', '.join(GROUPS)}.")
    where = here(options.device)
    (options.out / "host.json").write_text(json.dumps(where, indent=1) + "\n")
    rows = read_rows(options.out)
    for name, gradients, tokens in product(names, (False, True), sizes):
        if tokens > GROUPS[name].most or ("compiled" in name and tokens != COMPILED):
            continue
        case = {"group": name, "tokens": tokens, "gradients": gradients}
        if options.calm and not disturbed([row for row in rows if case.items() <= row.items()]):
            continue
        earlier = [row for row in rows if row["group"] == name and row["gradients"] == gradients]
        case |= {"skip": too_large(earlier, tokens, options), "bases": GROUPS[name].bases}
        command = [sys.executable, "-m", "benchmarks.mechanism_speed", "--case", json.dumps(case)]
        command += ["--device", options.device, "--memory", str(options.memory)]
        alone = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # its helpers would count as others on the machine
        done = subprocess.run(command, cwd=ROOT, env=alone, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(f"{name} at {tokens} tokens failed, see above; what was measured before is kept in {options.out}.")
        found = json.loads(done.stdout.splitlines()[-1])
        rows = [row for row in rows if (row["group"], row["gradients"], row["tokens"]) != (name, gradients, tokens)]
        new = summed_up(case, found, where)
        rows += new
        write_rows(options.out, rows)
        shown = ", ".join(f"{row['label']} {row['ms'] or row['status']}" for row in new)
        print(f"{name}, {tokens} tokens, {'both passes' if gradients else 'forward'}: {shown}", flush=True)


def disturbed(rows: list[Row]) -> bool:
    """Whether a case has no rows yet, or other processes took more than BUSY of the machine meanwhile."""
    return not rows or any(busy(row) or row["status"] != "ok" for row in rows)


def busy(row: Row) -> bool:
    return bool(row["foreign_cpu"]) and row["foreign_cpu"] > BUSY


def too_large(earlier: list[Row], tokens: int, options: argparse.Namespace) -> dict[str, str]:
    """Labels that are not run, and why: by the growth from the two next smaller sizes, or N^2 from one."""
    skip = {}
    for label in {row["label"] for row in earlier}:
        rows = sorted((r for r in earlier if r["label"] == label and r["tokens"] < tokens), key=lambda r: r["tokens"])
        if not rows:
            continue
        if not rows[-1]["ms"]:
            skip[label] = rows[-1]["status"]
        rows = [row for row in rows if not busy(row)]
        for column, limit, unit in (("ms", options.limit * 1e3, "time"), ("mib", options.memory * 1024, "memory")):
            costs = [(row["tokens"], row[column]) for row in rows if row[column]]
            if costs and label not in skip and predicted(costs, tokens) > limit:
                skip[label] = f"over {unit}"
    return skip


def predicted(costs: list[tuple[int, float]], tokens: int) -> float:
    (size, cost), exponent = costs[-1], 2.0
    if len(costs) > 1:
        before, less = costs[-2]
        exponent = max(1.0, log2(cost / less) / log2(size / before))
    return cost * (tokens / size) ** exponent


def child(options: argparse.Namespace) -> dict[str, Any]:
    case = json.loads(options.case)
    if options.device == "cpu":
        most = int((options.memory + 6) * 2**30)  # beyond what is predicted: code and libraries are mapped too
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    import torch

    from benchmarks._groups import GROUPS
    from benchmarks._timing import run

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    group = GROUPS[case["group"]]
    return run(group, case["tokens"], gradients=case["gradients"], skip=case["skip"], device=options.device)


def summed_up(case: dict[str, Any], found: dict[str, dict[str, Any]], where: dict[str, Any]) -> list[Row]:
    """Rows of one case: medians and quartiles, and ratios to every other module in the same rounds, as JSON."""
    import statistics

    from benchmarks._timing import ratio

    rows = []
    for label, got in found.items():
        row: Row = dict.fromkeys(COLUMNS, "") | {key: case[key] for key in ("group", "tokens", "gradients")}
        row |= {"label": label, "status": got["status"], "commit": where["commit"], "device": where["device"]}
        if times := got.get("times"):
            q25, median, q75 = statistics.quantiles(times, n=4, method="inclusive")
            row |= {"rounds": len(times), "ms": round(median, 4), "ms_q25": round(q25, 4), "ms_q75": round(q75, 4)}
            row |= {"mib": round(got["mib"] or 0, 3) or "", "foreign_cpu": round(got["foreign_cpu"] or 0, 3)}
            bases = {
                base: other["times"] for base, other in found.items() if "times" in other and base in case["bases"]
            }
            row["ratios"] = json.dumps({base: [round(r, 4) for r in ratio(times, b)] for base, b in bases.items()})
        rows.append(row)
    return rows


def write_rows(folder: Path, rows: list[Row]) -> None:
    rows = sorted(rows, key=lambda row: (row["group"], row["gradients"], row["tokens"]))
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(folder: Path) -> list[Row]:
    """Rows that are there, with numbers as numbers."""
    file = folder / "rows.csv"
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return [{key: typed(key, value) for key, value in row.items()} for row in csv.DictReader(lines)]


def typed(key: str, value: str) -> Any:
    if key in ("group", "label", "status", "ratios", "commit", "device") or not value:
        return value
    if key == "gradients":
        return value == "True"
    return int(value) if key in ("tokens", "rounds") else float(value)


if __name__ == "__main__":
    main()
