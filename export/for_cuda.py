"""The form of a variant for CUDA: written beside it, proved and judged by itself.

There is no GPU where models are exported. The operators have kernels for the CPU too, which prove
what the graph computes, though not how CUDA rounds.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx

from vlrt.bundle import FOR_CUDA, graph_file
from vlrt.describe import largest_error, lowest_cosine
from vlrt.errors import BundleError, InferenceError

from . import gates
from .precision import Recipe
from .recipes import producer, save_beside

if TYPE_CHECKING:
    from .run import Run

# Samples for a graph that computes what one does that was proved on all of them.
FEW = 2


def write(run: "Run", precision: str, recipes: Mapping[str, Recipe]) -> list[str]:
    """Write the form for CUDA of a variant that is there.

    A GPU is slowed by layers in fp32 more than a CPU is, which widens the others too. So all layers
    that do not come near fp16's limit are tried in fp16 first, and if that does not pass the gate,
    the variant's own recipe is taken.

    Args:
        run: the export.
        precision: of the variant.
        recipes: component -> what it was built by.

    Returns:
        Why it does not pass its gate, and was not written; empty if it was.
    """
    lean = {c: run.workshop.leaner(c, recipe, run.inputs[c]) for c, recipe in recipes.items()}
    differ = any(lean[c].keep_fp32 != recipe.keep_fp32 for c, recipe in recipes.items())
    whys: list[str] = []
    for tried in (lean, recipes) if differ else (recipes,):
        if whys:
            run.say(f"  for CUDA not yet: {'; '.join(whys)}")
        try:
            whys = _try(run, precision, tried, all_samples=tried is not recipes)
        except (BundleError, InferenceError) as error:  # what this ONNX Runtime cannot load or run
            whys = [str(error)]
        if not whys:
            return []
    run.discard(precision, FOR_CUDA)
    return whys


def _try(
    run: "Run", precision: str, recipes: Mapping[str, Recipe], *, all_samples: bool
) -> list[str]:
    """Build the form by some recipes, and keep it if it passes; why it does not.

    Args:
        run: the export.
        precision: of the variant.
        recipes: component -> what to build it by.
        all_samples: whether it computes anything else than what was proved on all samples.
    """
    outputs: dict[str, Any] = {}
    made: dict[str, dict[str, Any]] = {}
    for component, recipe in recipes.items():
        path = run.root / graph_file(component, precision, FOR_CUDA)
        graph = run.workshop.build(component, replace(recipe, form=FOR_CUDA))
        model = graph.model(producer())
        files = save_beside(model, path, run.root / graph_file(component, precision))
        found, proof = run.prove(
            component, run.open(path), files, None if all_samples else FEW, form=FOR_CUDA
        )
        outputs |= found
        made[component] = {
            **proof,
            "recipe": recipe.describe(graph.weights),
            "inputs": _inputs(model),
        }
    quality = run.judge(outputs) if all_samples else {"agreement": None}
    gate = gates.gate(run.task, precision, run.options.quality)
    whys = gates.complaints(gate, made, quality)
    if not whys:
        for component, entry in made.items():
            run.components[component][precision][FOR_CUDA] = entry
            kept = entry["recipe"]["layers_kept_fp32"]
            run.say(
                f"  {entry['files'][0]}: lowest cosine {lowest_cosine(entry['parity'])}, "
                f"largest error {largest_error(entry['parity']):.1e}"
                + (f", {len(kept)} layers in fp32" if kept else "")
            )
    return whys


def _inputs(model: onnx.ModelProto) -> dict[str, dict[str, Any]]:
    """What a graph takes: the type of each input, and its shape, in which names are dynamic."""
    return {
        taken.name: {
            "type": onnx.helper.tensor_dtype_to_np_dtype(taken.type.tensor_type.elem_type).name,
            "shape": [dim.dim_param or dim.dim_value for dim in taken.type.tensor_type.shape.dim],
        }
        for taken in model.graph.input
    }
