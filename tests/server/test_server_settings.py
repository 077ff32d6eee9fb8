"""Settings: what is valid, where it comes from, and that it can be written down and read again."""

import json
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("pydantic", reason="the settings are its models")

from hypothesis import given
from hypothesis import strategies as st

from vlrt.errors import OptionError
from vlrt.server import layers
from vlrt.server.settings import MASK, ModelSettings, Settings, name_of

KEY = "correct horse battery staple".replace(" ", "-")
OTHER = "another-key-of-enough-characters"


def read(flags=None, environment=None, config=None):
    given = {key: (value, f"--{key}") for key, value in (flags or {}).items()}
    return layers.read(given, environment or {}, config)


def file_of(tmp_path, text):
    path = tmp_path / "serve.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(flags=None, environment=None, config=None):
    with pytest.raises(OptionError) as caught:
        read(flags, environment, config)
    return str(caught.value)


def test_flags_win_over_the_environment_and_that_over_the_file_and_that_over_defaults(tmp_path):
    config = file_of(tmp_path, "lanes = 2\nmax_images = 3\nport = 1000\n")
    found = read({"port": "3000"}, {"VLRT_SERVE_PORT": "2000", "VLRT_SERVE_LANES": "4"}, config)
    assert (found.settings.port, found.settings.lanes) == (3000, 4)
    assert (found.settings.max_images, found.settings.max_labels) == (3, 1000)
    assert [found.origins[key] for key in ("port", "lanes", "max_images", "max_labels")] == [
        "--port", "VLRT_SERVE_LANES", config, "default",
    ]  # fmt: skip


def test_the_environment_names_the_file_unless_a_flag_does(tmp_path):
    config = file_of(tmp_path, "port = 1000\n")
    assert read(environment={"VLRT_SERVE_CONFIG": config}).settings.port == 1000
    other = tmp_path / "other.toml"
    other.write_text("port = 1001\n")
    assert read(environment={"VLRT_SERVE_CONFIG": config}, config=str(other)).settings.port == 1001


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("example.org", ["example.org"]),
        ("Example.org, *.example.net:8443", ["example.org", "*.example.net:8443"]),
        ('["a.example", "b.example"]', ["a.example", "b.example"]),
        ("[]", []),
    ],
)
def test_lists_in_the_environment_are_json_or_separated_by_commas(text, hosts):
    assert read(environment={"VLRT_SERVE_URL_HOSTS": text}).settings.url_hosts == hosts


def test_models_in_the_environment_are_named_sources_or_json():
    found = read(environment={"VLRT_SERVE_MODELS": "b32=some/where, openai/clip"}).settings.models
    assert [(model.name, model.source) for model in found] == [
        ("b32", "some/where"), ("clip", "openai/clip"),
    ]  # fmt: skip
    text = json.dumps([{"source": "a/b", "threads": 2, "values": {"logit_scale": 100}}])
    (model,) = read(environment={"VLRT_SERVE_MODELS": text}).settings.models
    assert (model.name, model.threads, model.values) == ("b", 2, {"logit_scale": 100.0})


def test_models_in_a_file_are_tables_with_all_that_can_be_said_of_one(tmp_path):
    config = file_of(
        tmp_path,
        '[[models]]\nsource = "a/b"\n\n[[models]]\nname = "x"\nsource = "c"\nprecision = "fp32"\n'
        'providers = ["CPUExecutionProvider"]\nthreads = 1\nrevision = "main"\noffline = true\n'
        'decode = "fast"\nspinning = true\nmax_batch = 4\nvalues = { logit_scale = 2.5 }\n'
        'memory_limit = 2048\ncuda_graph = true\nengine_cache = "engines"\n',
    )
    first, second = read(config=config).settings.models
    assert first == ModelSettings(source="a/b", name="b")
    assert second == ModelSettings(
        name="x", source="c", precision="fp32", providers=["CPUExecutionProvider"], threads=1,
        revision="main", offline=True, decode="fast", spinning=True, max_batch=4,
        values={"logit_scale": 2.5}, memory_limit=2048, cuda_graph=True, engine_cache="engines",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("owner/name", {"source": "owner/name"}),
        ("b32=owner/name", {"name": "b32", "source": "owner/name"}),
        ("b32=in/a=b", {"name": "b32", "source": "in/a=b"}),
        ("in/a=b", {"source": "in/a=b"}),
        ("=a", {"source": "=a"}),
    ],
)
def test_what_stands_before_an_equals_sign_is_a_name_if_it_can_be_one(text, model):
    assert layers.model_of(text) == model


def test_a_model_is_called_as_its_source_ends(tmp_path, monkeypatch):
    assert [name_of(text) for text in ("owner/name", "in/dir/", "dir")] == ["name", "dir", "dir"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert name_of(".") == "here"


@pytest.mark.parametrize(
    ("key", "value", "valid"),
    [
        ("port", "65536", "a whole number from 0 to 65535"),
        ("port", "-1", "a whole number from 0 to 65535"),
        ("port", "http", "a whole number from 0 to 65535"),
        ("port", "80.5", "a whole number from 0 to 65535"),
        ("max_delay_ms", "-0.1", "a number from 0 to 10000"),
        ("max_delay_ms", "nan", "a number from 0 to 10000"),
        ("deadline_s", "0", "a number above 0"),
        ("deadline_s", "inf", "a number above 0"),
        ("work_threads", "0", "a whole number from 1 to 1024"),
        ("lanes", "0", "a whole number from 1 to 64"),
        ("max_images", "-3", "a whole number of 1 or more"),
        ("queue_length", "0", "a whole number of 1 or more"),
        ("label_cache_mib", "-1", "a number of 0 or more"),
        ("page", "perhaps", "true or false"),
        ("log_level", "loud", "debug, info, warning, error"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_place_and_the_valid_ones(key, value, valid):
    variable = f"VLRT_SERVE_{key.upper()}"
    assert refused({key: value}) == f"--{key}: {key} is '{value}'; valid: {valid}"
    assert refused(environment={variable: value}) == (
        f"{variable}: {key} is '{value}'; valid: {valid}"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("port = 65536", "port is 65536; valid: a whole number from 0 to 65535"),
        ("port = true", "port is true; valid: a whole number from 0 to 65535"),
        ("page = 3", "page is 3; valid: true or false"),
        ("url_hosts = 'example.org'", "url_hosts is 'example.org'; valid: a list of texts"),
        ("url_hosts = [3]", "url_hosts, entry 1 is 3; valid: a list of texts"),
        ("host = ' '", "host: an empty text is none"),
        ("max_delay = 3", "max_delay is not known; did you mean max_delay_ms?"),
        ("max-images = 3", "max-images is not known; did you mean max_images?"),
        ("zzz = 3", "zzz is not known; valid: host, port, "),
        ("model = []", "model is not known; did you mean models?"),
        ("models = ['a']", "models, entry 1 is 'a'; valid: a list of tables"),
        ("[models]\nsource = 'a'", "models is {'source': 'a'}; valid: a list of tables"),
        ("[[models]]\nname = 'a'", "source of model 1 is missing; valid: a text"),
        ("[[models]]\nsource = ''", "source of model 1: an empty text is none"),
        ("[[models]]\nsource = 3", "source of model 1 is 3; valid: a text"),
        ("[[models]]\nsource='a'\nthread = 1", "thread is not known; did you mean threads?"),
        ("[[models]]\nsource='a'\nthreads = 0", "threads of model 1 is 0; valid: a whole number"),
        ("[[models]]\nsource='a'\ndecode = 'lossy'", "valid: exact, fast"),
        ("[[models]]\nsource='a'\nname = 'a b'", "'a b' cannot be a model's name; valid: up to"),
        ("[[models]]\nsource='a'\nname = 'a/b'", "'a/b' cannot be a model's name; valid: up to"),
        (
            "[[models]]\nsource='a'\nvalues = {x = 'y'}",
            "values of model 1, entry 'x' is 'y'; valid: a table of numbers",
        ),
        ("[[models]]\nsource='x/a'\n[[models]]\nsource='y/a'", "two models are called 'a'"),
        (
            "[[models]]\nsource='x/a'\n[[models]]\nsource='y/a.text_model'",
            "'a.text_model' could be a graph of the model 'a'",
        ),
    ],
)
def test_a_mistake_in_a_file_is_told_with_the_file_and_the_key(tmp_path, text, told):
    config = file_of(tmp_path, text)
    message = refused(config=config)
    assert message.startswith(f"{config}: ")
    assert told in message


def test_every_mistake_is_told_at_once(tmp_path):
    message = refused({"port": "x"}, {"VLRT_SERVE_LANES": "y"}, file_of(tmp_path, "page = 3"))
    assert all(key in message for key in ("--port: port", "VLRT_SERVE_LANES: lanes", "page is 3"))


@pytest.mark.parametrize(
    ("variable", "near"),
    [
        ("VLRT_SERVE_PROT", "VLRT_SERVE_PORT"),
        ("VLRT_SERVE_API_KEY", "VLRT_SERVE_API_KEYS"),
        ("VLRT_SERVE_CONFIGURATION", "VLRT_SERVE_CONFIG"),
        ("VLRT_SERVE_port", "VLRT_SERVE_PORT"),
    ],
)
def test_a_variable_that_is_not_known_is_refused_with_the_nearest(variable, near):
    message = refused(environment={variable: "1"})
    assert f"{variable} is not known" in message
    assert near in message


def test_other_programs_variables_are_let_be():
    assert read(environment={"VLRT_PORT": "1", "PORT": "x", "vlrt_serve_port": "1"}) == read()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ([""], "a key of 0 characters; valid: 16 or more"),
        (["fifteen-letters"], "a key of 15 characters; valid: 16 or more"),
        ([KEY, "short"], "a key of 5 characters"),
        ([MASK], f"{MASK} only stands for a key that --show-config did not print"),
        (["a key with a space in it"], "a space or a character that no HTTP header can carry"),
        (["schlüssel-mit-umlaut"], "a space or a character that no HTTP header can carry"),
    ],
)
def test_keys_that_protect_nothing_or_cannot_be_sent_are_refused_and_not_shown(keys, told):
    message = refused({"api_keys": keys})
    assert told in message
    assert message.startswith("--api_keys: api_keys: ")
    assert not any(key in message for key in keys if key and key not in (MASK, "short"))


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"VLRT_SERVE_API_KEYS": f'["{KEY}", {{"{KEY}": 1}}]'}, ""),
        ({"VLRT_SERVE_API_KEYS": f'["{KEY}"'}, ""),
        ({}, f'api_keys = "{KEY}"'),
        ({}, f'api_keys = [["{KEY}"]]'),
    ],
)
def test_errors_do_not_show_keys(tmp_path, environment, text):
    message = refused(environment=environment, config=file_of(tmp_path, text))
    assert "API_KEYS" in message or "api_keys" in message
    assert KEY not in message
    assert KEY not in repr(read({"api_keys": [KEY]}))


def test_a_variable_that_is_empty_is_no_open_server():
    assert "a key of 0 characters" in refused(environment={"VLRT_SERVE_API_KEYS": ""})


def test_every_site_together_with_keys_is_refused():
    assert read({"cors_origins": ["*"]}).settings.cors_origins == ["*"]
    message = refused({"cors_origins": ["*"], "api_keys": [KEY]})
    assert message.startswith("--cors_origins: cors_origins: '*' does not go together with api_key")


@pytest.mark.parametrize(
    "origin", ["https://a.example/", "https://a.example/x", "a.example", "ftp://a.example",
               "https://", "https://u@a.example", "HTTPS://A.EXAMPLE?x", ""],
)  # fmt: skip
def test_origins_are_scheme_and_host_alone(origin):
    assert "is no origin" in refused({"cors_origins": [origin]})
    assert read({"cors_origins": ["http://localhost:3000"]}).settings.cors_origins


@pytest.mark.parametrize(
    "host", ["https://a.example", "a.example/x", "*", "u@a.example", "a.example:0",
             "a.example:70000", "a b", "", "a..example", "*.*.example", "-a.example", "[::1]"],
)  # fmt: skip
def test_hosts_of_pictures_are_hosts_alone(host):
    message = refused({"url_hosts": [host]})
    assert "valid: 'example.org'" in message or "valid: 1 to 65535" in message


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"port = ", "is not TOML"), (b"port = 1\nport = 2", "is not TOML"), (b"\xff", "is not TOML")],
)
def test_a_file_that_is_not_toml_is_named(tmp_path, content, told):
    path = tmp_path / "serve.toml"
    path.write_bytes(content)
    message = refused(config=str(path))
    assert told in message
    assert str(path) in message


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "missing.toml' cannot be read" in refused(config=str(tmp_path / "missing.toml"))
    assert "cannot be read" in refused(config=str(tmp_path))


def test_settings_made_directly_look_nowhere_else(monkeypatch):
    monkeypatch.setenv("VLRT_SERVE_PORT", "1")
    assert Settings().port == 8000


def test_keys_are_masked_where_settings_are_shown_and_refused_when_read_back(tmp_path):
    lines = list(layers.shown(read({"api_keys": [KEY, OTHER]})))
    assert f'api_keys = ["{MASK}", "{MASK}"]  # --api_keys' in lines
    assert KEY not in "\n".join(lines)
    message = refused(config=file_of(tmp_path, "\n".join(lines)))
    assert "only stands for a key that --show-config did not print" in message


def test_each_line_that_is_shown_says_where_it_came_from(tmp_path):
    config = file_of(tmp_path, 'lanes = 2\n[[models]]\nsource = "a/b"\n')
    lines = list(layers.shown(read({"port": "1"}, {"VLRT_SERVE_PAGE": "no"}, config)))
    for line in (
        "port = 1  # --port", "page = false  # VLRT_SERVE_PAGE", f"lanes = 2  # {config}",
        "max_images = 16  # default", f'source = "a/b"  # {config}', 'device = "auto"  # default',
    ):  # fmt: skip
        assert line in lines
    assert all(line.count("  # ") == 1 for line in lines if " = " in line and line[0] != "#")


TEXTS = st.text(min_size=1, max_size=20).filter(str.strip)
SMALL = st.integers(1, 60)
NUMBERS = st.floats(min_value=1e-3, max_value=1e4)
MODELS = st.fixed_dictionaries(
    {"source": TEXTS, "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,12}", fullmatch=True)},
    optional={
        "precision": TEXTS, "providers": st.lists(TEXTS, max_size=3), "threads": SMALL,
        "revision": TEXTS, "offline": st.booleans(), "decode": st.sampled_from(["exact", "fast"]),
        "values": st.dictionaries(st.text(max_size=8), NUMBERS, max_size=3),
    },
)  # fmt: skip
SETTINGS = st.fixed_dictionaries(
    {"models": st.lists(MODELS, max_size=3, unique_by=lambda model: model["name"])},
    optional={
        "host": TEXTS, "port": st.integers(0, 65535), "max_delay_ms": NUMBERS, "lanes": SMALL,
        "work_threads": SMALL, "deadline_s": NUMBERS, "page": st.booleans(),
        "url_hosts": st.lists(st.sampled_from(["a.example", "*.b.example:8443"])),
        "log_level": st.sampled_from(["debug", "warning"]),
    },
)  # fmt: skip


@given(SETTINGS, st.text(max_size=12))
def test_what_is_shown_makes_the_same_settings_when_given_back(values, origin):
    shown = layers.shown(layers.read({key: (value, origin) for key, value in values.items()}, {}))
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "serve.toml"
        config.write_bytes("\n".join(shown).encode())
        assert layers.read({}, {}, str(config)).settings == Settings(**values)
