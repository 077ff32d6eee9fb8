"""A run that is cut off loses nothing, and goes on only as what it was."""

import json

import pytest

from vlrt.errors import BenchmarkError, OptionError
from vlrt_benchmarks.journal import Journal, beside

PLAN = {"model": "clip", "batches": [1, 8]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "result.json.partial"


def made_once(value):
    left = [value]
    return left.pop


def never():
    raise AssertionError("it was measured already")


@pytest.mark.parametrize("values", [{}, {"a": 1}, {"a": [0.1, 0.2], "b": None, "c": {"d": "ä"}}])
def test_what_was_kept_is_there_again(path, values):
    with Journal(path, PLAN) as journal:
        for key, value in values.items():
            assert journal.keep(key, made_once(value)) == value
            assert journal.keep(key, never) == value
    with Journal(path, PLAN) as journal:
        assert {key: journal.keep(key, never) for key in values} == values
        assert not journal.held("another")


def test_a_value_is_on_disk_before_the_next_is_made(path):
    with Journal(path, PLAN) as journal:
        journal.keep("a", made_once(1))
        assert json.loads(path.read_text().splitlines()[-1]) == {"key": "a", "value": 1}
        with pytest.raises(KeyboardInterrupt):
            journal.keep("b", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        assert not journal.held("b")
        assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_line_that_was_cut_off_is_measured_again(path, cut):
    with Journal(path, PLAN) as journal:
        journal.keep("a", made_once(1))
        journal.keep("b", made_once(2))
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path, PLAN) as journal:
        assert journal.keep("a", never) == 1
        assert journal.keep("b", made_once(3)) == 3
    with Journal(path, PLAN) as journal:
        assert (journal.keep("a", never), journal.keep("b", never)) == (1, 3)


def test_another_plan_does_not_go_on_and_is_not_lost(path):
    with Journal(path, PLAN) as journal:
        journal.keep("a", made_once(1))
    before = path.read_bytes()
    with pytest.raises(BenchmarkError, match=r"batches was \[1, 8\], is \[1\].*--fresh"):
        Journal(path, {**PLAN, "batches": [1]})
    assert path.read_bytes() == before
    with Journal(path, {"batches": [1]}, fresh=True) as journal:
        assert not journal.held("a")


def test_two_runs_do_not_share_a_file(path):
    pytest.importorskip("fcntl", reason="Windows locks no files this way")
    with Journal(path, PLAN) as journal:
        journal.keep("a", made_once(1))
        with pytest.raises(BenchmarkError, match=r"another run writes .*result\.json"):
            Journal(path, PLAN)
        journal.keep("b", made_once(2))
    with Journal(path, PLAN) as journal:
        assert (journal.keep("a", never), journal.keep("b", never)) == (1, 2)


def test_one_that_holds_no_values_stands_in_nobodys_way(path):
    Journal(path, PLAN).__exit__(None, None, None)
    with Journal(path, {"batches": [1]}) as journal:
        journal.keep("a", made_once(1))
    with Journal(path, {"batches": [1]}) as journal:
        assert journal.keep("a", never) == 1


def test_it_stands_beside_the_result_under_a_name_of_its_own(tmp_path):
    assert beside(tmp_path / "x.json") == tmp_path / "x.partial"


@pytest.mark.parametrize("content", ["no JSON\n", "[]\n", '{"key": "a"}\n', '{"plan": 3}\n'])
def test_what_is_no_journal_is_left_alone(path, content):
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(BenchmarkError, match="is not what a benchmark left behind"):
        Journal(path, PLAN)
    assert path.read_text() == content


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="file/result"):
        Journal(tmp_path / "file" / "result", PLAN)


def test_nothing_is_left_of_a_run_that_is_done(path):
    with Journal(path, PLAN) as journal:
        journal.keep("a", made_once(1))
        journal.done()
    assert not path.exists()
