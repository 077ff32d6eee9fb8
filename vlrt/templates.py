"""Prompt templates for zero-shot classification.

A label's embedding is the mean over its templates, each of length 1, scaled back to length 1
(Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision",
section 3.1.4).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from vlrt.checks import per_label
from vlrt.errors import OptionError, TextError
from vlrt.files import text_lines

# Prompts for all labels, or a mapping from every label to its own.
Templates: TypeAlias = Iterable[str] | Mapping[str, Iterable[str]]

# The 80 prompts with which the paper's ImageNet accuracies were measured, as OpenAI published them.
IMAGENET_TEMPLATES: tuple[str, ...] = tuple(
    line.strip()
    for line in """
    a bad photo of a {}.
    a photo of many {}.
    a sculpture of a {}.
    a photo of the hard to see {}.
    a low resolution photo of the {}.
    a rendering of a {}.
    graffiti of a {}.
    a bad photo of the {}.
    a cropped photo of the {}.
    a tattoo of a {}.
    the embroidered {}.
    a photo of a hard to see {}.
    a bright photo of a {}.
    a photo of a clean {}.
    a photo of a dirty {}.
    a dark photo of the {}.
    a drawing of a {}.
    a photo of my {}.
    the plastic {}.
    a photo of the cool {}.
    a close-up photo of a {}.
    a black and white photo of the {}.
    a painting of the {}.
    a painting of a {}.
    a pixelated photo of the {}.
    a sculpture of the {}.
    a bright photo of the {}.
    a cropped photo of a {}.
    a plastic {}.
    a photo of the dirty {}.
    a jpeg corrupted photo of a {}.
    a blurry photo of the {}.
    a photo of the {}.
    a good photo of the {}.
    a rendering of the {}.
    a {} in a video game.
    a photo of one {}.
    a doodle of a {}.
    a close-up photo of the {}.
    a photo of a {}.
    the origami {}.
    the {} in a video game.
    a sketch of a {}.
    a doodle of the {}.
    a origami {}.
    a low resolution photo of a {}.
    the toy {}.
    a rendition of the {}.
    a photo of the clean {}.
    a photo of a large {}.
    a rendition of a {}.
    a photo of a nice {}.
    a photo of a weird {}.
    a blurry photo of a {}.
    a cartoon {}.
    art of a {}.
    a sketch of the {}.
    a embroidered {}.
    a pixelated photo of a {}.
    itap of the {}.
    a jpeg corrupted photo of the {}.
    a good photo of a {}.
    a plushie {}.
    a photo of the nice {}.
    a photo of the small {}.
    a photo of the weird {}.
    the cartoon {}.
    art of the {}.
    a drawing of the {}.
    a photo of the large {}.
    a black and white photo of a {}.
    the plushie {}.
    a dark photo of a {}.
    itap of a {}.
    graffiti of the {}.
    a toy {}.
    itap of my {}.
    a photo of a cool {}.
    a photo of a small {}.
    a tattoo of the {}.
    """.strip().splitlines()
)


def fill(templates: Iterable[str], label: str) -> list[str]:
    """Put a label into each template, in place of its `{}`.

    Raises:
        TextError: there is no template, or one does not have exactly one `{}`.
    """
    return [template.replace("{}", label) for template in _checked(templates)]


def fill_all(templates: Templates, labels: Sequence[str]) -> list[list[str]]:
    """Put each label into each template or, given a mapping, into each of its own.

    Raises:
        TextError: there is no template, or one does not have exactly one `{}`.
        OptionError: a label is not in the mapping, or something else is.
    """
    if isinstance(templates, Mapping):
        own = per_label("templates", templates, labels)
        return [fill(prompts, label) for prompts, label in zip(own, labels, strict=True)]
    shared = _checked(templates)
    return [fill(shared, label) for label in labels]


def _checked(templates: Iterable[str]) -> tuple[str, ...]:
    given = () if isinstance(templates, str) or not isinstance(templates, Iterable) else templates
    prompts = tuple(given)
    if not prompts:
        raise TextError(
            f"templates must be a list of strings with one {{}} each: {templates!r:.60}"
        )
    for template in prompts:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise TextError(f"a template must be a string with exactly one {{}}: {template!r:.60}")
    return prompts


def read(name_or_file: str) -> tuple[str, ...]:
    """The templates called "imagenet", or those of a text file, one a line.

    Raises:
        OptionError: it is neither; an empty file counts as neither.
    """
    if name_or_file == "imagenet":
        return IMAGENET_TEMPLATES
    try:
        templates = tuple(text_lines(name_or_file))
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"templates {name_or_file!r}: valid are 'imagenet' and a UTF-8 text file, one template "
            f"with one {{}} a line ({error})"
        ) from error
    if not templates:
        raise OptionError(f"templates {name_or_file!r}: the file holds none")
    return templates
