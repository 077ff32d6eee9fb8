"""Bundles: their layouts, what is found in them, and every way in which they can be broken."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoints import edit_json, read_json, write_json

import vlrt
from vlrt import hardware
from vlrt.bundle import (
    FOR_CUDA,
    FORMAT_VERSION,
    FORMS,
    SIMILARITY,
    SUFFIXES,
    Settings,
    graph_file,
    inside,
    open_bundle,
    split_name,
)
from vlrt.describe import describe
from vlrt.errors import (
    BundleError,
    BundleNotFoundError,
    IntegrityError,
    PrecisionError,
    UnknownFamilyError,
    VlrtError,
)
from vlrt.hardware import FAST, MEANINGS, SATURATING
from vlrt.kernels import int8_kernels
from vlrt.session import CPU, engine

GRAPHS = ("vision_model", "text_model")


def load(root, **options):
    return vlrt.load(root, device="cpu", **options)


def edit_manifest(root, change):
    manifest = read_json(root / "vlrt.json")
    change(manifest)
    write_json(root / "vlrt.json", manifest)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("", ("", "fp32")),
        ("model", ("model", "fp32")),
        ("text_model", ("text_model", "fp32")),
        ("text_model_fp16", ("text_model", "fp16")),
        ("text_model_int8", ("text_model", "int8")),
        ("text_model_int8w", ("text_model", "int8w")),
        ("text_model_int4w", ("text_model", "int4w")),
        ("text_model_int8_w", ("text_model_int8_w", "fp32")),
        ("text_model_uint8", ("text_model", "uint8")),
        ("text_model_quantized", ("text_model", "quantized")),
        ("text_model_q4", ("text_model", "q4")),
        ("text_model_q4f16", ("text_model", "q4f16")),
        ("text_model_q2", ("text_model", "q2")),
        ("text_model_q1", ("text_model", "q1")),
        ("text_model_bnb4", ("text_model", "bnb4")),
        ("text_model_fp64", ("text_model_fp64", "fp32")),
        ("decoder_model_merged_q4f16", ("decoder_model_merged", "q4f16")),
    ],
)
def test_a_file_name_is_split_into_component_and_precision(stem, expected):
    assert split_name(stem) == expected


@pytest.mark.parametrize("precision", SUFFIXES)
def test_names_survive_the_round_trip(precision):
    file = Path(graph_file("vision_model", precision))
    assert split_name(file.stem) == ("vision_model", precision)
    assert file.parent == Path("onnx")


@pytest.mark.parametrize(
    "name",
    ["../x", "onnx/../../x", "/etc/passwd", "..", "onnx\\x", "C:x", "C:/x", "\\\\host\\x"],
)
def test_a_name_that_leaves_the_bundle_is_refused(tmp_path, name):
    with pytest.raises(BundleError, match="leaves the bundle"):
        inside(tmp_path, name)


def test_links_that_leave_the_bundle_are_refused(tmp_path):
    root, outside = tmp_path / "bundle", tmp_path / "outside"
    for folder in (root, outside):
        folder.mkdir()
        (folder / "graph.onnx").write_bytes(b"x")
    (root / "near.onnx").symlink_to("graph.onnx")
    (root / "far.onnx").symlink_to("../outside/graph.onnx")
    (root / "onnx").symlink_to("../outside")
    assert inside(root, "near.onnx").is_file()
    for name in ("far.onnx", "onnx/graph.onnx"):
        with pytest.raises(BundleError, match="link that leaves"):
            inside(root, name)


def test_the_hub_caches_links_to_blobs_are_followed(tmp_path):
    snapshot = tmp_path / "models--o--n" / "snapshots" / "abc"
    blob = tmp_path / "models--o--n" / "blobs" / "123"
    for folder in (snapshot, blob.parent):
        folder.mkdir(parents=True)
    blob.write_bytes(b"x")
    (snapshot / "config.json").symlink_to(blob)
    (snapshot / "elsewhere").symlink_to(tmp_path)
    assert inside(snapshot, "config.json").read_bytes() == b"x"
    with pytest.raises(BundleError, match="link that leaves"):
        inside(snapshot, "elsewhere")


def test_a_bundle_reached_through_a_link_loads(tiny_bundle, tmp_path):
    (tmp_path / "link").symlink_to(tiny_bundle)
    assert load(tmp_path / "link", precision="int8").info["precision"] == "int8"


# --- what is found --------------------------------------------------------------------------------


def test_the_manifest_lists_the_variants(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    assert bundle.precisions == ["fp32", "fp16", "int8"]
    for component in GRAPHS:
        for precision in bundle.precisions:
            assert bundle.files(component, precision) == (graph_file(component, precision),)
    assert bundle.manifest["format_version"] == FORMAT_VERSION
    assert set(bundle.values) == {"logit_scale"}


def test_the_fingerprint_is_the_weights_own(tiny_bundle, tiny_checkpoint, own_bundle):
    bundle = open_bundle(tiny_bundle)
    assert bundle.fingerprint == open_bundle(own_bundle).fingerprint
    from vlrt.files import file_sha256

    assert bundle.fingerprint == file_sha256(tiny_checkpoint / "model.safetensors")


def test_a_foreign_bundle_is_read_by_its_file_names(foreign_bundle):
    bundle = open_bundle(foreign_bundle)
    assert bundle.manifest is None
    assert bundle.precisions == ["fp32", "fp16", "quantized"]
    assert bundle.values == {}
    assert bundle.fingerprint == str(foreign_bundle)
    model = load(foreign_bundle, precision="quantized")
    assert model.encode_texts(["a cat"]).shape == (1, 24)


def test_auto_takes_the_exact_variant_of_a_foreign_bundle(foreign_bundle):
    info = load(foreign_bundle).info
    assert info["precision"] == "fp32"
    assert "no variants were compared" in info["precision_reason"]


def test_external_data_belongs_to_its_graph(foreign_bundle, tiny):
    onnx = pytest.importorskip("onnx")
    for component in GRAPHS:
        path = foreign_bundle / graph_file(component, "fp32")
        model = onnx.load(path)
        path.unlink()
        # Not the few integers of a Reshape, which ONNX Runtime wants in the graph itself.
        onnx.save_model(
            model,
            path,
            save_as_external_data=True,
            location=f"{path.name}_data",
            size_threshold=256,
        )
    bundle = open_bundle(foreign_bundle)
    graph = graph_file("vision_model", "fp32")
    assert bundle.files("vision_model", "fp32") == (graph, f"{graph}_data")
    found = load(foreign_bundle, precision="fp32").encode_texts(["a red cat"])
    assert (found == tiny.encode_texts(["a red cat"])).all()
    (foreign_bundle / f"{graph}_data").unlink()
    with pytest.raises(BundleError, match="cannot load"):
        load(foreign_bundle, precision="fp32")


def test_a_graph_that_reads_outside_the_bundle_is_refused(foreign_bundle):
    """The engine's own check, which this test keeps an eye on: a graph names its data file."""
    onnx = pytest.importorskip("onnx")
    if engine().__version__.startswith("1.23."):
        pytest.skip("ONNX Runtime 1.23 reads external data from anywhere; 1.24 refuses")
    path = foreign_bundle / graph_file("text_model", "fp32")
    model = onnx.load(path)
    path.unlink()
    onnx.save_model(model, path, save_as_external_data=True, location="data", size_threshold=64)
    (path.parent / "data").rename(foreign_bundle.parent / "data")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../../data"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="cannot load"):
        load(foreign_bundle, precision="fp32")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ((), {"a": {"b": [1]}, "none": None}),
        (("a",), {"b": [1]}),
        (("a", "b"), [1]),
        (("a", "c"), None),
        (("none", "b"), None),
        (("a", "b", "c"), None),
        (("z",), None),
    ],
)
def test_what_a_manifest_does_not_state_is_none(tiny_bundle, keys, expected):
    content = {"a": {"b": [1]}, "none": None}
    bundle = replace(open_bundle(tiny_bundle), manifest=Settings("vlrt.json", content))
    found = bundle.stated(*keys)
    assert (dict(found) if keys == () else found) == expected
    assert replace(bundle, manifest=None).stated(*keys) is None


# --- what `vlrt info` tells -----------------------------------------------------------------------


def told(root):
    return list(describe(open_bundle(root)))


def test_info_tells_how_variants_were_made(own_bundle):
    def change(manifest):
        manifest["verified"]["machine"] |= {"int8_kernels": "amx"}
        for component, kept in (("vision_model", ["a", "b"]), ("text_model", ["a"])):
            manifest["components"][component]["variants"]["int8"]["recipe"] = {
                "method": "products of integers",
                "layers_kept_fp32": kept,
                "weight_bits": 7,
                "scales": "static",
            }

    edit_manifest(own_bundle, change)
    lines = told(own_bundle)
    assert any(line.startswith("made on") and line.endswith(", int8 kernels amx") for line in lines)
    made = "int8        products of integers; 7-bit weights; static scales; "
    assert f"{made}2 layers left in fp32 (vision_model)" in lines
    assert f"{made}1 layer left in fp32 (text_model)" in lines


def test_a_manifest_names_the_kernels_that_loading_finds(tiny_bundle):
    """On one machine, so that times measured there count there."""
    manifest = open_bundle(tiny_bundle).manifest
    machine = manifest["verified"]["machine"]
    assert machine == {**hardware.describe(), "int8_kernels": int8_kernels()}
    assert load(tiny_bundle).info["int8_kernels"] == machine["int8_kernels"]


def test_info_of_an_older_manifest_tells_what_it_states(own_bundle):
    def change(manifest):
        manifest["verified"]["machine"] = {"processor": "A processor", "threads": 2}
        for component in GRAPHS:
            recipe = {"method": "products of integers", "layers_kept_fp32": []}
            manifest["components"][component]["variants"]["int8"]["recipe"] = recipe

    edit_manifest(own_bundle, change)
    lines = told(own_bundle)
    assert "made on     A processor, int8 kernels unknown" in lines
    assert "int8        products of integers" in lines


def test_info_tells_accuracy_beside_pytorchs(own_bundle):
    accuracy = {"reference": 0.985, "variant": 0.98, "of": "top-1 on 200 drawn scenes"}
    edit_manifest(own_bundle, lambda m: m["quality"]["int8"].update(accuracy=accuracy))
    assert "int8        top-1 on 200 drawn scenes: 98.0%, PyTorch 98.5%" in told(own_bundle)


@pytest.mark.parametrize("kernels", MEANINGS)
def test_info_tells_what_is_taken_here_and_why(own_bundle, monkeypatch, kernels):
    def change(manifest):
        manifest["verified"]["machine"]["int8_kernels"] = "vnni"
        for component in GRAPHS:
            for precision, entry in manifest["components"][component]["variants"].items():
                milliseconds = {"fp32": 5, "fp16": 6, "int8": 2}[precision]
                entry["speed"] = {"device": "cpu", "median_ms": milliseconds}

    edit_manifest(own_bundle, change)
    monkeypatch.setattr("vlrt.hardware.int8_kernels", lambda: kernels)
    monkeypatch.setattr("vlrt.kernels.products_saturate", lambda: kernels == SATURATING)
    lines = told(own_bundle)
    assert f"int8 here   {kernels}: {MEANINGS[kernels]}" in lines
    info = load(own_bundle).info
    assert info["int8_kernels"] == kernels
    assert info["precision"] == ("int8" if kernels in FAST else "fp32")
    assert f"here        {CPU}, {info['precision']} ({info['precision_reason']})" in lines
    asked = load(own_bundle, precision="int8").info
    assert asked["exact_products"] == (kernels == SATURATING)
    assert ("computed exactly" in asked["precision_reason"]) == (kernels == SATURATING)


def test_other_graphs_and_files_beside_are_left_alone(own_bundle):
    (own_bundle / "vlrt.json").unlink()
    (own_bundle / "onnx" / "model.onnx").write_bytes(b"a monolith that nobody opens")
    (own_bundle / "README.md").write_text("hello")
    bundle = open_bundle(own_bundle)
    assert set(bundle.variants) == {"model", *GRAPHS}
    assert bundle.precisions == ["fp32"]
    assert load(own_bundle, precision="int8").info["precision"] == "int8"


def test_info_tells_what_load_would_take_beside_a_monolith(own_bundle):
    (own_bundle / "vlrt.json").unlink()
    for path in (own_bundle / "onnx").glob("*_model.onnx"):
        path.unlink()  # the towers are there in fp16 and int8, the monolith in fp32
    (own_bundle / "onnx" / "model.onnx").write_bytes(b"a monolith that nobody opens")
    taken = load(own_bundle).info["precision"]
    assert any(f"here        {CPU}, {taken} " in line for line in describe(open_bundle(own_bundle)))


# --- what is not there ----------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["no/such-bundle", "no/such/dir", "a b c", "/no/such/bundle"])
def test_neither_a_directory_nor_a_repository_is_named(source):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(BundleNotFoundError, match=source):
        load(source, offline=True)


def test_an_empty_directory_holds_no_graphs(tmp_path):
    with pytest.raises(BundleNotFoundError, match="holds no ONNX graphs"):
        load(tmp_path)


def test_a_checkpoint_is_told_how_to_become_a_bundle(tiny_checkpoint):
    with pytest.raises(BundleNotFoundError, match="vlrt export"):
        load(tiny_checkpoint)


def test_a_revision_of_a_directory_is_refused(tiny_bundle):
    with pytest.raises(BundleError, match="revision='main'"):
        load(tiny_bundle, revision="main")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json",
                                  "tokenizer_config.json", "tokenizer.json"])  # fmt: skip
@pytest.mark.parametrize("kind", ["own", "foreign"])
def test_a_missing_settings_file_is_named(request, kind, name):
    root = request.getfixturevalue(f"{kind}_bundle")
    (root / name).unlink()
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        load(root, precision="fp32")


@pytest.mark.parametrize("component", GRAPHS)
def test_a_missing_component_is_named_with_those_that_are_there(foreign_bundle, component):
    for path in (foreign_bundle / "onnx").glob(f"{component}*"):
        path.unlink()
    (other,) = set(GRAPHS) - {component}
    for precision in ("auto", "fp32", "q4"):
        with pytest.raises(BundleError, match=rf"no component '{component}'.*it has: {other}"):
            load(foreign_bundle, precision=precision)


def test_a_missing_graph_that_the_manifest_lists_is_named(own_bundle):
    (own_bundle / "onnx" / "text_model_int8.onnx").unlink()
    with pytest.raises(BundleNotFoundError, match=r"text_model_int8\.onnx"):
        load(own_bundle, precision="int8")
    assert load(own_bundle, precision="fp32")


@pytest.mark.parametrize("precision", ["q4", "int4", "int8w", "int4w", "", "FP32"])
def test_a_precision_that_is_not_there_names_those_that_are(tiny_bundle, precision):
    with pytest.raises(PrecisionError, match="fp32, fp16, int8"):
        load(tiny_bundle, precision=precision)


def test_a_precision_of_one_component_alone_does_not_count(foreign_bundle):
    (foreign_bundle / "onnx" / "text_model_fp16.onnx").unlink()
    with pytest.raises(PrecisionError, match="it has: fp32, quantized"):
        load(foreign_bundle, precision="fp16")


def test_components_without_a_common_precision_are_refused(foreign_bundle):
    for name in ("text_model", "text_model_fp16", "vision_model_quantized"):
        (foreign_bundle / "onnx" / f"{name}.onnx").unlink()
    with pytest.raises(PrecisionError, match="no precision that all its components share"):
        load(foreign_bundle)


# --- what is broken -------------------------------------------------------------------------------


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def tamper(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, tamper, empty])
@pytest.mark.parametrize(
    "name", ["onnx/vision_model.onnx", "onnx/text_model.onnx", "config.json", "tokenizer.json"]
)
def test_a_file_that_the_manifest_does_not_describe_is_refused(own_bundle, damage, name):
    damage(own_bundle / name)
    # JSON that is cut short is refused as such before its checksum is looked at.
    with pytest.raises(BundleError, match=name.replace(".", r"\.")) as caught:
        load(own_bundle, precision="fp32")
    if name.endswith(".onnx"):
        assert isinstance(caught.value, IntegrityError)


def test_settings_edited_by_hand_are_refused(own_bundle):
    edit_json(own_bundle / "config.json", projection_dim=25)
    with pytest.raises(IntegrityError, match=r"config\.json"):
        load(own_bundle)


@pytest.mark.parametrize("damage", [truncate, empty])
def test_a_broken_graph_without_a_manifest_is_refused_by_the_engine(foreign_bundle, damage):
    damage(foreign_bundle / "onnx" / "vision_model.onnx")
    with pytest.raises(BundleError, match=r"cannot load.*vision_model\.onnx"):
        load(foreign_bundle, precision="fp32")


def test_only_the_files_of_the_chosen_precision_are_read(own_bundle):
    truncate(own_bundle / "onnx" / "vision_model_fp16.onnx")
    assert load(own_bundle, precision="int8").info["precision"] == "int8"


@pytest.mark.parametrize("content", ["", "{", "not json", "[]", "null", "3", "\x80"])
@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "tokenizer_config.json", "vlrt.json"]
)
def test_settings_that_are_no_json_object_are_named(own_bundle, name, content):
    (own_bundle / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(BundleError, match=rf"{name}.* is not (JSON|a JSON object)"):
        load(own_bundle, precision="fp32")


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("config.json", "model_type"),
        ("tokenizer_config.json", "pad_token"),
        ("tokenizer_config.json", "model_max_length"),
        ("preprocessor_config.json", "do_resize"),
        ("preprocessor_config.json", "size"),
        ("preprocessor_config.json", "crop_size"),
        ("preprocessor_config.json", "resample"),
        ("preprocessor_config.json", "do_normalize"),
        ("preprocessor_config.json", "image_mean"),
    ],
)
def test_a_missing_key_is_named_with_its_file(foreign_bundle, file, key):
    edit_json(foreign_bundle / file, **{key: None})
    with pytest.raises(BundleError, match=rf"{file} has no '{key}'"):
        load(foreign_bundle, precision="fp32")


@pytest.mark.parametrize(
    "key", ["format_version", "components", "values", "files", "source"]
)  # `source` carries the fingerprint
def test_a_missing_key_of_the_manifest_is_named(own_bundle, key):
    edit_json(own_bundle / "vlrt.json", **{key: None})
    with pytest.raises(BundleError, match=rf"vlrt\.json has no '{key}'"):
        load(own_bundle, precision="fp32")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(components=[]),
        lambda m: m.update(components={"text_model": 3}),
        lambda m: m["components"]["text_model"].update(variants={"fp32": {}}),
        lambda m: m["components"]["text_model"]["variants"]["fp32"].update(files=[]),
        lambda m: m["components"]["text_model"]["variants"]["fp32"].update(files="onnx/x.onnx"),
        lambda m: m["components"]["text_model"]["variants"]["fp32"].update(files=[3]),
        lambda m: m["files"].pop("config.json"),
        lambda m: m["files"]["config.json"].pop("sha256"),
        lambda m: m["files"]["config.json"].update(size="many"),
        lambda m: m.update(values={"logit_scale": "large"}),
        lambda m: m.update(values={"logit_scale": None}),
        lambda m: m.update(values=3),
        lambda m: m.update(source={}),
    ],
)
def test_a_manifest_of_another_shape_is_a_bundle_error(own_bundle, change):
    edit_manifest(own_bundle, change)
    with pytest.raises(BundleError):
        load(own_bundle, precision="fp32")


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, "1", 1.5])
def test_another_format_version_is_refused_with_both_numbers(own_bundle, version):
    edit_json(own_bundle / "vlrt.json", format_version=version)
    with pytest.raises(BundleError, match=rf"format_version {version!r}.*reads {FORMAT_VERSION}"):
        load(own_bundle)


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/passwd", "onnx/../../outside.onnx"])
def test_a_manifest_path_that_leaves_the_bundle_is_refused(own_bundle, name):
    graph = own_bundle / "onnx" / "text_model.onnx"
    (own_bundle.parent / "outside.onnx").write_bytes(graph.read_bytes())

    def change(manifest):
        manifest["components"]["text_model"]["variants"]["fp32"]["files"] = [name]
        manifest["files"][name] = manifest["files"]["onnx/text_model.onnx"]

    edit_manifest(own_bundle, change)
    with pytest.raises(BundleError, match="leaves the bundle"):
        load(own_bundle, precision="fp32")


@pytest.mark.parametrize("name", ["onnx/text_model.onnx", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("kind", ["own", "foreign"])
def test_a_file_that_is_a_link_out_of_the_bundle_is_refused(request, kind, name):
    root = request.getfixturevalue(f"{kind}_bundle")
    outside = (root / name).rename(root.parent / "outside")
    (root / name).symlink_to(outside)
    with pytest.raises(BundleError, match="link that leaves"):
        load(root, precision="fp32")


@pytest.mark.parametrize("model_type", ["gpt2", "CLIP", "../clip", "__init__", "clip.Model", 7])
def test_an_unknown_model_type_names_the_families(foreign_bundle, model_type):
    edit_json(foreign_bundle / "config.json", model_type=model_type)
    with pytest.raises(UnknownFamilyError, match=r"the families: .*clip"):
        load(foreign_bundle)


def test_a_padding_token_given_as_an_object_loads(foreign_bundle):
    token = read_json(foreign_bundle / "tokenizer_config.json")["pad_token"]
    edit_json(foreign_bundle / "tokenizer_config.json", pad_token={"content": token})
    assert load(foreign_bundle).encode_texts(["a cat"]).shape == (1, 24)


def test_a_pickle_in_a_bundle_is_never_run(foreign_bundle, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    for name in ("pytorch_model.bin", "config.pkl", "onnx/vision_model.onnx"):
        (foreign_bundle / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(VlrtError):
        load(foreign_bundle, precision="fp32")
    assert not (tmp_path / "ran").exists()


# --- settings -------------------------------------------------------------------------------------


def test_settings_are_a_mapping_that_knows_its_file():
    settings = Settings("a/config.json", {"x": 1, "none": None, "nested": {"y": 2}, "list": []})
    assert (len(settings), dict(settings)["x"], settings.get("z", 5)) == (4, 1, 5)
    assert settings.need("x") == 1
    assert settings.section("nested").need("y") == 2
    for key in ("z", "none"):
        with pytest.raises(BundleError, match=rf"a/config\.json has no '{key}'"):
            settings.need(key)
    with pytest.raises(BundleError, match=r"a/config\.json \(nested\) has no 'z'"):
        settings.section("nested").need("z")
    with pytest.raises(BundleError, match=r"a/config\.json: 'list' is \[\], not an object"):
        settings.section("list")


# --- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_forms_are_those_that_the_manifest_lists(tiny_bundle, form):
    bundle = open_bundle(tiny_bundle)
    assert bundle.formed(form) == bundle.formed(form, ["vision_model"]) == ["fp32", "fp16"]
    assert bundle.formed(form, ["no_such"]) == bundle.formed("no_such") == []
    paths = bundle.fetch(("vision_model", "text_model"), "fp16", form=form)
    for component, path in paths.items():
        assert path == tiny_bundle / graph_file(component, "fp16", form)
        assert path.is_file()


def test_a_form_of_a_foreign_bundle_is_none_of_its_components(foreign_bundle):
    bundle = open_bundle(foreign_bundle)
    assert set(bundle.variants) == {"vision_model", "text_model"}
    assert [bundle.formed(form) for form in FORMS] == [[], []]


def test_a_form_that_was_replaced_is_refused(own_bundle):
    path = own_bundle / graph_file("vision_model", "fp16", FOR_CUDA)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match="sha256 differs"):
        open_bundle(own_bundle).fetch(("vision_model",), "fp16", form=FOR_CUDA)


def test_the_graph_of_similarities_is_checked_as_others_are(own_bundle):
    bundle = open_bundle(own_bundle)
    path = bundle.fetch_similarity()
    assert path == own_bundle / SIMILARITY
    path.write_bytes(b"")
    with pytest.raises(IntegrityError, match="has 0 bytes"):
        bundle.fetch_similarity()
