"""The error tree: as documented, all of one root, all reachable; and the public names."""

import builtins
import inspect
import re

import pytest

import vlrt
from vlrt import errors

CLASSES = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}
LINE = re.compile(r"^(?P<indent>[│├└─ ]*)(?P<name>\w+)(?: \((?P<builtin>\w+)\))?")


def documented():
    """name -> (parent, builtin), read off the drawing in the module's docstring."""
    tree, path = {}, []
    for line in errors.__doc__.split("```")[1].strip().splitlines():
        found = LINE.match(line)
        depth = len(found["indent"]) // 4
        path[depth:] = [found["name"]]
        tree[found["name"]] = (path[depth - 1] if depth else None, found["builtin"])
    return tree


def test_the_drawn_tree_holds_every_class_and_no_other():
    assert set(documented()) == set(CLASSES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_class_stands_where_it_is_drawn(name):
    parent, builtin = documented()[name]
    kind = CLASSES[name]
    assert issubclass(kind, vlrt.VlrtError)
    if parent is not None:
        assert CLASSES[parent] in kind.__bases__
    if builtin is not None:
        assert getattr(builtins, builtin) in kind.__bases__
    assert kind.__doc__


def test_an_absent_extra_says_how_to_install_it():
    error = errors.ExtraMissingError("vlrt export", "export", "onnx")
    assert str(error) == (
        "vlrt export needs the package 'onnx', which is not installed; "
        'install the extra that has it: pip install "vlrt[export]"'
    )


def test_the_public_names_are_sorted_and_there():
    # Capitals, classes, dunders, then the rest: the order in which ruff sorts `__all__`.
    assert len(set(vlrt.__all__)) == len(vlrt.__all__)
    assert sorted(vlrt.__all__) == sorted(set(vlrt.__all__))
    assert all(hasattr(vlrt, name) for name in vlrt.__all__)


def test_nothing_else_is_public():
    public = {name for name in vars(vlrt) if not name.startswith("_")}
    modules = {name for name in public if inspect.ismodule(getattr(vlrt, name))}
    assert public - modules <= set(vlrt.__all__)
    assert "errors" in vlrt.__all__


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert vlrt.__version__ == version("vlrt")
