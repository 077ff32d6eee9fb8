"""Which precision `auto` takes on which machine, and what is done about products that saturate."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlrt import demo
from vlrt.bundle import FOR_CUDA, PORTABLE, SUFFIXES, Bundle, graph_file, open_bundle
from vlrt.choice import choose_precision, rows_apart
from vlrt.errors import BundleError, PrecisionError
from vlrt.files import Settings
from vlrt.hardware import FAST, MEANINGS, SATURATING
from vlrt.load import decide, load
from vlrt.placement import placed
from vlrt.session import CPU, CUDA

GRAPHS = ("vision_model", "text_model")
OPENVINO = "OpenVINOExecutionProvider"
USUAL = {"fp32": 5, "fp16": 6, "int8": 2}


def described(
    times,
    *,
    kernels=None,
    bits=8,
    scales=None,
    device="cpu",
    foreign=False,
    portable=("fp32", "fp16"),
    for_cuda=("fp32", "fp16"),
):
    """A bundle of two components, as far as a choice looks at it.

    Args:
        times: precision -> milliseconds of each component; None: not measured.
        kernels: of the machine that measured them; None: an older manifest, which does not say.
        bits: of int8 weights; None: an older manifest.
        scales: of int8; None: an older manifest.
        portable: precisions that have graphs of plain operators too.
        for_cuda: precisions that have graphs of CUDA's operators too.
    """
    recipe = {"weight_bits": bits, "scales": scales}
    recipes = {"int8": {name: value for name, value in recipe.items() if value is not None}}
    variants = {
        precision: {
            "files": [],
            "recipe": recipes.get(precision, {}),
            "speed": ms and {"device": device, "median_ms": ms},
        }
        for precision, ms in times.items()
    }
    manifest = {
        "verified": {"machine": {"int8_kernels": kernels} if kernels else {}},
        "components": {component: {"variants": variants} for component in GRAPHS},
    }
    empty = Settings("none", {})
    return Bundle(
        name="a bundle",
        root=Path("nowhere"),
        config=empty,
        preprocessor=empty,
        tokenizer=empty,
        variants={g: {p: (graph_file(g, p),) for p in times} for g in GRAPHS},
        manifest=None if foreign else Settings("vlrt.json", manifest),
        forms={
            form: {g: {p: (f"{g}.{p}.{form}",) for p in times if p in there} for g in GRAPHS}
            for form, there in ((PORTABLE, portable), (FOR_CUDA, for_cuda))
        },
    )


def auto(bundle, kernels, kind="cpu"):
    return choose_precision(bundle, GRAPHS, "auto", kind, kernels)


# --- on a CPU -------------------------------------------------------------------------------------


@pytest.mark.parametrize("here", FAST)
@pytest.mark.parametrize(
    ("times", "expected", "why"),
    [
        ({"fp32": None, "int8": None}, "fp32", "no variants were compared"),
        ({"fp32": None, "int8": 1}, "fp32", "no variants were compared"),
        (USUAL, "int8", "fastest of fp32, int8, with vnni int8 kernels"),
        ({"fp32": 1, "fp16": 6, "int8": 2}, "fp32", "fastest of fp32, int8"),
        # fp16 is never faster there, whatever a clock said.
        ({"fp32": 5, "fp16": 1, "int8": 2}, "int8", "fastest of fp32, int8"),
        ({"fp32": 5, "fp16": 1}, "fp32", "suits a CPU best"),
        # Weights alone in few bits save memory, not time.
        ({"fp32": 5, "int8w": 1, "int4w": 1}, "fp32", "suits a CPU best"),
        ({"int8": 2, "int8w": 1, "int4w": 1}, "int8", "suits a CPU best"),
        ({"fp16": 6, "int8w": 1}, "int8w", "none of fp16, int8w suits a CPU"),
    ],
)
def test_where_int8_is_fast_the_manifests_times_decide(times, expected, why, here):
    choice = auto(described(times, kernels="vnni"), here)
    assert choice.precision == expected
    assert why in choice.reason
    assert here in choice.reason or "no variants" in choice.reason
    assert not choice.exact_products


@pytest.mark.parametrize("there", [None, "unknown", "none", SATURATING])
@pytest.mark.parametrize("times", [USUAL, {"fp32": 1, "int8": 9}, {"fp32": None, "int8": None}])
def test_where_int8_is_fast_here_alone_the_times_from_elsewhere_do_not_count(there, times):
    choice = auto(described(times, kernels=there), "vnni")
    assert choice.precision == "int8"
    assert f"times are from {there or 'unknown'} ones" in choice.reason
    assert auto(described({"fp32": 1, "uint8": 9}, kernels=there), "vnni").precision == "fp32"


@pytest.mark.parametrize(
    ("bits", "there", "times", "expected"),
    [
        (8, "vnni", USUAL, "fp32"),
        (8, SATURATING, USUAL, "fp32"),
        (None, "vnni", USUAL, "fp32"),
        (7, SATURATING, USUAL, "int8"),
        (7, SATURATING, {"fp32": 1, "int8": 2}, "fp32"),
        (7, "vnni", USUAL, "int8"),
        (7, "vnni", {"fp32": 1, "int8": 2}, "int8"),  # slower with other kernels
        (7, None, USUAL, "int8"),
        (7, SATURATING, {"int8": 2, "fp16": 1}, "int8"),
        (8, SATURATING, {"int8": 2, "fp16": 1}, "fp16"),
    ],
)
def test_where_products_saturate_8_bit_weights_are_not_taken(bits, there, times, expected):
    choice = auto(described(times, kernels=there, bits=bits), SATURATING)
    assert choice.precision == expected
    assert "saturating int8 kernels here" in choice.reason
    assert not choice.exact_products


@pytest.mark.parametrize("requested", ["auto", "int8"])
@pytest.mark.parametrize("bits", [8, None])
@pytest.mark.parametrize("foreign", [False, True])
def test_8_bit_weights_that_are_taken_all_the_same_are_computed_exactly(requested, bits, foreign):
    bundle = described({"int8": 2}, kernels="vnni", bits=bits, foreign=foreign)
    choice = choose_precision(bundle, GRAPHS, requested, "cpu", SATURATING)
    assert choice.precision == "int8"
    assert choice.exact_products
    assert "would saturate, so that they are computed exactly, which is slow" in choice.reason


@pytest.mark.parametrize("kernels", sorted({*MEANINGS} - {SATURATING}))
def test_nothing_is_done_where_products_are_exact(kernels):
    bundle = described(USUAL, kernels="vnni")
    for requested in ("auto", *USUAL):
        choice = choose_precision(bundle, GRAPHS, requested, "cpu", kernels)
        assert not choice.exact_products
        assert "saturate" not in choice.reason


def test_what_another_device_leaves_to_the_cpu_is_exact_too():
    bundle = described(USUAL, foreign=True)
    assert choose_precision(bundle, GRAPHS, "int8", "cuda", SATURATING).exact_products
    assert not choose_precision(bundle, GRAPHS, "fp32", "cuda", SATURATING).exact_products


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        ("none", "vnni", "fp32"),
        ("none", None, "fp32"),
        ("none", "none", "int8"),
        ("unknown", "vnni", "fp32"),
        # Two machines that nobody knows are not alike for that.
        ("unknown", "unknown", "fp32"),
        ("unknown", None, "fp32"),
        ("none", "unknown", "fp32"),
    ],
)
def test_where_int8_is_not_known_to_be_fast_times_count_from_machines_alike(here, there, expected):
    choice = auto(described(USUAL, kernels=there), here)
    assert choice.precision == expected
    assert here in choice.reason


@pytest.mark.parametrize(
    ("held", "expected", "why"),
    [
        (["int8", "fp16", "int4w", "int8w"], "int8w", "save memory, though no time"),
        (["int8", "fp16", "int4w"], "int4w", "save memory, though no time"),
        (["int4w", "int8w"], "int8w", "save memory, though no time"),
        (["quantized", "q4f16", "q4", "fp16"], "q4", "save memory, though no time"),
        (["int8", "fp16"], "fp16", "widened to fp32 at every operator, slow and exact"),
        (["int8", "quantized"], "int8", "it is the first one held; this CPU's products"),
    ],
)
def test_where_nothing_suits_a_cpu_what_loses_least_is_taken(held, expected, why):
    bundle = described(dict.fromkeys(held, 1))
    choice = auto(bundle, SATURATING)
    assert choice.precision == expected
    said = f"none of {', '.join(bundle.held(GRAPHS))} suits a CPU with saturating int8 kernels"
    assert said in choice.reason
    assert why in choice.reason
    assert choice.exact_products == (expected == "int8")


def test_times_of_another_kind_of_device_do_not_count():
    choice = auto(described(USUAL, kernels="vnni", device="cuda"), "vnni")
    assert choice.precision == "fp32"
    assert "no variants were compared" in choice.reason


def test_times_are_of_all_components_together():
    bundle = described({"fp32": 5, "int8": 4}, kernels="vnni")
    texts = bundle.manifest["components"]["text_model"]["variants"]
    images = {
        p: {**entry, "speed": {"device": "cpu", "median_ms": 1}} for p, entry in texts.items()
    }
    images["int8"]["speed"]["median_ms"] = 3
    bundle.manifest["components"]["vision_model"]["variants"] = images
    assert auto(bundle, "vnni").precision == "fp32"
    images["int8"]["speed"] = None
    assert "no variants were compared" in auto(bundle, "vnni").reason


def test_one_component_of_8_bits_is_enough_to_saturate():
    bundle = described({"int8": 1}, kernels=SATURATING, bits=7)
    assert not auto(bundle, SATURATING).exact_products
    (entry,) = bundle.manifest["components"]["text_model"]["variants"].values()
    bundle.manifest["components"]["text_model"]["variants"] = {
        "int8": {**entry, "recipe": {"weight_bits": 8}}
    }
    assert auto(bundle, SATURATING).exact_products


# --- a foreign bundle -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "kernels", "expected"),
    [
        (["fp32", "fp16", "quantized"], "vnni", "fp32"),
        (["fp16", "quantized"], "vnni", "quantized"),
        (["fp16", "quantized"], SATURATING, "fp16"),
        (["int8", "quantized"], "vnni", "int8"),
        (["uint8", "quantized"], SATURATING, "uint8"),
        (["q4", "q4f16"], "vnni", "q4"),
        (["quantized"], SATURATING, "quantized"),
    ],
)
def test_of_a_foreign_bundle_the_exact_variant_is_taken(held, kernels, expected):
    bundle = described(dict.fromkeys(held), foreign=True)
    choice = auto(bundle, kernels)
    assert choice.precision == expected
    assert choice.exact_products == (expected == "quantized" and kernels == SATURATING)


# --- elsewhere ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "held", "expected"),
    [
        ("cuda", ["fp32", "fp16", "int8"], "fp16"),
        ("cuda", ["fp32", "int8"], "fp32"),
        ("cuda", ["int8", "int8w"], "int8w"),
        (OPENVINO, ["fp32", "fp16", "int8"], "fp32"),
        (OPENVINO, ["fp16", "int8"], "fp16"),
        ("DmlExecutionProvider", ["fp32", "fp16", "int8"], "fp32"),
    ],
)
def test_each_kind_of_device_has_what_suits_it(kind, held, expected):
    choice = auto(described(dict.fromkeys(held, 1), kernels="vnni"), "vnni", kind)
    assert choice.precision == expected
    assert kind in choice.reason


@pytest.mark.parametrize(
    ("kind", "foreign", "form"),
    [
        ("cpu", False, ""),
        ("cuda", False, FOR_CUDA),
        ("cuda", True, ""),
        (OPENVINO, False, PORTABLE),
        ("TensorrtExecutionProvider", False, PORTABLE),
        ("DmlExecutionProvider", False, PORTABLE),
        (OPENVINO, True, ""),  # there is but one graph, and who made it is not known
    ],
)
def test_each_kind_of_device_gets_graphs_of_its_form(kind, foreign, form):
    bundle = described(USUAL, foreign=foreign)
    for precision in ("fp32", "fp16"):
        assert choose_precision(bundle, GRAPHS, precision, kind, "vnni").form == form
    assert auto(bundle, "vnni", kind).form == form


@pytest.mark.parametrize("for_cuda", [(), ("fp32",)])
def test_what_was_exported_without_a_form_for_cuda_is_taken_as_it_is(for_cuda):
    bundle = described(USUAL, for_cuda=for_cuda)
    assert choose_precision(bundle, GRAPHS, "fp16", "cuda", "vnni").form == ""
    assert auto(bundle, "vnni", "cuda").precision == "fp16"


@pytest.mark.parametrize(
    ("held", "requested", "says"),
    [
        (
            ("int8",),
            "auto",
            "^a bundle in int8 is for the CPU.*; export it again with fp16 or fp32$",
        ),
        (("int8",), "int8", "export it again with fp16 or fp32$"),
        (USUAL, "int8", "would run beside it; valid: fp32, fp16$"),
        (("int8", "int4w"), "int8", "valid: int4w$"),
    ],
)
def test_int8_is_refused_on_cuda_which_has_no_kernels_for_it(held, requested, says):
    bundle = described(dict.fromkeys(held, 1))
    with pytest.raises(PrecisionError, match=says):
        choose_precision(bundle, GRAPHS, requested, "cuda", "vnni")


def test_what_foreign_graphs_are_made_of_their_session_has_to_see():
    bundle = described(dict.fromkeys(("int8",), 1), foreign=True)
    assert choose_precision(bundle, GRAPHS, "int8", "cuda", "vnni").precision == "int8"


@pytest.mark.parametrize(
    ("requested", "portable", "says"),
    [
        ("int8", ("fp32", "fp16"), r"^a bundle in int8 is made of .* valid: fp32, fp16$"),
        ("int8", ("fp32",), rf"all providers but the CPU's and CUDA's, such as {OPENVINO}, need"),
        ("int8", ("fp16",), r"valid: fp16$"),
        ("fp32", ("fp16",), r"^a bundle in fp32 is made of .* valid: fp16$"),
        ("fp32", (), r"^a bundle in fp32 is made of .* export it again with fp32 or fp16$"),
        ("auto", (), r"^a bundle is made of .* export it again with fp32 or fp16$"),
        ("int4w", ("fp32",), r"'int4w'; it has: fp32$"),
    ],
)
def test_what_has_no_plain_operators_is_refused_elsewhere(requested, portable, says):
    bundle = described(USUAL, portable=portable)
    with pytest.raises(PrecisionError, match=says):
        choose_precision(bundle, GRAPHS, requested, OPENVINO, "vnni")


def test_a_bundle_of_int8_alone_stays_on_the_cpu_unless_cuda_was_asked_for():
    bundle = open_bundle(demo.bundle("clip"))
    plan = decide(bundle, GRAPHS, placed((CUDA, CPU)), "vnni")
    assert (plan.placement.provider, plan.choice.precision) == (CPU, "int8")
    assert plan.placement.reason.startswith("auto: CUDA is there, but has no kernels")
    assert not plan.placement.asked_for
    for precision in ("auto", "int8"):
        with pytest.raises(PrecisionError, match="int8 is for the CPU"):
            decide(bundle, GRAPHS, placed((CUDA, CPU), "cuda"), "vnni", precision=precision)


def test_a_bundle_of_more_goes_to_cuda_where_it_is(tiny_bundle):
    plan = decide(open_bundle(tiny_bundle), GRAPHS, placed((CUDA, CPU)), "vnni")
    assert (plan.placement.provider, plan.choice.precision) == (CUDA, "fp16")
    assert plan.choice.form == FOR_CUDA


# --- what is asked for ----------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", MEANINGS)
def test_a_requested_precision_is_never_replaced(kernels):
    for precision in USUAL:
        for kind in ("cpu", *(["cuda"] if precision != "int8" else [])):
            found = choose_precision(described(USUAL), GRAPHS, precision, kind, kernels)
            assert found.precision == precision


def test_why_it_was_requested_is_the_callers_to_say():
    found = choose_precision(described(USUAL), GRAPHS, "fp32", "cpu", "vnni", reason="so it is")
    assert (found.precision, found.reason) == ("fp32", "so it is")
    found = choose_precision(described(USUAL), GRAPHS, "auto", "cpu", "vnni", reason="so it is")
    assert found.reason.startswith("auto: ")


@pytest.mark.parametrize("requested", ["", "uint8", "int8w", "int4w", "FP32", "int7", "auto "])
def test_a_precision_that_is_not_held_names_those_that_are(requested):
    with pytest.raises(PrecisionError, match=rf"'{requested}'; it has: fp32, fp16, int8$"):
        choose_precision(described(USUAL), GRAPHS, requested, "cpu", "vnni")


@pytest.mark.parametrize("requested", ["auto", "fp32", "int8w"])
def test_components_that_share_no_precision_are_refused(requested):
    bundle = described(USUAL)
    bundle.variants["text_model"].clear()
    bundle.variants["text_model"]["int8w"] = ("x.onnx",)
    with pytest.raises(PrecisionError, match="no precision that all its components share"):
        choose_precision(bundle, GRAPHS, requested, "cpu", "vnni")


@pytest.mark.parametrize("requested", ["auto", "fp32", "int8w"])
def test_a_component_that_is_not_there_is_named(requested):
    with pytest.raises(
        BundleError, match=r"no component 'model'.*it has: text_model, vision_model"
    ):
        choose_precision(described(USUAL), ("model",), requested, "cpu", "vnni")


# --- whatever a bundle holds ----------------------------------------------------------------------


@given(
    times=st.dictionaries(st.sampled_from(list(SUFFIXES)), st.none() | st.floats(0.1, 9)),
    here=st.sampled_from(list(MEANINGS)),
    there=st.none() | st.sampled_from(list(MEANINGS)),
    bits=st.sampled_from([None, 7, 8]),
    foreign=st.booleans(),
    kind=st.sampled_from(["cpu", "cuda", OPENVINO]),
)
def test_auto_takes_what_is_held_and_never_lets_products_saturate(
    times, here, there, bits, foreign, kind
):
    bundle = described(times, kernels=there, bits=bits, foreign=foreign)
    if not times or (kind == OPENVINO and not foreign and not {"fp32", "fp16"} & set(times)):
        with pytest.raises(PrecisionError):
            auto(bundle, here, kind)
        return
    choice = auto(bundle, here, kind)
    assert choice.precision in times
    assert choice.reason.startswith("auto: ")
    risky = here == SATURATING and (
        choice.precision == "quantized"
        or (choice.precision == "int8" and (bits != 7 or foreign))
    )  # fmt: skip
    assert choice.exact_products == risky
    if risky and kind == "cpu":
        assert not {"fp32", "fp16", "uint8"} & set(times)
    if kind == "cpu" and "fp32" in times:
        assert choice.precision not in ("fp16", "int8w", "int4w")


def test_the_names_of_devices_are_those_of_placements():
    from vlrt.session import Placement

    for provider, kind in ((CPU, "cpu"), (CUDA, "cuda"), (OPENVINO, OPENVINO)):
        assert Placement(((provider, {}),), "test").kind == kind


# --- results that do not depend on what shares their batch ----------------------------------------


@pytest.mark.parametrize(
    ("precision", "options", "apart"),
    [
        ("fp32", {}, True),
        ("fp32", {"foreign": True}, True),
        ("fp16", {}, True),
        ("int8", {"scales": "static"}, True),
        ("int8", {"scales": "dynamic"}, False),
        ("int8", {}, False),
        ("int8", {"foreign": True, "scales": "static"}, False),
        ("int8w", {}, False),
    ],
)
def test_results_are_known_to_be_apart_or_not(precision, options, apart):
    bundle = described({**USUAL, "int8w": 1}, **options)
    assert rows_apart(bundle, GRAPHS, precision) is apart


def test_one_component_is_enough_to_mix_them():
    bundle = described(USUAL, scales="static")
    mixed = bundle.manifest["components"]["text_model"]["variants"]["int8"]
    mixed["recipe"] = {"scales": "dynamic"}
    bundle.manifest["components"]["vision_model"] = {
        "variants": {"int8": {"recipe": {"scales": "static"}}}
    }
    assert not rows_apart(bundle, GRAPHS, "int8")


@pytest.mark.parametrize("name", ["fp32", "fp16", "demo"])
def test_those_that_are_known_to_be_are(name, request):
    """Any row gives the same bits, alone and in every batch."""
    source, precision = demo.bundle("clip"), "int8"
    if name != "demo":
        source, precision = request.getfixturevalue("tiny_bundle"), name
    sessions = {}
    model = load(source, precision=precision, device="cpu", wrap=sessions.setdefault)
    assert model.info["rows_apart"]
    height, width = model.processor.output_hw
    pixels = np.random.default_rng(0).normal(size=(9, 3, height, width)).astype(np.float32)
    ids = model.tokenizer.ids(["a cat", "red dog", "a dog", "red cat", "dog"] * 2)[:9]
    inputs = {"vision_model": {"pixel_values": pixels}, "text_model": model.tokenizer.pad(ids)}
    for component, session in sessions.items():
        ((_, whole),) = session.run(inputs[component]).items()
        for rows in (1, 2, 5, 8):
            part = {key: array[-rows:] for key, array in inputs[component].items()}
            ((_, found),) = session.run(part).items()
            assert found.tobytes() == whole[-rows:].tobytes(), (component, rows)
