"""One JSON of all records in a folder, and its tables in Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vlrt.errors import BenchmarkError
from vlrt.files import whole_file

from . import record
from .settings import Settings

MODELS: tuple[str, ...] = ()
Record = Mapping[str, Any]
NAME = "gpu"
_NONE = "not a number"


def needed(settings: Settings) -> bool:  # noqa: ARG001
    """Always: there may be more records than before."""
    return True


def measure(settings: Settings, model: str | None) -> dict[str, Any]:  # noqa: ARG001
    """Write `gpu.json` and `gpu.md` beside the records.

    Raises:
        BenchmarkError: there are none.
    """
    records = record.read_all(settings.out)
    records.pop("report", None)
    if not records:
        raise BenchmarkError(f"there are no records in {settings.out}")
    record.write(settings, NAME, {"records": records})
    with whole_file(settings.out / f"{NAME}.md") as file:
        file.write(markdown(records).encode())
    return {"files": [f"{NAME}.json", f"{NAME}.md"], "records": len(records)}


def markdown(records: Mapping[str, Record]) -> str:
    """All tables, one after the other."""
    whole = {(told["piece"], told["model"]) for told in records.values() if _is_whole(told)}
    by_piece: dict[str, list[Record]] = {}
    for told in records.values():
        if _is_whole(told) or (told["piece"], told["model"]) not in whole:
            by_piece.setdefault(told["piece"], []).append(told)
    parts = ["# GPU", *_where(records)]
    for piece, section in _SECTIONS.items():
        done = [told for told in by_piece.get(piece, ()) if told["found"]]
        if done:
            parts += section(done)
    others = [
        [name, told["status"], record.short(told["why"] or "")]
        for name, told in records.items()
        if told["status"] != record.DONE
    ]
    if others:
        parts += ["## Not done", table(("record", "status", "why"), others)]
    return "\n\n".join(parts) + "\n"


def _is_whole(told: Record) -> bool:
    """Whether something was found, and not just quickly."""
    return bool(told["found"]) and not told["settings"]["quick"]


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table of Markdown, its first column to the left."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    lines += [f"| {' | '.join(_cell(one) for one in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value).replace("|", "\\|")


def _estimate(found: Mapping[str, float]) -> str:
    return f"{found['value']:.2f} ({found['low']:.2f}-{found['high']:.2f})"


def _where(records: Mapping[str, Record]) -> list[str]:
    """The machine and the versions of the newest record, and the seconds of all."""
    last = max(records.values(), key=lambda told: str(told["conditions"]["date"]))
    told = last["conditions"]
    gpus = [", ".join(gpu.values()) for gpu in told["machine"]["gpus"]] or ["no GPU"]
    versions = ", ".join(
        f"{name} {told['versions'][name]}"
        for name in ("onnxruntime-gpu", "onnxruntime", "torch", "transformers", "vlrt", "python")
        if name in told["versions"]
    )
    rehearsal = last["settings"]["size"] == "small" or last["settings"]["device"] == "cpu"
    machine = (
        f"{'; '.join(gpus)}; {told['machine']['processor']}, {told['machine']['cores']} CPUs; "
        f"{versions}; commit {told['commit'] or 'unknown'}, {told['date']}."
    )
    weights = "Weights are seeded: they show speed, memory and parity, and nothing of quality."
    lines = [machine, weights]
    return [*(["**A rehearsal: these numbers mean nothing.**"] if rehearsal else []), *lines]


def _install(records: Sequence[Record]) -> list[str]:
    found = records[-1]["found"]
    told = (
        f"ONNX Runtime {found['onnxruntime']} ({found['file']}) ran an addition on "
        f"{found['ran_on']}; by vlrt it {found['vlrt']}. Providers: "
        f"{', '.join(found['providers'])}. PyTorch {found['torch']['version']}."
    )
    return ["## Installed", told, f"```\n{found['doctor']}\n```"]


def _parity(records: Sequence[Record]) -> list[str]:
    rows = []
    for told in records:
        for name, one in told["found"]["variants"].items():
            if "failed" in one:
                rows.append([told["model"], name, one["device"], "failed", None, None, None, None])
                continue
            outputs = one["outputs"].values()
            cosines = [o["cosine"] for o in outputs if o["measure"] == "lowest cosine"]
            differences = [o["max_abs"] for o in outputs]
            rows.append(
                [
                    told["model"],
                    name,
                    one["device"],
                    _NONE if None in differences else max(differences),
                    _NONE if None in cosines else f"{min(cosines):.6f}" if cosines else None,
                    f"{one['agreement'] or 0:.1%} of {one['choices']}",
                    "yes" if one["repeatable"] else "NO",
                    "yes" if one["same"] else "NO",
                ]
            )
    head = ("model", "variant", "on", "largest difference", "lowest cosine", "same choices",
            "repeatable", "within limits")  # fmt: skip
    return ["## Parity with PyTorch in fp32", table(head, rows)]


def _latency(records: Sequence[Record]) -> list[str]:
    """A row for each model and number of pictures, over all records of a model."""
    rows = [(told["model"], row) for told in records for row in told["found"]["rows"]]
    rows.sort(key=lambda pair: (pair[0], pair[1]["pictures"]))
    names = list(dict.fromkeys(name for _, row in rows for name in row["summary"]))

    def of(value: Callable[[Mapping[str, float]], float]) -> list[list[Any]]:
        return [
            [model, row["pictures"], *(value(row["summary"][n]) if n in row["summary"] else None
                                       for n in names)]
            for model, row in rows
        ]  # fmt: skip

    ours = [name for name in names if name.startswith("vlrt-")]
    ratios = [
        [model, row["pictures"], pair["ours"], pair["theirs"],
         _estimate(pair), pair["verdict"]]
        for model, row in rows
        for pair in row["same_class"]
        if pair["ours"] in ours
    ]  # fmt: skip
    return [
        "## Latency of the tower of pictures, median milliseconds from host to host",
        table(("model", "pictures", *names), of(lambda one: one["p50_ms"])),
        "## Pictures a second of the tower of pictures",
        table(("model", "pictures", *names), of(lambda one: one["per_second"])),
        "## Times as fast as PyTorch in the same precision (95 % interval)",
        table(("model", "pictures", "ours", "theirs", "times as fast", "verdict"), ratios),
        *[f"- {line}" for line in records[-1]["found"]["fairness"]],
    ]


def _end_to_end(records: Sequence[Record]) -> list[str]:
    rows = []
    for told in records:
        for row in told["found"]["rows"]:
            for name, one in row["summary"].items():
                ratio = row["ratios"].get(name)
                times = (
                    f"{ratio['value']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"
                    if ratio
                    else None
                )
                rows.append([told["model"], row["row"], name, one["per_second"], times])
    head = ("model", "JPEGs", "contender", "pictures a second", "vlrt is times as fast")
    return ["## End to end, from JPEGs to results", table(head, rows)]


def _memory(records: Sequence[Record]) -> list[str]:
    rows = [
        [told["model"], name, *(mark[key] for mark in (marks["load"], marks["batch"])
                                for key in ("gpu_mib", "host_mib"))]
        for told in records
        for name, marks in told["found"]["contenders"].items()
    ]  # fmt: skip
    batch = records[-1]["found"]["batch"]
    head = ("model", "contender", "GPU, loaded", "host, loaded", f"GPU, batch {batch}",
            f"host, batch {batch}")  # fmt: skip
    return ["## Memory, MiB", table(head, rows)]


def _cold_start(records: Sequence[Record]) -> list[str]:
    rows = []
    for told in records:
        for row in told["found"]["rows"]:
            ratio = row["ratio"].get("vlrt")
            medians = [row["medians"].get(name) for name in ("vlrt", "torch")]
            times = f"{ratio['value']:.2f}" if ratio else None
            rows.append([told["model"], row["measure"], row["unit"], *medians, times])
    head = ("model", "measure", "unit", "vlrt", "torch", "ratio")
    return ["## Cold start", table(head, rows)]


def _soak(records: Sequence[Record]) -> list[str]:
    rows = []
    for told in records:
        found = told["found"]
        for name, one in found["memory"].items():
            hourly = one["mib_per_hour"]
            slope = f"{hourly['value']:.1f} ({hourly['low']:.1f} to {hourly['high']:.1f})"
            rows.append([told["model"], f"{found['seconds']:.0f} s", name, one["begin_mib"],
                         one["peak"], slope, one["verdict"]])  # fmt: skip
    head = ("model", "time", "memory", "begins at, MiB", "peak, MiB", "MiB an hour", "verdict")
    return ["## Soak, mixed batches", table(head, rows)]


def _similarity(records: Sequence[Record]) -> list[str]:
    rows = [
        [told["model"], row["labels"], row["batch"], row["numpy_ms"], row["device_ms"],
         row["difference"]]
        for told in records
        for row in told["found"]["rows"]
    ]  # fmt: skip
    head = ("model", "labels", "batch", "NumPy, ms", "device, ms", "largest difference")
    return ["## Many labels, whole calls", table(head, rows)]


def _tensorrt(records: Sequence[Record]) -> list[str]:
    rows = [
        [told["model"], name, *(value for key, value in one.items() if key != "best")]
        for told in records
        for name, one in told["found"]["contenders"].items()
    ]
    head = ("model", "contender", "to the first answer, s", "batch 1, ms", "batch 8, ms")
    return ["## TensorRT, whole calls", table(head, rows)]


_SECTIONS: dict[str, Callable[[Sequence[Record]], list[str]]] = {
    "install": _install,
    "parity": _parity,
    "latency": _latency,
    "end-to-end": _end_to_end,
    "memory": _memory,
    "cold-start": _cold_start,
    "soak": _soak,
    "similarity": _similarity,
    "tensorrt": _tensorrt,
}
