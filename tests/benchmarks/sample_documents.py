"""One small result of each kind, as `vlrt bench` writes them; numbers drawn from a seed."""

import copy
import json
from functools import cache

import numpy as np

CONTENDERS = {  # name -> times as fast as torch-fp32
    "torch-fp32": 1.0,
    "openvino-int8": 3.1,
    "vlrt-fp32": 1.7,
    "vlrt-int8": 4.2,
}
SAME_CLASS = (("vlrt-fp32", "torch-fp32"), ("vlrt-int8", "openvino-int8"))
STAGES = {  # stage -> milliseconds of torch-fp32 for one item
    "decode": 4.0,
    "preprocess": 9.0,
    "encode image": 82.0,
    "encode text": 21.0,
    "post-process": 0.4,
    "end to end": 118.0,
    "end to end, labels ready": 96.0,
}


def conditions(threads=2):
    return {
        "date": "2026-11-21T20:00:00+00:00",
        "commit": "4b3f65c0f6a1b8b7c6d5e4f3a2b1c0d9e8f7a6b5",
        "machine": {
            "processor": "Intel(R) Xeon(R) Processor @ 2.60GHz",
            "cpu_features": ["avx2", "avx512f", "avx512_vnni"],
            "cores": 2,
            "memory_gib": 7.8,
            "system": "Linux-6.1-x86_64",
            "load_average": [0.1, 0.2, 0.2],
            "gpus": [],
        },
        "threads": threads,
        "versions": {"python": "3.11.2", "vlrt": "0.1.0", "onnxruntime": "1.31.0", "torch": "2.13"},
    }


def around(kind, body, threads=2):
    """A document with everything but its body."""
    return {
        "format": 1,
        "kind": kind,
        "title": "clip-vit-base-patch32",
        "command": f"vlrt bench {kind} bundles/clip-vit-base-patch32 --threads {threads}",
        "conditions": conditions(threads),
        "model": {
            "name": "clip-vit-base-patch32",
            "family": "clip",
            "task": "zero-shot-image-classification",
            "seeded": True,
            "precisions": ["fp32", "int8"],
            "files": {"config.json": "0" * 64, "onnx/vision_model_int8.onnx": "1" * 64},
        },
        "settings": {"rounds": 5, "turn_s": 1.0, "batch": [1, 8], "device": "cpu"},
        "fairness": [
            "Every contender gets the same files, the same labels and the same batch.",
            "Each runs in a process of its own, pinned to the same processors; they take turns.",
        ],
        "skipped": {"rust": 'pip install "vlrt[peers]"'},
        "notes": ["fp16 was left out: this CPU has no such products."],
        "body": body,
    }


def estimate(value, spread=0.04):
    return {"value": value, "low": value * (1 - spread), "high": value * (1 + spread)}


def summed(rounds, items=1):
    taken = np.concatenate([np.asarray(one) for one in rounds])
    p50, p90, p99 = np.percentile(taken, (50, 90, 99)) * 1e3
    return {
        "p50_ms": float(p50),
        "p90_ms": float(p90),
        "p99_ms": float(p99),
        "mean_ms": float(taken.mean() * 1e3),
        "per_second": float(items / taken.mean()),
        "runs": len(taken),
    }


def rounds_around(rng, seconds, rounds=5, runs=12):
    return [
        [float(x) for x in seconds * (1 + 0.1 * rng.gamma(1.5, 0.4, runs))] for _ in range(rounds)
    ]


def latency(threads=2, scale=1.0, seed=0, contenders=CONTENDERS, batches=(1, 8)):
    rng = np.random.default_rng(seed)
    rows = []
    for batch in batches:
        for stage, milliseconds in STAGES.items():
            partial = stage in ("decode", "preprocess", "post-process")
            names = [n for n in contenders if not partial or n.startswith(("torch-fp32", "vlrt"))]
            samples = {}
            for name in names:
                speed = 1 + (contenders[name] - 1) * (0.25 if partial else 1)
                seconds = scale * milliseconds * batch**0.92 / 1e3 / speed / threads**0.8
                samples[name] = rounds_around(rng, seconds)
            medians = {n: np.median(np.concatenate(s)) for n, s in samples.items()}
            ratios = {}
            for name in names:
                if name != "torch-fp32":
                    found = estimate(float(medians["torch-fp32"] / medians[name]))
                    ratios[name] = {**found, "verdict": "faster" if found["low"] > 1 else "level"}
            rows.append(
                {
                    "stage": stage,
                    "batch": batch,
                    "detail": "12 tokens" if stage == "encode text" else "",
                    "items": batch,
                    "samples": samples,
                    "sentinel": rounds_around(rng, 0.02),
                    "summary": {name: summed(one, batch) for name, one in samples.items()},
                    "base": "torch-fp32",
                    "ratios": ratios,
                    "same_class": [
                        {"ours": ours, "theirs": theirs, **estimate(1.4), "verdict": "faster"}
                        for ours, theirs in SAME_CLASS
                        if {ours, theirs} <= set(names)
                    ],
                    "noise": estimate(1.0, 0.02),
                }
            )
    body = {
        "base": "torch-fp32",
        "sentinel": "vlrt-int8",
        "contenders": {
            name: {
                "engine": name.rpartition("-")[0],
                "precision": name.rpartition("-")[2],
                "versions": {name.rpartition("-")[0]: "1.2.3"},
                "loading_s": 1.4,
                "warm_up_s": 3.2,
                "stable": True,
            }
            for name in contenders
        },
        "agreement": [
            {"stage": "encode image", "batch": 1, "contender": name, "output": "image_embeds",
             "measure": "lowest cosine", "value": 0.99987, "needed": 0.99, "same": True}
            for name in contenders
        ],
        "rows": rows,
    }  # fmt: skip
    return around("latency", body, threads)


def with_another_base(stage="preprocess", base="vlrt-fp32"):
    """Latency whose base lacks a stage, so that its ratios are to another contender."""
    found = latency(batches=(1,))
    row = next(row for row in found["body"]["rows"] if row["stage"] == stage)
    for part in ("samples", "summary"):
        row[part].pop(found["body"]["base"])
    row["base"] = base
    row["ratios"] = {"vlrt-int8": {**estimate(77.0), "verdict": "faster"}}
    row["same_class"] = []
    return found


def accuracy(seed=1, items=400):
    rng = np.random.default_rng(seed)
    rows, every = [], {}
    base = (rng.random(items) < 0.63).astype(float)
    for name, flips in {"torch-fp32": 0, "vlrt-fp32": 0, "vlrt-int8": 9}.items():
        right = base.copy()
        at = rng.choice(items, flips, replace=False)
        right[at] = 1 - right[at]
        every[name] = {"top-1": [float(one) for one in right]}
        for measure, value in (("top-1", right.mean()), ("top-5", right.mean() ** 0.3)):
            for group, shift in (("all", 0.0), ("seen", 0.04), ("never seen", -0.06)):
                change = float(right.mean() - base.mean())
                width = 0.004 * (flips > 0)
                difference = {"value": change, "low": change - width, "high": change + width}
                middle = float(value + shift)
                rows.append(
                    {
                        "contender": name,
                        "group": group,
                        "measure": measure,
                        "value": middle,
                        "low": middle - 0.045,
                        "high": middle + 0.04,
                        "difference": None if name == "torch-fp32" else difference,
                    }
                )
    dataset = {"format": "imagenet", "source": "drawn scenes", "items": items, "drawn": True,
               "sha256": "3" * 64}  # fmt: skip
    positions = {"seen": list(range(items // 2)), "never seen": list(range(items // 2, items))}
    body = {"dataset": dataset, "base": "torch-fp32", "rows": rows, "items": every,
            "positions": positions, "pictures": {}}  # fmt: skip
    return around("accuracy", body)


def footprint(seed=2):
    rng = np.random.default_rng(seed)
    measures = {
        "cold start": ("s", 9.4, 0.9, 5),
        "peak memory": ("MiB", 1430, 420, 5),
        "steady memory": ("MiB", 1180, 350, 5),
        "environment": ("MB", 1240, 118, 1),
        "bundle": ("MB", 605, 154, 1),
    }
    rows = []
    for measure, (unit, theirs, ours, runs) in measures.items():
        samples = {
            name: [float(one) for one in size * (1 + 0.03 * rng.random(runs))]
            for name, size in
            (("transformers", theirs), ("vlrt-fp32", ours * 1.8), ("vlrt-int8", ours))
        }  # fmt: skip
        medians = {name: float(np.median(one)) for name, one in samples.items()}
        ratios = {n: estimate(m / medians["transformers"], 0.02 * (runs > 1))
                  for n, m in medians.items() if n != "transformers"}  # fmt: skip
        rows.append(
            {"measure": measure, "unit": unit, "samples": samples, "medians": medians,
             "ratio": ratios}
        )  # fmt: skip
    environments = {
        name: {
            "requirements": requirements,
            "bytes": sum(packages.values()),
            "packages": packages,
            "versions": dict.fromkeys(packages, "1.2.3"),
        }
        for name, requirements, packages in (
            ("vlrt", ["vlrt[cpu]"], {"onnxruntime": 60_000_000, "numpy": 58_000_000}),
            ("transformers", ["torch"], {"torch": 1_000_000_000, "transformers": 240_000_000}),
        )
    }
    return around("footprint", {"base": "transformers", "rows": rows, "environments": environments})


def load(seed=3):
    rng = np.random.default_rng(seed)
    contenders = {}
    for name, capacity in (("torch-fp32", 12.0), ("vlrt-int8", 46.0)):
        alone = 1 / capacity
        opened, closed = [], []
        for share in (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1):
            waiting = alone * min(share / max(1 - share, 0.02), 40)
            taken = [float(one) for one in alone + rng.exponential(waiting, 80)]
            offered = share * capacity
            opened.append(
                {
                    "offered_per_s": offered,
                    "seconds": 10.0,
                    "arrived": 80,
                    "completed": 80,
                    "per_second": min(offered, capacity * 0.98),
                    "latencies_s": taken,
                    "summary": summed([taken]),
                    "kept_up": share < 0.95,
                }
            )
        for clients in (1, 2, 4, 8):
            taken = rounds_around(rng, alone * max(1, clients / 1.4), 1, 60)[0]
            closed.append(
                {"clients": clients, "seconds": 10.0, "completed": 60,
                 "per_second": capacity * min(1.0, 0.7 + 0.1 * clients), "latencies_s": taken,
                 "summary": summed([taken])}
            )  # fmt: skip
        contenders[name] = {
            "capacity_per_s": capacity,
            "alone_p50_ms": 1e3 * alone,
            "closed": closed,
            "open": opened,
            "knee_per_s": 0.9 * capacity,
        }
    return around("load", {"contenders": contenders})


def serve(seed=6):
    rng = np.random.default_rng(seed)

    def percentiles(milliseconds):
        return {"p50_ms": milliseconds, "p95_ms": 2.1 * milliseconds, "p99_ms": 3.0 * milliseconds,
                "max_ms": 4.4 * milliseconds, "runs": 400}  # fmt: skip

    rows = []
    for clients, gain in ((1, 1.0), (8, 1.4), (64, 1.6)):
        rates = {"batching": 40.0 * gain, "no batching": 40.0}
        spread = {name: [float(one) for one in rate * (1 + 0.02 * rng.random(5))]
                  for name, rate in rates.items()}  # fmt: skip
        rows.append(
            {
                "clients": clients,
                "per_second": spread,
                "medians": {name: float(np.median(one)) for name, one in spread.items()},
                "summary": {
                    name: percentiles(1e3 * clients / rate) for name, rate in rates.items()
                },
                "ratio": estimate(gain, 0.02),
                "failures": {"batching": {}, "no batching": {"connection lost": 2}},
                "refused": dict.fromkeys(rates, 0),
                "cpu_share": dict.fromkeys(rates, 0.03),
            }
        )
    around_it = {
        "capacity_per_s": 60.0, "again_per_s": 59.1, "too_noisy": False, "exit_code": 0,
        "seconds": 10.0, "cpu_share": 0.04, "late_p99_ms": 1.3, "connections": 70, "left": 0,
    }  # fmt: skip
    opened = {**around_it, "offered_per_s": 30.0, "per_second": 29.8, "asked": 300,
              "answers": {"200": 300}, "failures": {}, "summary": percentiles(35.0),
              "latencies_s": [0.035] * 3}  # fmt: skip
    samples = [[float(at), float(600 + 8 * rng.random())] for at in range(60)]
    memory = {"before_mib": 598.0, "after_mib": 603.0, "peak_mib": 640.0, "samples": samples}
    body = {
        "compare_batching": {"rows": rows},
        "half_load": {**around_it, "rounds": [opened] * 5, "summary": percentiles(36.0),
                      "failures": {}, "refused": 1},
        "overload": {
            **opened,
            "offered_per_s": 240.0,
            "asked": 2400,
            "answers": {"200": 1100, "503": 1299},
            "failures": {"timed out": 1},
            "refused_summary": percentiles(3.0),
            "retry_after": {"missing": 0, "least_s": 1, "most_s": 2},
            "memory": memory,
            "ready_after": 200,
        },
        "soak": {
            **opened,
            "retry_after": {"missing": 0, "least_s": None, "most_s": None},
            "kinds": {
                "clip, cut off": {"asked": 9, "answers": {"422": 9}, "left": 0, "failures": {},
                                  "expected": 422, "summary": percentiles(4.0)},
                "clip, left": {"asked": 4, "answers": {}, "left": 4, "failures": {},
                               "expected": 200, "summary": {"runs": 0}},
            },
            "memory": {**memory, "begin_mib": 603.0, "verdict": "flat",
                       "mib_per_hour": {"value": 0.8, "low": -2.0, "high": 3.5}},
            "ready_after": 200,
        },
    }  # fmt: skip
    return around("serve", body)


def tune(seed=4):
    rng = np.random.default_rng(seed)
    candidates = []
    for precision, milliseconds in (("fp32", 48.0), ("int8", 21.0)):
        for threads in (1, 2):
            for spinning in (True, False):
                slower = 1.0 if spinning else 1.06
                taken = rounds_around(rng, milliseconds / 1e3 / threads**0.8 * slower)
                candidates.append(
                    {"precision": precision, "threads": threads,
                     "provider": "CPUExecutionProvider", "spinning": spinning, "samples": taken,
                     "summary": summed(taken), "in": "finals" if spinning else "a turn alone"}
                )  # fmt: skip
    body = {
        "candidates": candidates,
        "default": 2,
        "chosen": 6,
        "gain": estimate(2.28, 0.05),
        "verdict": "faster",
        "settled": True,
        "written": "/home/you/.cache/vlrt/tuned.json",
    }
    return around("tune", body)


def small_latency(scale=1.0, seed=0, threads=2):
    return latency(
        threads=threads,
        scale=scale,
        seed=seed,
        contenders={name: CONTENDERS[name] for name in ("torch-fp32", "vlrt-int8")},
        batches=(1,),
    )


@cache
def compared_once():
    from vlrt_benchmarks.compare import compare

    return compare(small_latency(), small_latency(scale=1.2, seed=9))


def compared():
    return copy.deepcopy(compared_once())


MAKERS = {
    "latency": latency,
    "accuracy": accuracy,
    "footprint": footprint,
    "load": load,
    "serve": serve,
    "tune": tune,
    "compare": compared,
}


def read_back(document):
    """A document as it comes out of a file."""
    return json.loads(json.dumps(document))
