"""What to try when a variant was refused: which layers hurt, and recipes that spare them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .precision import Recipe
from .recipes import Workshop

# What a refused variant leaves in fp32, one try after the other: so much of its layers, those that
# hurt most first. Beyond a quarter it is hardly faster than fp32 any more.
SHARES_KEPT = (1 / 16, 1 / 8, 1 / 4)
# Samples that tell the layers of a refused variant apart.
_TELLING = 4
_NAMED = 5  # of the layers that hurt most

Arrays = Mapping[str, NDArray[Any]]


class Ladder:
    """The recipes for a variant that was refused, from the fastest to the most exact.

    Args:
        workshop: builds and runs graphs.
        recipes: component -> the recipe that was refused.
        samples: component -> single samples, not padded, to tell its layers apart.

    Attributes:
        recipes: component -> what to try now.
        harm: component -> layer -> how much it hurts, as far as that was asked; the worst first.
    """

    def __init__(
        self,
        workshop: Workshop,
        recipes: Mapping[str, Recipe],
        samples: Mapping[str, Sequence[Arrays]],
    ) -> None:
        self._workshop, self._samples = workshop, samples
        self.recipes = dict(recipes)
        self.harm: dict[str, dict[str, float]] = {}
        self._steps: dict[str, Iterator[Recipe]] = {}

    def climb(self, failing: Sequence[str]) -> bool:
        """Go on to the next recipes.

        Args:
            failing: the components that are not exact enough by themselves. None, if they fail only
                together: then it is one of them, the first with recipes left among those whose
                layers hurt most.

        Returns:
            False if there are none left.
        """
        for component in failing or self.recipes:
            if component not in self.harm:
                self._measure(component)
        if failing:
            return all(self._step(component) for component in failing)
        worst_first = sorted(self.harm, key=lambda c: -max(self.harm[c].values(), default=0.0))
        return any(self._step(component) for component in worst_first)

    def told(self) -> list[str]:
        """Which layers hurt most, a line for each component that was asked."""
        return [
            f"{component}: the layers that hurt most, each alone: {_worst_layers(harm)}"
            for component, harm in self.harm.items()
        ]

    def _measure(self, component: str) -> None:
        recipe, few = self.recipes[component], self._samples[component][:_TELLING]
        graph = self._workshop.build(component, recipe)
        harm = measure_harm(self._workshop, component, recipe, few, graph.weights)
        self.harm[component] = harm
        self._steps[component] = next_recipes(recipe, harm, graph.unsmoothed)
        self._workshop.say(f"  {self.told()[-1]}")

    def _step(self, component: str) -> bool:
        following = next(self._steps[component], None)
        if following is None:
            return False
        more = following.more_than(self.recipes[component])
        self._workshop.say(f"  {component}: next, {more}")
        self.recipes[component] = following
        return True


def measure_harm(
    workshop: Workshop,
    component: str,
    recipe: Recipe,
    samples: Sequence[Arrays],
    names: Sequence[str],
) -> dict[str, float]:
    """How much each layer of a variant hurts: the error with this one alone as the recipe says.

    Args:
        workshop: builds and runs graphs.
        component: one of the family's.
        recipe: of the variant.
        samples: the component's, of any sizes.
        names: the graph's layers and tables.

    Returns:
        Layer or table -> how far the output that suffers most is from that of the fp32 graph, as a
        share of its size; the worst first, infinite where there is not a number.
    """
    asked = [name for name in names if recipe.of(name) == recipe.precision]
    workshop.say(f"  {component}: trying {len(asked)} layers one by one")
    wanted = workshop.each_output(component, Recipe("fp32"), samples)
    found = {}
    for name in asked:
        alone = recipe.keeping(frozenset(names) - {name})
        outputs = workshop.each_output(component, alone, samples)
        errors = [_share(outputs[output], wanted[output]) for output in wanted]
        found[name] = float(np.nan_to_num(np.max(errors), nan=np.inf, posinf=np.inf))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def next_recipes(
    recipe: Recipe, harm: Mapping[str, float], unsmoothed: frozenset[str]
) -> Iterator[Recipe]:
    """What to try after a recipe that was refused, the fastest first.

    Args:
        recipe: the one that was refused.
        harm: of its layers, the worst first.
        unsmoothed: its layers whose input no layer before them smooths.

    Yields:
        Of calibrated int8, the recipe with those of the worst layers smoothed that are not; then in
        any precision recipes that leave more and more of the worst layers in fp32.
    """
    if recipe.calibration is not None:
        rough = unsmoothed & _worst(harm, SHARES_KEPT[-1])
        if rough:
            recipe = replace(recipe, smoothed=rough)
            yield recipe
    for share in SHARES_KEPT:
        yield recipe.keeping(_worst(harm, share))


def _worst(harm: Mapping[str, float], share: float) -> frozenset[str]:
    """So much of the layers, at least one: those that hurt most."""
    return frozenset(list(harm)[: max(1, round(len(harm) * share))])


def _worst_layers(harm: Mapping[str, float]) -> str:
    named = list(harm.items())[:_NAMED]
    return ", ".join(f"{layer} ({error:.2%})" for layer, error in named)


def _share(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The length of an error, as a share of what it is an error of."""
    size = float(np.linalg.norm(expected))
    return float(np.linalg.norm(found - expected)) / (size or 1.0)
