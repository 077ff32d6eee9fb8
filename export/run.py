"""One export: build every variant, prove it, judge it, and try again what does not pass."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlrt import bundle, hardware
from vlrt.bundle import FOR_CUDA, FORMS, PORTABLE
from vlrt.describe import largest_error, lowest_cosine
from vlrt.errors import BundleError, GateError, InferenceError
from vlrt.files import read_settings
from vlrt.kernels import products_saturate
from vlrt.load import import_family
from vlrt.session import Session, place

from . import accuracy, for_cuda, gates, manifest, reference, similarity, verify
from .checkpoint import Checkpoint
from .ladder import Ladder
from .precision import IN_FORMS, Recipe
from .preparation import Preparation
from .recipes import Workshop, producer, save, save_beside
from .samples import Samples

Arrays = dict[str, NDArray[Any]]
Say = Callable[[str], None]


@dataclass
class Report:
    """What an export did.

    Attributes:
        path: the bundle.
        written: the precisions in it.
        refused: precision, or its form as in "fp16 for cuda", -> why it was not written.
        verified: whether PyTorch was there to compare with.
    """

    path: Path
    written: list[str] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)
    verified: bool = True


@dataclass(frozen=True)
class Options:
    """What the caller wants of the variants.

    Attributes:
        quality: one of `gates.QUALITIES`.
        weight_bits: of int8 weights.
    """

    quality: str
    weight_bits: int


class Run:
    """One export under way.

    Args:
        checkpoint: what is exported.
        family: its module in `export`.
        root: the bundle's directory, with an empty directory `onnx`.
        given: to verify on, and to take scales from.
        options: see `Options`.
        say: takes a line of progress.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        family: Any,
        root: Path,
        given: Samples,
        options: Options,
        say: Say,
    ) -> None:
        self.checkpoint, self.family, self.root, self.say = checkpoint, family, root, say
        self.given, self.options = given, options
        checkpoint.write_settings(root)
        self.runtime = import_family(checkpoint.model_type)
        self.task: str = self.runtime.task(read_settings(root, "config.json"))
        family.check(checkpoint)
        self.values: dict[str, float] = family.values(checkpoint)
        self.at_once: int = family.at_once(checkpoint.config)
        self.threads = hardware.available_cpus()
        self.exact_products = options.weight_bits > 7 and products_saturate()
        self.workshop = Workshop(family, checkpoint, root.parent, self.open, say)
        prepare = Preparation(family, self.runtime, root)
        self.tokenizer = prepare.tokenizer
        images, texts = family.samples(checkpoint, given.images, given.texts)
        self.inputs = prepare.inputs(images, texts)
        self.inputs_for_cuda = prepare.inputs(images, texts, form=FOR_CUDA)
        # Alone, a sample is not padded to the size of others: this is what is timed.
        self.single = prepare.inputs(*family.samples(checkpoint, images[:1], texts[:1]))
        self.calibration: dict[str, list[Arrays]] = {component: [] for component in self.inputs}
        if given.calibration_images:
            more = family.samples(checkpoint, given.calibration_images, given.calibration_texts)
            self.calibration = {
                component: alone if given.asked_for & set(self.inputs[component]) else []
                for component, alone in prepare.one_by_one(*more).items()
            }
        self.expected: dict[str, Arrays] = {}
        self.components: dict[str, dict[str, Any]] = {name: {} for name in family.COMPONENTS}
        self.quality: dict[str, dict[str, Any]] = {}
        self.recipes: dict[str, Mapping[str, Recipe]] = {}
        self.similarity: dict[str, Any] | None = None
        self.missing = reference.missing()
        if self.missing:
            self._compare_with_own_fp32()
        else:
            self._ask_reference(images, texts)
        self.accuracy = self._reference_accuracy()

    def _ask_reference(self, images: list[Image.Image], texts: list[str]) -> None:
        self.say(
            f"verifying against PyTorch on {self.given.source}: {len(images)} pictures, "
            f"{len(texts)} texts"
        )
        torch_model = self.family.Reference(self.checkpoint, self.at_once)
        made = self.family.inputs(torch_model.process(images) | torch_model.tokenize(texts))
        for component, named in self.inputs.items():
            for name, array in named.items():
                theirs = made[component][name]
                allowed = self.family.PIXELS_ABS if name == "pixel_values" else 0
                same_shape = theirs.shape == array.shape
                if not same_shape or not np.abs(theirs - array).max() <= allowed:
                    raise GateError(
                        f"{component}: transformers makes other {name} of the samples than vlrt "
                        "does from the checkpoint's own settings"
                    )
            self.expected[component] = torch_model.run(component, named)

    def _compare_with_own_fp32(self) -> None:
        self.say(
            f"WARNING: {', '.join(self.missing)} not installed: NOTHING is compared with PyTorch. "
            "Variants are compared with this export's own fp32 graph; the manifest says so. "
            'Install what verifies: pip install "vlrt[export]"'
        )
        for component, inputs in self.inputs.items():
            size = verify.slice_size(inputs, self.at_once)
            self.expected[component] = self.workshop.outputs(
                component, Recipe("fp32"), inputs, size
            )

    def _reference_accuracy(self) -> float | None:
        """How often PyTorch is right about the demonstration's scenes.

        None where scales do not come from them: it takes longer than all the rest.
        """
        calibrated = self.given.drawn and self.given.calibration_images
        if self.missing or not calibrated or accuracy.counted(self.checkpoint) is None:
            return None
        return accuracy.reference(self.checkpoint)

    def all(self, precisions: Sequence[str]) -> Report:
        """Make and judge every variant, and write the manifest."""
        report = Report(self.root, verified=not self.missing)
        for precision in precisions:
            self.say(f"{precision}: building and comparing")
            whys = self._variant(precision)
            if whys:
                report.refused[precision] = whys
                for why in whys:
                    self.say(f"{precision} REFUSED: {why}")
                continue
            report.written.append(precision)
            if precision not in IN_FORMS:
                continue
            whys = for_cuda.write(self, precision, self.recipes[precision])
            if whys:  # the variant itself is as good as it was
                report.refused[f"{precision} for {FOR_CUDA}"] = whys
                for why in whys:
                    self.say(f"{precision} for {FOR_CUDA} REFUSED: {why}")
        if report.written:
            self.similarity = similarity.write(self)
            bundle.write_manifest(self.root, manifest.content(self, report.refused))
        return report

    def _variant(self, precision: str) -> list[str]:
        """Write a variant by the first recipe that passes; why it is refused if none does."""
        recipes = {
            component: self.workshop.recipe(
                component,
                precision,
                weight_bits=self.options.weight_bits,
                inputs=inputs,
                samples=self.calibration[component],
            )
            for component, inputs in self.inputs.items()
        }
        try:
            whys, failing = self._try(precision, recipes)
            if not whys or precision == "fp32":
                return whys
            return self._try_further(precision, recipes, whys, failing)
        except (BundleError, InferenceError) as error:  # what this ONNX Runtime cannot load or run
            self.discard(precision)
            return [str(error)]

    def _try_further(
        self, precision: str, recipes: dict[str, Recipe], whys: list[str], failing: list[str]
    ) -> list[str]:
        """Write a variant that was refused by the next recipe that passes."""
        samples = {
            component: alone or list(verify.slices(self.inputs[component], size=1))
            for component, alone in self.calibration.items()
        }
        ladder = Ladder(self.workshop, recipes, samples)
        while whys:
            self.say(f"  not yet: {'; '.join(whys)}")
            if not ladder.climb(failing):
                return whys + ladder.told()
            whys, failing = self._try(precision, ladder.recipes)
        for component, harm in ladder.harm.items():
            known = {name: error if math.isfinite(error) else None for name, error in harm.items()}
            self.components[component][precision]["sensitivity"] = known
        return []

    def _try(self, precision: str, recipes: Mapping[str, Recipe]) -> tuple[list[str], list[str]]:
        """Build a variant, and keep it if it passes.

        Returns:
            Why it does not, and the components that do not by themselves.
        """
        outputs: Arrays = {}
        made: dict[str, dict[str, Any]] = {}
        for component, recipe in recipes.items():
            found, made[component] = self._write(component, precision, recipe)
            outputs |= found
        quality = self.judge(outputs)
        gate = gates.gate(self.task, precision, self.options.quality)
        forms = {f"{c}, {form}": e[form] for c, e in made.items() for form in FORMS if form in e}
        whys = gates.complaints(gate, {**made, **forms}, quality)
        if not whys and self.accuracy is not None:  # it takes longest
            quality["accuracy"] = self._accuracy(precision, self.accuracy)
            whys = gates.complaints(gate, made, quality)
        if whys:
            self.discard(precision)
            counted = {"agreement": None}
            return whys, [c for c in made if gates.complaints(gate, {c: made[c]}, counted)]
        for component, entry in made.items():
            self.components[component][precision] = entry
        self.quality[precision], self.recipes[precision] = quality, recipes
        return [], []

    def judge(self, outputs: Arrays) -> dict[str, Any]:
        """How good the results are that all components' outputs for all samples come to."""
        expected = {k: v for arrays in self.expected.values() for k, v in arrays.items()}
        quality: dict[str, Any] = self.family.quality(
            outputs, expected, self.values, self.inputs, self.tokenizer
        )
        return quality

    def _accuracy(self, precision: str, of_reference: float) -> dict[str, Any]:
        """How often a variant that is written is right about drawn scenes, beside PyTorch."""
        reached = accuracy.variant(self.root, precision, self.values)
        compared = accuracy.compared(self.checkpoint, of_reference, reached)
        self.say(f"  {compared['of']}: {reached:.1%}, PyTorch {of_reference:.1%}")
        return compared

    def discard(self, precision: str, *forms: str) -> None:
        """Delete the graphs of a precision, or those of some of its forms."""
        for component in self.components:
            for form in forms or ("", *FORMS):
                name = bundle.graph_file(component, precision, form)
                for file in (name, f"{name}_data"):
                    (self.root / file).unlink(missing_ok=True)

    def _write(
        self, component: str, precision: str, recipe: Recipe
    ) -> tuple[Arrays, dict[str, Any]]:
        """Write a component's graph; what it gives, and its entry in the manifest."""
        path = self.root / bundle.graph_file(component, precision)
        graph = self.workshop.build(component, recipe)
        files = save(graph.model(producer()), path)
        session = self.open(path)
        found, proof = self.prove(component, session, files)
        entry = {
            **proof,
            "recipe": recipe.describe(graph.weights),
            "speed": verify.speed(session, self.single[component], self.threads, "cpu"),
        }
        if precision in IN_FORMS:
            beside = self.root / bundle.graph_file(component, precision, PORTABLE)
            plain = self.workshop.build(component, replace(recipe, form=PORTABLE))
            shared = save_beside(plain.model(producer()), beside, path)
            _, entry[PORTABLE] = self.prove(component, self.open(beside), shared, for_cuda.FEW)
        size = sum((path.parent / file).stat().st_size for file in files)
        self.say(
            f"  onnx/{path.name}: {size / 1e6:.1f} MB, lowest cosine "
            f"{lowest_cosine(entry['parity'])}, largest error "
            f"{largest_error(entry['parity']):.1e}, {entry['speed']['median_ms']:.1f} ms"
        )
        return found, entry

    def prove(
        self,
        component: str,
        session: Session,
        files: list[str],
        number: int | None = None,
        *,
        form: str = "",
    ) -> tuple[Arrays, dict[str, Any]]:
        """What a graph gives for the samples, or the first `number`, and how that compares."""
        given = (self.inputs_for_cuda if form == FOR_CUDA else self.inputs)[component]
        inputs = {name: array[:number] for name, array in given.items()}
        expected = {name: array[:number] for name, array in self.expected[component].items()}
        size = verify.slice_size(inputs, self.at_once)
        found, repeatable = verify.run_twice(session, inputs, size)
        return found, {
            "files": [f"onnx/{file}" for file in files],
            "parity": verify.parity(found, expected),
            "repeatable": repeatable,
        }

    def open(self, path: Path) -> Session:
        """A graph, on the CPU."""
        return Session(path, place("cpu"), threads=self.threads, exact_products=self.exact_products)
