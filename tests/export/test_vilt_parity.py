"""ViLT against transformers: the logits of every task, for pictures of any shape."""

import shutil
from functools import lru_cache

import numpy as np
import pytest
from checkpoints import VILT_TASKS, read_json, write_vilt_checkpoint
from pictures import FILES, picture
from tolerances import BATCHING_ABS, VILT_ABS, VILT_ORDER_ABS, VILT_UNIT

import vlrt
from vlrt.ops import sigmoid, softmax
from vlrt.session import Session, place

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnx")

from vlrt_export import pipeline, reference, vilt  # noqa: E402
from vlrt_export.checkpoint import Checkpoint  # noqa: E402
from vlrt_export.precision import Recipe  # noqa: E402
from vlrt_export.samples import Samples  # noqa: E402

pytestmark = pytest.mark.torch

QUESTION, RETRIEVAL, PAIR, WORDS = VILT_TASKS
SHAPES = [(32, 32), (32, 48), (48, 32), (8, 48), (48, 8), (40, 24)]  # in patches of 8
TINY = {
    "as it is": {},
    "quick_gelu and other heads": {"hidden_act": "quick_gelu", "num_attention_heads": 4},
    "no biases, one layer": {"qkv_bias": False, "num_hidden_layers": 1},
    "a large epsilon": {"layer_norm_eps": 0.1},
    "one position": {"image_size": 8},
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # handing such small work to others takes longer than doing it
    yield
    torch.set_num_threads(threads)


@pytest.fixture(
    scope="module",
    params=[(task, name) for task in VILT_TASKS for name in TINY if task == QUESTION]
    + [(task, name) for task in VILT_TASKS for name in list(TINY)[:2] if task != QUESTION],
    ids=str,
)
def root(request, tmp_path_factory):
    task, name = request.param
    return write_vilt_checkpoint(tmp_path_factory.mktemp("vilt"), task, **TINY[name])


def given(root, shapes, lengths, seed=0):
    """Inputs of a batch: noise of these shapes, padded to the largest, and ids of these lengths."""
    rng, config = np.random.default_rng(seed), read_json(root / "config.json")
    each = max(1, config["num_images"])
    # The second picture of a pair has the shape of the next pair's first.
    shapes = [shapes[(i + j) % len(shapes)] for i in range(len(shapes)) for j in range(each)]
    height, width = (max(shape[axis] for shape in shapes) for axis in (0, 1))
    pixels = np.zeros((len(shapes), 3, height, width), np.float32)
    mask = np.zeros((len(shapes), height, width), np.int64)
    for row, (h, w) in enumerate(shapes):
        pixels[row, :, :h, :w] = rng.normal(0, 1, (3, h, w))
        mask[row, :h, :w] = 1
    seen = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    ids = rng.integers(5, config["vocab_size"], seen.shape) * seen
    made = {"input_ids": ids, "attention_mask": seen, "pixel_values": pixels, "pixel_mask": mask}
    return vilt.inputs(made)["model"]


@lru_cache
def runner(root, precision, *, masked=True):
    opened = Checkpoint("tiny", root)
    recipe = Recipe(precision, vilt.KEEP_FP32.get(precision, frozenset()))
    path = root / f"{precision}_{masked}.onnx"
    if not path.exists():
        made = vilt.build(opened, "model", recipe, masked=masked).model("test")
        path.write_bytes(made.SerializeToString())
    return Session(path, place("cpu"), threads=1)


def run(root, inputs, precision="fp32", **options):
    return runner(root, precision, **options).run(inputs)["logits"]


@lru_cache
def torch_model(root):
    return vilt.Reference(Checkpoint("tiny", root))


def theirs(root, inputs):
    return torch_model(root).run("model", inputs)["logits"]


def error(found, expected):
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / max(1, np.abs(expected).max())


# --- graphs ---------------------------------------------------------------------------------------


BATCHES = {
    "of one": [([shape], [1 + 3 * n]) for n, shape in enumerate(SHAPES[:5])] + [(SHAPES[5:], [16])],
    "of like shapes": [([(40, 24)] * 3, [7, 7, 7])],
    "padded": [(SHAPES, [3, 12, 7, 16, 1, 9])],
}


@pytest.mark.parametrize("kind", BATCHES)
def test_logits_agree(root, kind):
    for shapes, lengths in BATCHES[kind]:
        inputs = given(root, shapes, lengths)
        expected = theirs(root, inputs)
        for precision, allowed in VILT_UNIT.items():
            assert error(run(root, inputs, precision), expected) <= allowed, (precision, shapes)


def test_logits_say_something(root):
    """So that the tests above cannot pass for want of differences."""
    inputs = given(root, SHAPES, [3, 12, 7, 16, 1, 9])
    logits = theirs(root, inputs)
    assert logits.std(axis=0).mean() > 0.05
    assert logits.std() > 0.1
    # Positions stretched over the padding as well, and padding attended to.
    whole = inputs | {"pixel_mask": np.ones_like(inputs["pixel_mask"])}
    assert error(run(root, whole), logits) > 0.01
    longer = inputs | {"attention_mask": np.ones_like(inputs["attention_mask"])}
    assert error(run(root, longer), logits) > 0.01


def test_padding_does_not_reach_the_others(root):
    shapes, lengths = SHAPES[:3], [3, 12, 7]
    inputs = given(root, shapes, lengths)
    together = run(root, inputs)
    for row, (length, logits) in enumerate(zip(lengths, together, strict=True)):
        pixels, mask = (inputs[name][row] for name in ("pixel_values", "pixel_mask"))
        whole = mask.any(axis=0) if mask.ndim == 3 else mask
        height, width = whole.any(axis=1).sum(), whole.any(axis=0).sum()
        alone = {name: inputs[name][row : row + 1, :length] for name in list(inputs)[:3]}
        alone["pixel_values"] = pixels[None, ..., :height, :width]
        alone["pixel_mask"] = mask[None, ..., :height, :width]
        found = run(root, alone)[0]
        cut = logits[:length] if logits.ndim == 2 else logits
        assert np.abs(found - cut).max() <= 10 * BATCHING_ABS["fp32"]


@pytest.mark.parametrize("size", [32, 104])
def test_without_a_mask_batches_without_padding_are_the_same(tmp_path, size):
    """The larger one runs in another kernel, which takes no mask."""
    root = write_vilt_checkpoint(tmp_path, image_size=size)
    level, ragged = given(root, [(40, 24)] * 2, [5, 5]), given(root, SHAPES[:2], [5, 9])
    kinds = [
        node.op_type
        for node in vilt.build(Checkpoint("tiny", root), "model", Recipe("fp32"), masked=False)
        .model("test")
        .graph.node
    ]
    assert ("MultiHeadAttention" in kinds) == (size > 32)
    expected = theirs(root, level)
    assert error(run(root, level, masked=False), expected) <= VILT_UNIT["fp32"]
    assert error(run(root, ragged, masked=False), theirs(root, ragged)) > 1e-3


def test_the_order_of_patches_does_not_matter(tmp_path):
    """transformers shuffles patches and this graph does not."""
    root = write_vilt_checkpoint(tmp_path)
    model = vilt.Reference(Checkpoint("tiny", root)).model
    inputs = {name: torch.from_numpy(array) for name, array in given(root, SHAPES, [5] * 6).items()}
    embeddings, orders, logits = model.vilt.embeddings, [], []
    for seed in range(3):
        with torch.inference_mode():
            torch.manual_seed(seed)
            *_, (order, _) = embeddings.visual_embed(
                inputs["pixel_values"], inputs["pixel_mask"], max_image_length=-1
            )
            torch.manual_seed(seed)
            logits.append(model(**inputs).logits.numpy())
            orders.append(order.numpy())
    for order, found in zip(orders[1:], logits[1:], strict=True):
        assert not np.array_equal(order, orders[0])
        assert np.abs(found - logits[0]).max() <= VILT_ORDER_ABS


def test_a_limit_of_patches_makes_transformers_random(tmp_path):
    """Why such checkpoints are refused."""
    root = write_vilt_checkpoint(tmp_path, max_image_length=6)
    model = vilt.Reference(Checkpoint("tiny", root))
    logits = []
    for seed in range(2):
        torch.manual_seed(seed)
        logits.append(model.run("model", given(root, [(32, 48)], [5]))["logits"])
    assert np.abs(logits[0] - logits[1]).max() > 0.01


@pytest.mark.parametrize("shared", [True, False])
def test_the_decoder_of_words_may_be_the_token_table_or_its_own(tmp_path, shared):
    from safetensors.numpy import load_file, save_file

    root = write_vilt_checkpoint(tmp_path, WORDS)
    weights = load_file(root / "model.safetensors")
    table = weights["vilt.embeddings.text_embeddings.word_embeddings.weight"]
    weights["mlm_score.decoder.weight"] = table.copy() if shared else table[::-1].copy()
    save_file(weights, root / "model.safetensors", metadata={"format": "pt"})
    inputs = given(root, SHAPES[:2], [5, 9])
    assert error(run(root, inputs), theirs(root, inputs)) <= VILT_UNIT["fp32"]


def test_a_bias_of_words_under_its_old_name_is_used(tmp_path):
    """As transformers 4 saved it, which held it twice and stored it once."""
    from safetensors.numpy import load_file, save_file

    root = write_vilt_checkpoint(tmp_path, WORDS)
    inputs = given(root, SHAPES[:2], [5, 9])
    before = run(root, inputs)
    weights = load_file(root / "model.safetensors")
    weights["mlm_score.bias"] = weights.pop("mlm_score.decoder.bias")
    renamed = tmp_path / "renamed"
    shutil.copytree(root, renamed)
    save_file(weights, renamed / "model.safetensors", metadata={"format": "pt"})
    (renamed / "fp32_True.onnx").unlink()
    assert np.array_equal(run(renamed, inputs), before)
    assert np.abs(weights["mlm_score.bias"]).max() > 0.01
    assert error(before, theirs(renamed, inputs)) <= VILT_UNIT["fp32"]


# --- from pictures and texts to results -----------------------------------------------------------


class Theirs:
    """A checkpoint in transformers, with its own processors."""

    def __init__(self, root):
        self.model = vilt.Reference(Checkpoint("theirs", root)).model
        self.processor = transformers.ViltProcessor(
            reference.pil_processor_class("Vilt").from_pretrained(root),
            transformers.AutoTokenizer.from_pretrained(root),
        )

    def inputs(self, images, texts):
        return self.processor(images, texts, padding=True, truncation=True, return_tensors="pt")

    def logits(self, images, texts):
        """A picture with each text, or, of a model for two, both pictures with one text."""
        made = self.inputs(images, texts)
        if self.model.config.num_images == 2:
            made = {k: v[None] if k.startswith("pixel") else v for k, v in made.items()}
        with torch.inference_mode():
            return self.model(**made).logits.numpy()


def export(root, out, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "missing", lambda: ["torch"])
        some = {"calibrate": Samples([picture("RGB", (50, 40))], ["a cat"])}
        pipeline.export(
            str(root), out, precisions=["fp32"], say=lambda line: None, **some | options
        )
    return vlrt.load(out, device="cpu")


@pytest.fixture(scope="module", params=VILT_TASKS)
def pair(request, tmp_path_factory):
    """A tiny checkpoint here and in transformers."""
    folder = tmp_path_factory.mktemp("pair")
    root = write_vilt_checkpoint(folder / "checkpoint", request.param, vocabulary_alone=True)
    return export(root, folder / "bundle"), Theirs(root), request.param


RESULTS = ["rgb portrait", "RGBA landscape", "exif 6", "CMYK", "grey jpeg"]


@pytest.mark.parametrize("kind", RESULTS)
def test_pictures_and_texts_give_the_same_results(pair, kind):
    model, theirs, task = pair
    source, other = FILES[kind](), picture("RGB", (20, 70))
    image, text = vlrt.load_image(source), "a red [MASK] of the cat 7?"
    expected = theirs.logits([image, other] if task == PAIR else [image], [text])
    if task == QUESTION:
        found = model.ask(source, text, top_k=11)
        scores = sigmoid(expected[0])
        words = read_words(theirs)
        order = np.argsort(-scores, kind="stable")
        assert list(found.answers) == [words[i] for i in order]
        assert np.abs(found.scores - scores[order]).max() <= VILT_ABS["fp32"]
    elif task == RETRIEVAL:
        found = model.match(source, [text])
        assert np.abs(found.logits - expected).max() <= VILT_ABS["fp32"]
    elif task == PAIR:
        found = model.compare(source, other, text)
        assert np.abs(found.scores - softmax(expected[0])).max() <= VILT_ABS["fp32"]
    else:
        (found,) = model.fill(source, text, top_k=3)
        at = theirs.processor.tokenizer(text)["input_ids"].index(4)
        scores = softmax(expected[0, at])
        best = np.argsort(-scores, kind="stable")[:3]
        assert list(found.answers) == theirs.processor.tokenizer.convert_ids_to_tokens(best)
        assert np.abs(found.scores - scores[best]).max() <= VILT_ABS["fp32"]


def read_words(theirs):
    return [theirs.model.config.id2label[i] for i in range(len(theirs.model.config.id2label))]


# --- full size ------------------------------------------------------------------------------------

SIZES_WH = [(640, 480), (480, 640), (500, 500), (1600, 200), (200, 1600), (900, 500)]
QUESTIONS = [
    "How many cats are there?",
    "What colour is the car on the left?",
    "Is it raining?",
    "Where?",
    "What does the man in the red coat hold in his hand, and who is beside him?",
    "Which sport is this?",
]


@pytest.fixture(scope="module")
def full(data, tmp_path_factory):
    """The hub's files with seeded weights: a bundle of every precision, and the checkpoint."""
    folder = tmp_path_factory.mktemp("full")
    root = folder / "snapshot"
    shutil.copytree(data / "vilt-b32-finetuned-vqa", root, copy_function=shutil.copyfile)
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(root)
    model = transformers.ViltForQuestionAnswering(config).eval()
    with torch.no_grad():
        for name, part in model.named_parameters():
            if name.endswith(("position_embeddings", "cls_token")):
                part.normal_(0, 0.5)  # transformers starts them at 0; large ones show mistakes
        last = model.classifier[3]
        last.weight.normal_(0, last.in_features**-0.5)
    model.save_pretrained(folder / "weights")
    (folder / "weights" / "model.safetensors").rename(root / "model.safetensors")
    images = [picture("RGB", size) for size in SIZES_WH]
    report = pipeline.export(
        str(root), folder / "bundle", calibrate=Samples(images, QUESTIONS), say=print
    )
    yield folder / "bundle", root, report
    shutil.rmtree(folder)


@pytest.mark.full
def test_every_precision_passes_its_gate_at_full_size(full):
    bundle, _, report = full
    assert (report.written, report.refused, report.verified) == (["fp32", "fp16", "int8"], {}, True)
    verified = read_json(bundle / "vlrt.json")["verified"]
    assert (verified["pixel_values"], verified["input_ids"]) == ("bit-exact", "bit-exact")


@pytest.mark.full
def test_logits_agree_at_full_size_one_by_one_and_padded(full, data):
    bundle, root, _ = full
    theirs, session = Theirs(root), Session(bundle / "onnx/model.onnx", place("cpu"), threads=2)
    photograph = vlrt.load_image(min((data / "photos").iterdir()))
    images = [picture("RGB", size) for size in SIZES_WH]
    batches = [([image], [text]) for image, text in zip(images, QUESTIONS, strict=True)]
    batches += [(images, QUESTIONS), ([photograph], QUESTIONS[:1])]
    for pictures, questions in batches:
        inputs = {k: v.numpy() for k, v in theirs.inputs(pictures, questions).items()}
        found = session.run(inputs)["logits"]
        expected = theirs.logits(pictures, questions)
        assert found.shape == expected.shape == (len(pictures), 3129)
        assert np.abs(found - expected).max() <= VILT_ABS["fp32"]


@pytest.mark.full
def test_answers_are_the_same_at_full_size(full):
    bundle, root, _ = full
    theirs, model = Theirs(root), vlrt.load(bundle, precision="fp32", device="cpu")
    words = read_words(theirs)
    for size, question in zip(SIZES_WH, QUESTIONS, strict=True):
        image = picture("RGB", size)
        scores = sigmoid(theirs.logits([image], [question])[0])
        found = model.ask(image, question, top_k=5)
        assert found.best[0] == words[scores.argmax()]
        assert np.abs(found.scores - np.sort(scores)[::-1][:5]).max() <= VILT_ABS["fp32"]
