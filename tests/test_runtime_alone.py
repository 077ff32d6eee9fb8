"""The runtime needs its own dependencies and nothing else, by running it and by reading it.

In a process in which torch, transformers, onnx and their kind cannot be imported, everything that
the runtime does is done once.
"""

import ast
import sys
from pathlib import Path

import pytest
from pictures import encoded, picture
from without import run_without

import vlrt
from vlrt import demo

PACKAGE = Path(vlrt.__file__).parent
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
SERVER = {"fastapi", "starlette", "uvicorn", "pydantic", "pydantic_core", "annotated_types",
          "prometheus_client", "python_multipart", "tomli"}  # fmt: skip
ABSENT = (*sorted(SERVER), "torch", "torchvision", "transformers", "optimum", "onnx", "onnxscript",
          "safetensors", "ml_dtypes", "scipy", "cv2", "matplotlib", "pandas", "sklearn",
          "vlrt_export", "vlrt_benchmarks")  # fmt: skip

RUN = """
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

import vlrt
from vlrt import templates

root, photo = Path(sys.argv[1]), Path(sys.argv[2])
array = np.asarray(Image.open(photo).convert("RGB"))
sources = [str(photo), photo, photo.read_bytes(), bytearray(photo.read_bytes()), Image.open(photo),
           array]
labels = ["red circle", "blue cross", "a green square"]

for decode in ("exact", "fast"):
    model = vlrt.load(root, device="cpu", decode=decode)
    one = model.classify(photo, labels)
    assert abs(float(one.scores.sum()) - 1) < 1e-5
    assert one.best == one.top(1)[0] and one.to_dict()
    with photo.open("rb") as file:
        assert model.classify(file, labels).best == one.best
    many = model.classify(sources, labels, templates=["a picture of {}", "{}"], batch_size=2)
    assert len(many) == len(sources)
    encoded = pickle.loads(pickle.dumps(model.encode_labels(labels)))
    assert np.abs(model.classify(photo, encoded).scores - one.scores).max() < 1e-5
    texts, images = model.encode_texts(labels), model.encode_images(sources)
    assert vlrt.cosine_similarity(texts, images).shape == (3, 6)
    assert model.image_similarity([photo], sources).shape == (1, 6)
    (batch,) = model.iter_image_embeds([photo, "missing.png"])
    assert [error is None for error in batch[0]] == [True, False]
    assert model.info["provider"] == "CPUExecutionProvider"
assert len(templates.fill(vlrt.IMAGENET_TEMPLATES, "cat")) == 80

for wrong, error in (
    (lambda: model.classify("missing.png", labels), vlrt.errors.ImageError),
    (lambda: model.classify(photo, []), vlrt.errors.LabelError),
    (lambda: model.encode_texts([""]), vlrt.errors.TextError),
    (lambda: vlrt.load(root, precision="q4"), vlrt.errors.PrecisionError),
    (lambda: vlrt.load(root / "nothing", offline=True), vlrt.errors.BundleNotFoundError),
    (lambda: vlrt.load(root, providers=["NoSuchProvider"]), vlrt.errors.ProviderError),
    (lambda: vlrt.load(root, device="tpu"), vlrt.errors.OptionError),
):
    try:
        wrong()
    except error:
        pass
    else:
        raise AssertionError(f"{error.__name__} was not raised")

try:
    import torch
except ModuleNotFoundError:
    print("ran")
"""

COMMANDS = """
import contextlib
import io
from pathlib import Path

from vlrt import cli

root, photo, out = sys.argv[1:4]
for arguments, code in (
    (["classify", photo, "--labels", "red circle,blue cross", "--model", root, "--json"], 0),
    (["embed", photo, "-o", out + "/vectors.npy", "--model", root], 0),
    (["info", root], 0),
    (["doctor"], 0),
    (["export", "somewhere", "-o", out + "/bundle"], 1),
    (["serve", "--demo"], 1),
    (["classify", photo, "--labels", "a", "--model", out + "/nothing"], 1),
):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        found = cli.main(arguments)
    assert found == code, (arguments, found, said.getvalue())
    if arguments[0] == "export":
        assert "vlrt[export]" in said.getvalue(), said.getvalue()
    if arguments[0] == "serve":
        assert "vlrt[server]" in said.getvalue(), said.getvalue()
print("ran")
"""


def run(script, *arguments):
    return run_without(ABSENT, script, *arguments)


@pytest.fixture
def root(request):
    """The bundle that comes with vlrt; a tiny one where a checkout does not hold it yet."""
    shipped = demo.bundle("clip")
    return shipped if shipped.is_dir() else request.getfixturevalue("tiny_bundle")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(picture("RGB", (400, 300)), "JPEG"))
    return path


def test_the_whole_runtime_runs_on_its_own_dependencies(root, photo):
    done = run(RUN, root, photo)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ran\n"


def test_the_commands_run_on_the_runtimes_dependencies(root, photo, tmp_path):
    done = run(COMMANDS, root, photo, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ran\n"


def test_importing_vlrt_imports_neither_the_engine_nor_the_hub():
    script = "import vlrt; print({'onnxruntime', 'huggingface_hub', 'tqdm'} & set(sys.modules))"
    done = run(script)
    assert done.stdout == "set()\n", done.stderr


# --- read, not run --------------------------------------------------------------------------------


def imports(name):
    """Top-level names of all that a file imports, whether at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            (given,) = node.args
            found |= {given.value.partition(".")[0]} if isinstance(given, ast.Constant) else set()
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_only_what_the_runtime_may(name):
    allowed = {"vlrt", "numpy", "PIL", "tokenizers", *sys.stdlib_module_names}
    if name == "session.py":
        allowed.add("onnxruntime")
    if name == "hub.py":
        allowed.add("huggingface_hub")
    if name == "jpeg.py":
        allowed.add("simplejpeg")  # where it is installed
    if name.startswith("server/"):
        allowed |= SERVER
    assert imports(name) <= allowed


def test_the_engine_and_the_hub_have_one_file_each():
    for module, file in (("onnxruntime", "session.py"), ("huggingface_hub", "hub.py")):
        assert [name for name in FILES if module in imports(name)] == [file]


@pytest.mark.parametrize("name", FILES)
def test_no_file_evaluates_code_or_unpickles(name):
    tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call)
              and isinstance(n.func, ast.Name)}  # fmt: skip
    assert not called & {"eval", "exec", "__import__", "compile"}
    assert not imports(name) & {"pickle", "shelve", "marshal"}
