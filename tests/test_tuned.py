"""What tuning left on this machine: where it is, what a load makes of it, and what it does not."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vlrt
from vlrt import cli, hardware, kernels, session, tuned
from vlrt.bundle import open_bundle
from vlrt.errors import OptionError
from vlrt.load import decide
from vlrt.session import CPU, CUDA, OPENVINO, Placement, place
from vlrt.tuned import Conditions, Setup, Tuning

HERE = Conditions("a processor", 2, "vnni", "1.31.1")
ONE, TWO = Setup("int8", 1, CPU), Setup("int8", 2, CPU)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where tuning is kept, empty."""
    monkeypatch.setenv(tuned.VARIABLE, str(tmp_path / "tuned"))
    return tmp_path / "tuned"


def tuning(path=Path("x.json"), **changes):
    found = Tuning(path, "2026-11-21", HERE, Setup("fp32", 1, CPU), TWO, 1.31, "latency")
    return found._replace(**changes)


def here():
    """The conditions of this process."""
    return tuned.conditions(kernels.int8_kernels(), session.engine().__version__)


def write(source, *, chosen=ONE, default=TWO, conditions=None, **more):
    """Tune a bundle, as if that had been found."""
    bundle = open_bundle(source)
    path = tuned.path_of(bundle)
    made = tuning(path, chosen=chosen, default=default, conditions=conditions or here(), **more)
    tuned.write(bundle, made, rounds=5)
    return made


def loaded(source, **options):
    """What `load` decided."""
    return vlrt.load(source, **options).info


# --- where it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"HOME": "/home/me"}, "/home/me/.config/vlrt/tuned"),
        ({"HOME": "/home/me", "XDG_CONFIG_HOME": ""}, "/home/me/.config/vlrt/tuned"),
        ({"HOME": "/home/me", "XDG_CONFIG_HOME": "/settings"}, "/settings/vlrt/tuned"),
        ({"HOME": "/home/me", "XDG_CONFIG_HOME": "settings"}, "/home/me/.config/vlrt/tuned"),
        ({"XDG_CONFIG_HOME": "/settings"}, "/settings/vlrt/tuned"),
        ({"XDG_CONFIG_HOME": "/settings", "VLRT_TUNED_DIR": "/here"}, "/here"),
        ({"HOME": "/home/me", "VLRT_TUNED_DIR": ""}, "/home/me/.config/vlrt/tuned"),
        ({"HOME": "/home/me", "VLRT_TUNED_DIR": "here"}, "here"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="paths of POSIX")
def test_the_folder_is_the_users_own(monkeypatch, environment, expected):
    for name in ("HOME", "XDG_CONFIG_HOME", tuned.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if "HOME" not in environment:  # nor does the system's list of users tell
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    found = tuned.folder()
    assert found == (None if expected is None else Path(expected))


def test_on_windows_it_is_among_the_applications_data(monkeypatch, tmp_path):
    monkeypatch.delenv(tuned.VARIABLE)
    monkeypatch.setenv("APPDATA", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "win32")
    assert tuned.folder() == tmp_path / "vlrt" / "tuned"


def test_each_manifest_has_a_file_of_its_own(own_bundle, tiny_bundle, folder):
    first = tuned.path_of(open_bundle(own_bundle))
    assert first.parent == folder
    assert first == tuned.path_of(open_bundle(tiny_bundle))  # a copy, elsewhere
    manifest = own_bundle / "vlrt.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert tuned.path_of(open_bundle(own_bundle)) != first


def test_a_foreign_bundle_has_none(foreign_bundle, folder):
    bundle = open_bundle(foreign_bundle)
    assert tuned.path_of(bundle) is None
    assert tuned.find(bundle) is None
    assert tuned.forget(bundle) is None
    assert "tuned" not in loaded(foreign_bundle, values={"logit_scale": 1.0})["precision_reason"]


def test_without_a_home_nothing_is_tuned(tiny_bundle, monkeypatch):
    monkeypatch.setattr(tuned, "folder", lambda: None)
    assert tuned.find(open_bundle(tiny_bundle)) is None
    assert loaded(tiny_bundle)["threads"] == hardware.available_cpus()


# --- what is in it --------------------------------------------------------------------------------


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
SETUPS = st.builds(Setup, NAMES, st.integers(1, 512), NAMES)


@given(
    chosen=SETUPS,
    default=SETUPS,
    conditions=st.builds(Conditions, NAMES, st.integers(1, 512), NAMES, NAMES),
    gain=st.floats(1e-3, 1e3),
    aim=NAMES,
)
def test_what_is_written_is_read(tiny_bundle, tmp_path_factory, chosen, default, conditions, gain,
                                 aim):  # fmt: skip
    bundle = open_bundle(tiny_bundle)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(tuned.VARIABLE, str(tmp_path_factory.mktemp("written")))
        path = tuned.path_of(bundle)
        made = tuning(path, chosen=chosen, default=default, conditions=conditions, gain=gain,
                      aim=aim)  # fmt: skip
        tuned.write(bundle, made, more=[1])
        assert tuned.find(bundle) == made
        assert json.loads(path.read_text())["more"] == [1]
        assert tuned.forget(bundle) == path
        assert tuned.find(bundle) is None
        assert tuned.forget(bundle) is None


GOOD = {
    "format_version": 1, "date": "2026-11-21", "gain": 1.5, "aim": "latency",
    "conditions": HERE._asdict(), "chosen": ONE._asdict(), "default": TWO._asdict(),
}  # fmt: skip


def without(key):
    return {name: value for name, value in GOOD.items() if name != key}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "Expecting value"),
        ("\xff", "can't decode"),
        ("{", "Expecting property name"),
        ([], "format_version is None, not a whole number"),
        ({}, "format_version is None, not a whole number"),
        ({**GOOD, "format_version": 2}, "format_version is 2; this vlrt reads 1"),
        ({**GOOD, "format_version": True}, "format_version is True"),
        *((without(key), f"{key}.* is None, not a") for key in GOOD),
        ({**GOOD, "chosen": []}, "chosen precision is None"),
        ({**GOOD, "chosen": {**ONE._asdict(), "threads": 0}}, "chosen threads is 0, not a whole"),
        ({**GOOD, "chosen": {**ONE._asdict(), "threads": 1.5}}, "chosen threads is 1.5"),
        ({**GOOD, "default": {**ONE._asdict(), "provider": ""}}, "default provider is ''"),
        ({**GOOD, "conditions": {**HERE._asdict(), "cpus": "2"}}, "conditions cpus is '2'"),
        ({**GOOD, "gain": 0}, "gain is 0, not a number above 0"),
        ({**GOOD, "gain": "1.5"}, "gain is '1.5'"),
        ({**GOOD, "gain": float("nan")}, "gain is nan"),
        ({**GOOD, "gain": float("inf")}, "gain is inf"),
    ],
)
def test_a_broken_file_is_an_error_that_says_how_to_be_rid_of_it(
    tiny_bundle, folder, capsys, content, says
):
    path = tuned.path_of(open_bundle(tiny_bundle))
    folder.mkdir()
    raw = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(raw.encode("latin-1"))
    with pytest.raises(OptionError, match=says) as caught:
        vlrt.load(tiny_bundle)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(f"remove it: vlrt bench tune --forget {tiny_bundle}")
    # Whoever says what to load does not need it, and `vlrt info` tells all the same.
    assert loaded(tiny_bundle, precision="fp32")["precision"] == "fp32"
    assert cli.main(["info", str(tiny_bundle)]) == 0
    assert f"here        {caught.value}" in capsys.readouterr().out


def test_a_precision_that_the_bundle_lacks_is_one_too(tiny_bundle, folder):
    write(tiny_bundle, chosen=Setup("int4w", 1, CPU))
    with pytest.raises(OptionError, match=r"cannot be used: .* no precision 'int4w'; it has: fp32"):
        vlrt.load(tiny_bundle)


@pytest.mark.skipif(sys.platform == "win32", reason="a folder's permissions are POSIX's")
def test_a_folder_that_may_not_be_looked_into_is_none(tiny_bundle, folder, monkeypatch):
    write(tiny_bundle)

    def refused(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    bundle = open_bundle(tiny_bundle)
    monkeypatch.setattr(tuned, "path_of", lambda _: SimpleNamespace(stat=lambda: refused("x")))
    assert tuned.find(bundle) is None


def test_a_file_that_cannot_be_written_or_removed_says_so(tiny_bundle, folder):
    bundle = open_bundle(tiny_bundle)
    path = tuned.path_of(bundle)
    path.mkdir(parents=True)
    with pytest.raises(OptionError, match="cannot be written"):
        tuned.write(bundle, tuning(path))
    with pytest.raises(OptionError, match="cannot be removed"):
        tuned.forget(bundle)


# --- whether it holds here ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""),
        ({"processor": "another"}, "tuned on a processor, and this is another"),
        ({"cpus": 4}, "tuned with 2 CPUs, of 4 here"),
        ({"int8_kernels": "none"}, "tuned with vnni int8 kernels, which are none here"),
        ({"onnxruntime": "1.32"}, "tuned with onnxruntime 1.31.1, which is 1.32 here"),
        (
            {"cpus": 1, "onnxruntime": "1.32"},
            "tuned with 2 CPUs, of 1 here, tuned with onnxruntime 1.31.1, which is 1.32 here",
        ),
    ],
)
def test_it_holds_where_all_is_as_it_was(changes, says):
    assert tuning().misfit(HERE._replace(**changes), CPU, []) == says


@pytest.mark.parametrize(
    ("chosen", "default", "wanted", "available", "fits"),
    [
        (CPU, CPU, CPU, [], True),
        (CPU, CPU, CUDA, [], False),  # which was asked for
        (CPU, CUDA, CUDA, [], False),
        (CUDA, CPU, CUDA, [], True),
        (CPU, CPU, CPU, [CPU, CUDA], True),
        (CPU, CUDA, CUDA, [CPU, CUDA], True),  # a GPU is not always faster
        (OPENVINO, CPU, CPU, [CPU, OPENVINO], True),
        (CPU, CPU, CUDA, [CPU, CUDA], False),  # nobody measured CUDA
        (CUDA, CUDA, CPU, [CPU], False),
        (CUDA, CPU, CPU, [CPU], False),
        (CUDA, CPU, f"{CUDA} with options", [], False),
    ],
)
def test_it_moves_a_load_only_from_where_it_was_measured(chosen, default, wanted, available, fits):
    found = tuning(chosen=Setup("fp32", 1, chosen), default=Setup("int8", 2, default))
    says = found.misfit(HERE, wanted, available)
    assert says == ("" if fits else f"tuned for {chosen}, and this load is on {wanted}")


# --- what a load makes of it ----------------------------------------------------------------------


def test_untuned_nothing_changes(tiny_bundle, folder):
    info = loaded(tiny_bundle)
    assert info["threads"] == hardware.available_cpus()
    assert "tuned" not in info["precision_reason"]
    assert not folder.exists()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("options", [{}, {"device": "cpu"}, {"providers": [CPU]}])
def test_auto_takes_what_was_found(tiny_bundle, folder, precision, options):
    write(tiny_bundle, chosen=Setup(precision, 1, CPU), default=Setup("int8", 7, CPU), gain=1.314)
    info = loaded(tiny_bundle, **options)
    assert (info["precision"], info["threads"], info["provider"]) == (precision, 1, CPU)
    said = f"{precision} with 1 thread, 1.31 times as fast as the default"
    assert info["precision_reason"].startswith(f"auto: tuned on this machine on 2026-11-21: {said}")


def test_a_default_that_was_confirmed_is_told_too(tiny_bundle, folder):
    write(tiny_bundle, chosen=TWO, default=TWO, gain=1.0)
    assert loaded(tiny_bundle)["threads"] == 2
    said = "on 2026-11-21: the default, int8 with 2 threads, is as fast as any"
    assert said in loaded(tiny_bundle)["precision_reason"]


def test_another_aim_is_told(tiny_bundle, folder):
    write(tiny_bundle, aim="throughput")
    assert "on 2026-11-21 for throughput: int8" in loaded(tiny_bundle)["precision_reason"]


def test_what_the_caller_says_wins(tiny_bundle, folder):
    write(tiny_bundle, chosen=Setup("fp16", 1, CPU))
    asked = loaded(tiny_bundle, precision="fp32")
    assert (asked["precision"], asked["threads"]) == ("fp32", hardware.available_cpus())
    assert asked["precision_reason"] == "it was asked for"
    asked = loaded(tiny_bundle, threads=3)
    assert (asked["precision"], asked["threads"]) == ("fp16", 3)
    assert asked["precision_reason"].endswith("; threads=3 was given")
    assert "was given" not in loaded(tiny_bundle, threads=1)["precision_reason"]
    assert loaded(tiny_bundle, spinning=False)["spinning"] is False


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"processor": "a quick one"}, "tuned on a quick one, and this is "),
        ({"cpus": 4711}, "tuned with 4711 CPUs, of "),
        ({"int8_kernels": "other"}, "tuned with other int8 kernels, which are "),
        ({"onnxruntime": "1.0"}, "tuned with onnxruntime 1.0, which is "),
    ],
)
def test_what_was_found_elsewhere_is_told_and_not_taken(tiny_bundle, folder, capsys, changes, says):
    untuned = loaded(tiny_bundle)
    made = write(tiny_bundle, chosen=Setup("fp16", 1, CPU), conditions=here()._replace(**changes))
    info = loaded(tiny_bundle)
    assert info["precision_reason"].startswith(untuned["precision_reason"])
    assert f"; not as tuned on 2026-11-21: {says}" in info["precision_reason"]
    assert {**info, "precision_reason": ""} == {**untuned, "precision_reason": ""}
    assert cli.main(["info", str(tiny_bundle)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert f"here        {CPU}, {info['precision']} ({info['precision_reason']})" in told
    assert f"tuned       by vlrt bench tune, in {made.path}" in told


def test_info_says_whether_a_bundle_was_tuned(tiny_bundle, folder, capsys):
    assert cli.main(["info", str(tiny_bundle)]) == 0
    assert "tuned       not on this machine; vlrt bench tune" in capsys.readouterr().out
    write(tiny_bundle)
    assert cli.main(["info", str(tiny_bundle)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "threads     1" in told
    assert any(line.startswith(f"here        {CPU}, int8 (auto: tuned on this") for line in told)


def test_doctor_counts_the_bundles_that_were_tuned(tiny_bundle, folder, capsys, monkeypatch):
    def told():
        assert cli.main(["doctor"]) == 0
        return capsys.readouterr().out.splitlines()

    assert f"tuned         no bundles, in {folder}" in told()
    write(tiny_bundle)
    assert f"tuned         1 bundle, in {folder}" in told()
    monkeypatch.setattr(tuned, "folder", lambda: None)
    assert any("no home folder; set VLRT_TUNED_DIR" in line for line in told())


def test_products_that_saturate_are_exact_all_the_same(tiny_bundle, folder):
    bundle = open_bundle(tiny_bundle)
    slow = hardware.SATURATING
    conditions = here()._replace(int8_kernels=slow)
    write(tiny_bundle, conditions=conditions)
    plan = decide(bundle, ("vision_model", "text_model"), place("cpu"), slow)
    assert plan.choice.precision == "int8"
    assert plan.choice.exact_products
    assert "computed exactly, which is slow" in plan.choice.reason


@pytest.mark.parametrize(
    ("asked", "chosen", "default", "provider"),
    [
        (False, CUDA, CUDA, CUDA),
        (False, CPU, CUDA, CPU),
        (False, OPENVINO, CUDA, OPENVINO),
        (False, CPU, CPU, CUDA),
        (True, CPU, CUDA, CUDA),
    ],
)
def test_a_load_that_may_go_anywhere_goes_where_it_is_fastest(
    tiny_bundle, folder, monkeypatch, asked, chosen, default, provider
):
    fake = SimpleNamespace(
        get_available_providers=lambda: [CUDA, OPENVINO, CPU],
        InferenceSession=object,
        __version__=HERE.onnxruntime,
    )
    conditions = here()._replace(onnxruntime=HERE.onnxruntime, int8_kernels="vnni")
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    made = write(tiny_bundle, chosen=Setup("fp32", 1, chosen), default=Setup("fp16", 2, default),
                 conditions=conditions)  # fmt: skip
    placement = place("cuda" if asked else "auto")
    plan = decide(open_bundle(tiny_bundle), ("vision_model", "text_model"), placement, "vnni")
    assert plan.placement.provider == provider
    moved = provider != CUDA
    assert plan.placement.reason == (f"auto: {made}" if moved else placement.reason)
    assert plan.choice.form == {OPENVINO: "portable", CUDA: "cuda"}.get(provider, "")


def test_a_provider_with_options_of_its_own_may_be_another_device(tiny_bundle, folder):
    write(tiny_bundle, chosen=Setup("fp32", 1, OPENVINO), default=Setup("fp32", 1, OPENVINO))
    components = ("vision_model", "text_model")
    for options, fits in (({}, True), ({"device_type": "GPU"}, False)):
        placement = Placement(((OPENVINO, options),), "given")
        plan = decide(open_bundle(tiny_bundle), components, placement, kernels.int8_kernels())
        assert ("not as tuned" not in plan.choice.reason) == fits
