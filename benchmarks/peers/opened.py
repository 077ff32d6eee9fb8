"""A bundle as vlrt's contenders open it: its graphs, image processor and tokenizer. No engine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import Arrays

if TYPE_CHECKING:
    from vlrt.bundle import Bundle


def parts(family: Any, bundle: "Bundle") -> tuple[str, ...]:
    """The graphs of a bundle, each a stage.

    Raises:
        BundleError: it is not made of the family's own, but of one graph for all, say.
    """
    from vlrt.errors import BundleError
    from vlrt.load import components_of

    components = components_of(family, bundle)
    if components != family.COMPONENTS:
        raise BundleError(
            f"{bundle.name} is made of {', '.join(components)}; stages are measured apart, which "
            f"takes a bundle made of {', '.join(family.COMPONENTS)}: export one with `vlrt export`"
        )
    return components


class Opened:
    """A bundle's graphs, chosen and set as `vlrt.load` does, and what goes with them.

    Args:
        bundle: its directory.
        precision: of the graphs.
        device: "cpu" or "cuda".
        threads: inside an operator.
        names: of the graphs to open.
        more: what `vlrt.load` takes beside these, for a GPU.

    Raises:
        BundleError: it is not made of the family's own graphs.
    """

    def __init__(
        self,
        bundle: Path,
        precision: str,
        device: str,
        threads: int,
        names: Sequence[str],
        more: Mapping[str, Any] | None = None,
    ) -> None:
        from vlrt.bundle import open_bundle
        from vlrt.choice import choose_precision
        from vlrt.kernels import int8_kernels
        from vlrt.labels import open_tokenizer
        from vlrt.load import import_family
        from vlrt.session import Session, place

        self.bundle, self.threads = open_bundle(bundle), threads
        family = import_family(str(self.bundle.config["model_type"]))
        self.processor = family.image_processor(self.bundle.preprocessor)
        self.tokenizer = open_tokenizer(self.bundle)
        if device != "cpu":
            parts(family, self.bundle)
            self.graphs = _loaded(bundle, precision, device, threads, more or {}) if names else {}
            return
        placement = place(device)
        components = parts(family, self.bundle)
        choice = choose_precision(
            self.bundle, components, precision, placement.kind, int8_kernels()
        )
        files = self.bundle.fetch(components, choice.precision, form=choice.form)
        self.graphs = {
            name: Session(
                files[name], placement, threads=threads, exact_products=choice.exact_products
            )
            for name in names
        }

    def processed(self, pictures: Sequence[Any]) -> Arrays:
        """RGB pictures, one after the other, each resized in all threads."""
        from vlrt.ragged import RaggedProcessor

        if isinstance(self.processor, RaggedProcessor):
            return self.processor.batch(
                [self.processor.pixels(one, threads=self.threads) for one in pictures]
            )
        pixels = self.processor.empty(len(pictures))
        for picture, slot in zip(pictures, pixels, strict=True):
            self.processor.into(picture, slot, self.threads)
        return {"pixel_values": pixels}

    def read(self, paths: Sequence[str], decode: str) -> Arrays:
        """Files, decoded and processed as the models do it: several at once, in threads."""
        from vlrt.ahead import read_each
        from vlrt.ragged import RaggedProcessor
        from vlrt.stream import collected, read_batches

        info = {"threads": self.threads, "decode": decode}
        if isinstance(self.processor, RaggedProcessor):
            stream = read_each(paths, self.processor, len(paths), info)
            return self.processor.batch(collected(stream, len(paths)))
        batch = next(read_batches(paths, self.processor, max(2, len(paths)), info))
        for error in filter(None, batch.errors):
            raise error
        return {"pixel_values": batch.pixel_values}


def _loaded(
    bundle: Path, precision: str, device: str, threads: int, more: Mapping[str, Any]
) -> dict[str, Any]:
    """The sessions of a model that `vlrt.load` loads: on a GPU it decides more than which file."""
    import vlrt

    held: dict[str, Any] = {}
    vlrt.load(
        bundle,
        precision=precision,
        device=device,
        threads=threads,
        wrap=held.setdefault,
        **more,
    )
    return held
