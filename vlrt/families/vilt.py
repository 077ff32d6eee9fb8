"""ViLT: one transformer over a picture and a text: answers, matches, comparisons, missing words.

Agrees with `transformers/models/vilt/modeling_vilt.py` and, in the scores of answers, with
`pipelines/visual_question_answering.py` of transformers 5.0 (gone from 5.23). What a checkpoint
can do is what it was trained for: its `config.json` says so in `architectures`.
"""

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypedDict, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlrt.bundle import Bundle
from vlrt.checks import checked_count
from vlrt.errors import BundleError, OptionError, TextError
from vlrt.files import Settings
from vlrt.image import ImageInput
from vlrt.joint import JointGraph
from vlrt.labels import open_tokenizer
from vlrt.levels import takes_bytes
from vlrt.ops import sigmoid, softmax, top_k
from vlrt.ragged import RaggedProcessor
from vlrt.results import Answers, Classification, Matches
from vlrt.session import Runner
from vlrt.stream import Several, Stream, as_given, check_several, collected, is_list, listed, mapped
from vlrt.tasks import AXES, METHODS, class_names, task
from vlrt.warmup import Warmable

if TYPE_CHECKING:
    from typing import Unpack  # from Python 3.11 on

__all__ = ["COMPONENTS", "AskOptions", "Model", "image_processor", "task"]

COMPONENTS = ("model",)

Logits = NDArray[np.float32]


class AskOptions(TypedDict, total=False):
    """What `ask` takes beside pictures and questions."""

    top_k: int
    truncate: bool
    batch_size: int


def image_processor(settings: Settings) -> RaggedProcessor:
    """What turns pictures into `pixel_values` and `pixel_mask`."""
    return RaggedProcessor.from_settings(settings)


class Model(Warmable):
    """A ViLT model. Safe to share between threads: it holds nothing of a call.

    Each checkpoint serves one of the methods `ask`, `match`, `compare` and `fill`; the others say
    so.

    Args:
        bundle: its description.
        sessions: a runner for each of `COMPONENTS`.
        info: what `load` decided, for the reader.
        values: empty; every number of these models is in their graphs.

    Attributes:
        methods: the one that the checkpoint serves.

    Raises:
        OptionError: there are values.
        BundleError: `config.json` does not say what the model is for, or lacks the words of its
            answers; or the picture is not cut to whole patches.
    """

    def __init__(
        self,
        bundle: Bundle,
        sessions: Mapping[str, Runner],
        *,
        info: Mapping[str, Any],
        values: Mapping[str, float],
    ) -> None:
        if values:
            raise OptionError(f"this family takes no values; given: {', '.join(sorted(values))}")
        self.info = dict(info)
        self.processor = image_processor(bundle.preprocessor)
        if takes_bytes(self.info):
            self.processor = self.processor.as_bytes()
        self.tokenizer = open_tokenizer(bundle, self.info)
        self._name, self._task = bundle.name, task(bundle.config)
        self.methods = (METHODS[self._task],)
        patch = bundle.config.need("patch_size")
        if not isinstance(patch, int) or patch < 1:
            raise BundleError(
                f"{bundle.config.file}: patch_size is {patch!r}; valid: a whole number of 1 or more"
            )
        if self.processor.size_divisor % patch:
            raise BundleError(
                f"{bundle.preprocessor.file}: size_divisor is {self.processor.size_divisor}; "
                f"valid: a multiple of the model's patch_size, {patch}"
            )
        axes, sizes = AXES[self._task], {}
        self._labels: tuple[str, ...] = ()
        if "N" in axes:
            self._labels = class_names(bundle.config)
            sizes["N"] = len(self._labels)
        self._graph = JointGraph(
            bundle.name,
            sessions["model"],
            self.tokenizer,
            self.processor,
            self.info,
            patch,
            axes,
            **sizes,
        )

    @overload
    def ask(
        self, images: Several, questions: str, **options: "Unpack[AskOptions]"
    ) -> list[Answers]: ...

    @overload
    def ask(
        self, images: Several, questions: Several, **options: "Unpack[AskOptions]"
    ) -> list[list[Answers]]: ...

    @overload
    def ask(
        self, images: ImageInput, questions: str, **options: "Unpack[AskOptions]"
    ) -> Answers: ...

    @overload
    def ask(
        self, images: ImageInput, questions: Several, **options: "Unpack[AskOptions]"
    ) -> list[Answers]: ...

    def ask(
        self,
        images: ImageInput | Several,
        questions: str | Several,
        *,
        top_k: int = 5,
        truncate: bool = False,
        batch_size: int = 8,
    ) -> Answers | list[Answers] | list[list[Answers]]:
        """Ask questions about pictures.

        A picture is decoded and processed once for all questions.

        Args:
            images: one picture, or a list or tuple of them (see `vlrt.load_image` for the kinds).
                They may differ in size.
            questions: one question, or a list of them; each is asked of every picture.
            top_k: so many of the likeliest answers, or all if there are fewer.
            truncate: cut questions that are too long instead of refusing them.
            batch_size: pairs of a picture and a question in one run of the graph.

        Returns:
            Answers for one picture and one question; a list of them if either is a list; a list for
            each picture if both are.

        Raises:
            ImageError, TextError, OptionError: bad input, named; or the model is for another task.
            InferenceError: the graph gives numbers that are not finite.
            BundleError: the graph does not give one number for each answer.
        """
        found = self.iter_ask(
            listed(images), questions, top_k=top_k, truncate=truncate, batch_size=batch_size
        )
        if isinstance(questions, str):
            first: Answers | list[Answers] = as_given(images, mapped(itemgetter(0), found))
            return first
        rows: list[Answers] | list[list[Answers]] = as_given(images, found)
        return rows

    def iter_ask(
        self,
        images: Iterable[ImageInput],
        questions: str | Iterable[str],
        *,
        top_k: int = 5,
        truncate: bool = False,
        batch_size: int = 8,
    ) -> Stream[list[Answers]]:
        """Do what `ask` does on a stream of pictures, in bounded memory.

        Options and questions are checked at once; pictures are consumed lazily, and one that cannot
        be read does not stop the others. So that like shapes share a batch, several batches of
        pictures are read before the first results come.

        Returns:
            An iterator over the pictures, in order, each with its Answers to all questions (a list
            of one for one question) or its ImageError.
        """
        self._need("ask")
        check_several(images, "iter_ask")
        number, size = checked_count("top_k", top_k), checked_count("batch_size", batch_size)
        asked, ids = self._graph.encode(questions, truncate=truncate, what="question")

        def answers(logits: Logits, question: int) -> Answers:
            # By logits: scores of very sure answers round to the same 1.
            best = _best(logits, number)
            words = tuple(self._labels[i] for i in best)
            return Answers(asked[question], words, sigmoid(logits[best]))

        return self._graph.rows(images, ids, size, answers)

    def match(
        self,
        images: ImageInput | Several,
        texts: str | Iterable[str],
        *,
        truncate: bool = False,
        batch_size: int = 8,
    ) -> Matches:
        """Score how well each picture and each text belong together.

        Args:
            images: one picture, or a list or tuple of them (see `vlrt.load_image` for the kinds).
            texts: captions, or one.
            truncate: cut texts that are too long instead of refusing them.
            batch_size: pairs of a picture and a text in one run of the graph.

        Raises:
            ImageError, TextError, OptionError: bad input, named; or the model is for another task.
            InferenceError: the graph gives numbers that are not finite.
            BundleError: the graph does not give one number for each pair.
        """
        given = texts if isinstance(texts, str) or not isinstance(texts, Iterable) else tuple(texts)
        several = listed(images)
        rows = self.iter_match(several, given, truncate=truncate, batch_size=batch_size)
        logits = np.stack(collected(rows, len(several)))
        return Matches((given,) if isinstance(given, str) else given, logits)

    def iter_match(
        self,
        images: Iterable[ImageInput],
        texts: str | Iterable[str],
        *,
        truncate: bool = False,
        batch_size: int = 8,
    ) -> Stream[Logits]:
        """Do what `match` does on a stream of pictures, in bounded memory.

        Options and texts are checked at once; pictures are consumed lazily, and one that cannot be
        read does not stop the others.

        Returns:
            An iterator over the pictures, in order, each with its row of `Matches.logits`, float32
            [texts], or its ImageError.
        """
        self._need("match")
        check_several(images, "iter_match")
        size = checked_count("batch_size", batch_size)
        _, ids = self._graph.encode(texts, truncate=truncate)
        rows = self._graph.rows(images, ids, size, lambda logits, _: float(logits[0]))
        return mapped(lambda row: np.array(row, np.float32), rows)

    def compare(
        self,
        image_a: ImageInput,
        image_b: ImageInput,
        statement: str,
        *,
        truncate: bool = False,
    ) -> Classification:
        """Score a statement about two pictures, such as "both show a dog", in NLVR2's manner.

        Args:
            image_a, image_b: the left picture and the right one; the order matters.
            statement: what may be true of them.
            truncate: cut a statement that is too long instead of refusing it.

        Returns:
            Its scores over the checkpoint's own classes, in NLVR2 "False" and "True".

        Raises:
            ImageError, TextError, OptionError: bad input, named; or the model is for another task.
            InferenceError: the graph gives numbers that are not finite.
            BundleError: the graph does not give one number for each class.
        """
        self._need("compare")
        for name, image in (("image_a", image_a), ("image_b", image_b)):
            if image is None or is_list(image):
                given = f"a list of {len(image)}" if is_list(image) else "None"
                raise OptionError(
                    f"compare takes two pictures, one as image_a and one as image_b; {name} is "
                    f"{given}"
                )
        _, ids = self._graph.encode([statement], truncate=truncate, what="statement")
        logits = self._graph.together([image_a, image_b], ids[0])
        return Classification(self._labels, softmax(logits), logits)

    def fill(
        self, image: ImageInput, text: str, *, top_k: int = 5, truncate: bool = False
    ) -> list[Answers]:
        """Find the words that are missing from a text about a picture.

        Args:
            image: one picture (see `vlrt.load_image` for the kinds).
            text: holds the tokenizer's mask token, `[MASK]`, once or more.
            top_k: so many of the likeliest words.
            truncate: cut a text that is too long instead of refusing it.

        Returns:
            Answers for each mask, in order. The words are the vocabulary's own: one that starts
            with `##` goes on from the word before.

        Raises:
            ImageError, TextError, OptionError: bad input, named; or the model is for another task.
            InferenceError: the graph gives numbers that are not finite.
            BundleError: the graph does not give numbers for each token, or the tokenizer has no
                mask token.
        """
        self._need("fill")
        number = checked_count("top_k", top_k)
        if is_list(image):
            raise OptionError(f"fill takes one picture, not a list of {len(image)}")
        _, ids = self._graph.encode([text], truncate=truncate)
        mask = self.tokenizer.special_id("mask_token")
        gaps = [position for position, token in enumerate(ids[0]) if token == mask]
        if not gaps:
            raise TextError(
                f"there is no {self.tokenizer.token(mask)} among the {len(ids[0])} tokens of the "
                f"text, so nothing to fill: {text!r:.60}"
            )

        def answers(logits: Logits, _: int) -> list[Answers]:
            return [self._words(text, scores, number) for scores in softmax(logits[gaps])]

        return as_given(image, mapped(itemgetter(0), self._graph.rows([image], ids, 1, answers)))

    def _words(self, text: str, scores: Logits, number: int) -> Answers:
        best = _best(scores, number)
        return Answers(text, tuple(self.tokenizer.token(int(i)) for i in best), scores[best])

    @property
    def _reads_together(self) -> bool:
        return True

    @property
    def _takes_several(self) -> bool:
        return not {"compare", "fill"} & set(self.methods)

    def _needed_text(self) -> str:
        if "fill" in self.methods:
            return self.tokenizer.token(self.tokenizer.special_id("mask_token"))
        return "a"

    def _run(self, pictures: list[Image.Image], text: str) -> object:
        if "compare" in self.methods:
            return self.compare(pictures[0], pictures[0], text)
        if "fill" in self.methods:
            return self.fill(pictures[0], text)
        return getattr(self, self.methods[0])(pictures, text, batch_size=len(pictures))

    def _need(self, method: str) -> None:
        if method not in self.methods:
            raise OptionError(
                f"{self._name} was trained for {self._task}, which {method} does not do; valid: "
                f"{', '.join(self.methods)}"
            )


def _best(numbers: Logits, number: int) -> NDArray[np.intp]:
    """Positions of the highest numbers, best first; equal ones keep their order."""
    return top_k(numbers, number)
