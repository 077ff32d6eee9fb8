"""How a server's results are shown: batching, latency at half load, overload, and memory."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..serve_plots import clients_of, memory, throughput
from ..serve_steps import ALONE, BATCHING
from ..wording import ABSENT, Figure, Highlight, Table, number, ratio_interval

_TIMES = {"p50_ms": "p50 ms", "p95_ms": "p95 ms", "p99_ms": "p99 ms"}


def headline(document: dict[str, Any]) -> str:
    """Every section in a few words."""
    body = document["body"]
    said = []
    if "compare_batching" in body:
        row = body["compare_batching"]["rows"][-1]
        said.append(
            f"{clients_of(row['clients'])}: batching answers {ratio_interval(row['ratio'])} times "
            "as many requests as without"
        )
    if "half_load" in body:
        said.append(f"at half load p99 is {number(body['half_load']['summary'].get('p99_ms'))} ms")
    if "overload" in body:
        lost = sum(body["overload"]["failures"].values())
        said.append(
            f"at four times the capacity {lost or 'none'} of {body['overload']['asked']} requests "
            "failed"
        )
    if "soak" in body:
        said.append(f"memory in {number(body['soak']['seconds'])} s: {_memory_verdict(body)}")
    return "; ".join(said)


def highlights(document: dict[str, Any]) -> list[Highlight]:
    """One number a section."""
    body = document["body"]
    found = [
        Highlight(
            ratio_interval(row["ratio"]),
            f"times the throughput of no batching, {clients_of(row['clients'])}",
            f"{number(row['medians'][BATCHING])} requests a second",
        )
        for row in body.get("compare_batching", {}).get("rows", ())
    ]
    if "half_load" in body:
        one = body["half_load"]
        found.append(
            Highlight(
                f"{number(one['summary'].get('p99_ms'))} ms",
                "99th percentile at half load",
                f"median {number(one['summary'].get('p50_ms'))} ms",
            )
        )
    if "overload" in body:
        one = body["overload"]
        found.append(
            Highlight(
                str(sum(one["failures"].values())),
                f"of {one['asked']} requests failed at four times the capacity",
                f"p99 of the answered {number(one['summary'].get('p99_ms'))} ms",
            )
        )
    if "soak" in body:
        found.append(
            Highlight(
                _memory_verdict(body),
                f"is the server's memory in {number(body['soak']['seconds'])} s",
                f"{_hourly(body['soak']['memory'])} MiB an hour",
            )
        )
    return found


def tables(document: dict[str, Any]) -> list[Table]:
    """All numbers of all sections."""
    body = document["body"]
    found: list[Table] = []
    if "compare_batching" in body:
        found += _batching(body["compare_batching"])
    if "half_load" in body:
        found.append(_half(body["half_load"]))
    if "overload" in body:
        found += _overload(body["overload"])
    if "soak" in body:
        found += _soak(body["soak"])
    return found


def figures(document: dict[str, Any]) -> list[Figure]:
    """Throughput by clients, and memory over time."""
    body = document["body"]
    found = []
    rows = body.get("compare_batching", {}).get("rows", [])
    if len(rows) > 1:
        found.append(throughput(rows))
    for name, title in (("overload", "Memory under overload"), ("soak", "Memory in the soak")):
        if name in body:
            found.append(memory(title, body[name]["memory"]))
    return found


# --- tables ---------------------------------------------------------------------------------------


def _batching(section: Mapping[str, Any]) -> Iterator[Table]:
    yield Table(
        "Batching against no batching",
        ["clients", "batching, a second", "no batching, a second", "times as many"],
        [
            [
                str(row["clients"]),
                *(number(row["medians"][name]) for name in (BATCHING, ALONE)),
                ratio_interval(row["ratio"]),
            ]
            for row in section["rows"]
        ],
        "Closed loops: each client asks again as soon as it has its answer. Medians over rounds; "
        "the ratio with its 95 % interval.",
    )
    yield Table(
        "Latency in closed loops",
        ["clients, server", *_TIMES.values(), "answered", "refused", "failed", "generator"],
        [
            [
                f"{row['clients']}, {name}",
                *_times(row["summary"][name]),
                str(row["summary"][name]["runs"]),
                str(row["refused"][name]),
                _failed(row["failures"][name]),
                number(row["cpu_share"][name]),
            ]
            for row in section["rows"]
            for name in (BATCHING, ALONE)
        ],
        "Generator: the most of one processor that the clients themselves used.",
    )


def _half(section: Mapping[str, Any]) -> Table:
    rounds = [
        [f"round {number_}", *_open_cells(one)]
        for number_, one in enumerate(section["rounds"], start=1)
    ]
    whole = [
        "all",
        number(section["rounds"][0]["offered_per_s"]),
        number(sum(one["per_second"] for one in section["rounds"]) / len(section["rounds"])),
        *_times(section["summary"]),
        str(section["summary"]["runs"]),
        str(section["refused"]),
        _failed(section["failures"]),
        number(max(one["late_p99_ms"] for one in section["rounds"])),
        number(max(one["cpu_share"] for one in section["rounds"])),
    ]
    return Table(
        "Half load",
        ["", "offered a second", "answered a second", *_TIMES.values(), "answered", "refused",
         "failed", "sent late, p99 ms", "generator"],
        [whole, *rounds],
        f"Poisson arrivals at half of the capacity, {number(section['capacity_per_s'])} a second "
        f"(afterwards {number(section['again_per_s'])}). Latency counts from when a request was "
        "due; how late it was sent is a part of it.",
    )  # fmt: skip


def _open_cells(one: Mapping[str, Any]) -> list[str]:
    return [
        number(one["offered_per_s"]),
        number(one["per_second"]),
        *_times(one["summary"]),
        str(one["summary"]["runs"]),
        str(one["answers"].get("503", 0)),
        _failed(one["failures"]),
        number(one["late_p99_ms"]),
        number(one["cpu_share"]),
    ]


def _overload(section: Mapping[str, Any]) -> Iterator[Table]:
    again = section["retry_after"]
    yield Table(
        "Overload: four times the capacity",
        ["", "requests", *_TIMES.values()],
        [
            ["asked", str(section["asked"]), *[ABSENT] * len(_TIMES)],
            ["answered", str(section["answers"].get("200", 0)), *_times(section["summary"])],
            [
                "refused (503)",
                str(section["answers"].get("503", 0)),
                *_times(section["refused_summary"]),
            ],
            ["failed", _failed(section["failures"]), *[ABSENT] * len(_TIMES)],
        ],
        f"Offered {number(section['offered_per_s'])} a second for {number(section['seconds'])} s; "
        f"{number(section['per_second'])} a second were answered, and "
        f"{number(section['capacity_per_s'])} in the closed loop before (afterwards "
        f"{number(section['again_per_s'])}).",
    )
    used = section["memory"]
    yield Table(
        "The server in overload",
        ["", "value"],
        [
            ["503 without Retry-After", str(again["missing"])],
            ["Retry-After, least and most s", _span(again["least_s"], again["most_s"])],
            ["memory before, MiB", number(used["before_mib"])],
            ["memory at most, MiB", number(used["peak_mib"])],
            ["memory after, MiB", number(used["after_mib"])],
            ["ready afterwards", "yes" if section["ready_after"] == 200 else "no"],
            ["exit code of SIGTERM", str(section["exit_code"])],
            ["sent late, p99 ms", number(section["late_p99_ms"])],
            ["generator, of one processor", number(section["cpu_share"])],
            ["connections made", str(section["connections"])],
        ],
    )


def _soak(section: Mapping[str, Any]) -> Iterator[Table]:
    used = section["memory"]
    yield Table(
        "Soak: a long mixture",
        ["", "value"],
        [
            ["seconds", number(section["seconds"])],
            ["requests", str(section["asked"])],
            ["failed", _failed(section["failures"])],
            ["refused (503)", str(section["answers"].get("503", 0))],
            ["503 without Retry-After", str(section["retry_after"]["missing"])],
            ["clients that went away", str(section["left"])],
            *([said, number(section["summary"].get(key))] for key, said in _TIMES.items()),
            ["memory", used["verdict"]],
            ["memory's growth in the second half, MiB an hour", _hourly(used)],
            ["memory there, MiB", number(used["begin_mib"])],
            ["memory at most, MiB", number(used["peak_mib"])],
            ["ready afterwards", "yes" if section["ready_after"] == 200 else "no"],
            ["exit code of SIGTERM", str(section["exit_code"])],
            ["generator, of one processor", number(section["cpu_share"])],
        ],
        f"Offered {number(section['offered_per_s'])} a second, 0.8 of what the closed loop before "
        "answered of this mixture.",
    )
    yield Table(
        "What was asked in the soak",
        ["kind", "right answer", "asked", "answered so", "refused", "left", "failed",
         *_TIMES.values()],
        [
            [
                name,
                str(one["expected"]),
                str(one["asked"]),
                str(one["answers"].get(str(one["expected"]), 0)),
                str(one["answers"].get("503", 0)),
                str(one["left"]),
                _failed(one["failures"]),
                *_times(one["summary"]),
            ]
            for name, one in section["kinds"].items()
        ],
        "Left: clients that went away on purpose.",
        folded=True,
    )  # fmt: skip


def _times(summary: Mapping[str, Any]) -> list[str]:
    return [number(summary.get(key)) for key in _TIMES]


def _failed(failures: Mapping[str, int]) -> str:
    """How many, and of what kinds."""
    if not failures:
        return "0"
    kinds = "; ".join(f"{count} {name}" for name, count in failures.items())
    return f"{sum(failures.values())}: {kinds}"


def _span(least: int | None, most: int | None) -> str:
    return ABSENT if least is None else f"{least} to {most}"


def _hourly(used: Mapping[str, Any]) -> str:
    found = used["mib_per_hour"]
    said = number(found["value"])
    if found["low"] is None or found["high"] is None:  # as infinity is read back
        return said
    return f"{said} [{number(found['low'])} to {number(found['high'])}]"


def _memory_verdict(body: Mapping[str, Any]) -> str:
    return str(body["soak"]["memory"]["verdict"])
