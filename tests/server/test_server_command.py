"""`vlrt serve` as it is typed: its flags, what it prints, what it logs, what it imports."""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi", reason="the server is built on it")
pytest.importorskip("uvicorn", reason="the server runs on it")

from server_process import COMMAND, Serving, environment, ran, serving, until
from without import run_without

import vlrt
from vlrt import cli, demo
from vlrt.server import announcing
from vlrt.server.settings import ModelSettings, Settings

KEY = "a-key-that-is-long-enough"
curls = pytest.mark.skipif(
    shutil.which("curl") is None or os.name != "posix", reason="there is no curl, or no shell"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server") / "log", "--demo") as one:
        yield one


def shell(line, **more):
    done = subprocess.run(
        ["sh", "-c", line], env=environment(**more), capture_output=True, timeout=60, check=True
    )
    return json.loads(done.stdout)


def main(monkeypatch, *arguments):
    for variable in [name for name in os.environ if name.startswith("VLRT_SERVE_")]:
        monkeypatch.delenv(variable)
    return cli.main(["serve", *arguments])


def test_the_verb_is_listed(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = " ".join(capsys.readouterr().out.split())
    assert "answer over HTTP: REST, OpenAI embeddings, Open Inference Protocol, a page" in listed


def test_every_setting_is_a_flag(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        main(monkeypatch, "--help")
    told = capsys.readouterr().out
    for key in Settings.model_fields.keys() - {"models", "api_keys", "cors_origins", "url_hosts"}:
        assert f"--{key.replace('_', '-')}" in told
    for flag in ("--api-key ", "--cors-origin ", "--url-host ", "--no-batching", "--no-page"):
        assert flag in told


def test_flags_come_to_settings(monkeypatch, capsys, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}-2\n\n{KEY}-3\n")
    status = main(
        monkeypatch, "b32=owner/clip", "--max-delay-ms", "2", "in/owl", "--no-batching",
        "--url-host", "a.example", "--url-host", "b.example", "--api-key", KEY,
        "--api-keys-file", str(keys), "--threads", "2", "--decode", "fast", "--precision", "fp32",
        "--provider", "A", "--provider", "B", "--offline", "--max-batch", "8", "--show-config",
        "--memory-limit", "2048", "--cuda-graph", "--engine-cache", "engines",
    )  # fmt: skip
    said = capsys.readouterr().out
    assert status == 0
    for line in (
        "max_delay_ms = 2.0  # --max-delay-ms", "batching = false  # --no-batching",
        'url_hosts = ["a.example", "b.example"]  # --url-host', "page = true  # default",
        'api_keys = ["********", "********", "********"]  # --api-key, --api-keys-file',
    ):  # fmt: skip
        assert line in said.splitlines()
    assert KEY not in said
    assert said.count("[[models]]") == 2
    for line in (
        'name = "b32"', 'source = "owner/clip"', 'name = "owl"', 'source = "in/owl"', "threads = 2",
        'decode = "fast"', 'precision = "fp32"', 'providers = ["A", "B"]', "offline = true",
        "spinning = false", "max_batch = 8", "memory_limit = 2048", "cuda_graph = true",
        'engine_cache = "engines"',
    ):  # fmt: skip
        assert f"\n{line}  # " in said
    assert 'name = "owl"  # default' in said  # nobody gave it: it is of the source
    assert said.count("threads = 2  # the command line") == 2


def test_the_printed_settings_given_back_are_the_same(monkeypatch, capsys, tmp_path):
    given = ("--demo", "--port", "0", "--work-threads", "3", "--no-page", "--threads", "1")
    assert main(monkeypatch, *given, "--show-config") == 0
    first = capsys.readouterr().out
    config = tmp_path / "serve.toml"
    config.write_text(first)
    assert main(monkeypatch, "--config", str(config), "--show-config") == 0
    second = capsys.readouterr().out
    values = [re.sub("  # .*", "", text) for text in (first, second)]
    assert values[0] == values[1]
    assert f"work_threads = 3  # {config}" in second
    assert all(line.endswith(f"# {config}") for line in second.splitlines() if " = " in line)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "there is no model to serve; name its SOURCE, or pass --demo"),
        (("a/b", "c/b"), "the command line: models: two models are called 'b'"),
        (("--demo", "clip-demo=x"), "two models are called 'clip-demo'"),
        (("a", "--port", "99999"), "--port: port is '99999'; valid: a whole number from 0 to"),
        (("a", "--api-key", "short"), "--api-key: api_keys: a key of 5 characters; valid: 16"),
        (("a", "--api-keys-file", "missing"), "keys file 'missing' cannot be read"),
        (("a", "--threads", "0"), "the command line: threads of model 1 is '0'; valid: a whole"),
        (("a", "--decode", "lossy"), "decode of model 1: 'lossy' is no way to decode"),
        (("a", "--cors-origin", "*", "--api-key", KEY), "--cors-origin: cors_origins: '*' does"),
        (("--threads", "1"), "--threads: only for models of the command line, and it names none"),
        (("a", "--config", "missing.toml"), "the settings file 'missing.toml' cannot be read"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(monkeypatch, capsys, tmp_path, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert main(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("vlrt serve: error: ")
    assert told in line


@pytest.mark.parametrize("arguments", [("a", "--lane", "2"), ("a", "--port"), ("a", "--nothing")])
def test_flags_that_are_none_or_cut_short_are_wrong_usage(monkeypatch, capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(monkeypatch, *arguments)
    assert caught.value.code == 2
    assert "vlrt serve: error: " in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["uvicorn", "prometheus_client", "pydantic"])
def test_a_part_of_the_extra_alone_is_told_what_is_missing(missing):
    script = "from vlrt import cli\nassert cli.main(['serve', '--demo']) == 1\nprint('ran')"
    done = run_without((missing,), script)
    assert done.stdout == "ran\n"
    assert f"vlrt serve needs the package {missing!r}" in done.stderr
    assert 'pip install "vlrt[server]"' in done.stderr


def test_variables_are_read_and_checked():
    done = ran("--demo", VLRT_SERVE_PROT="1")
    assert done.returncode == 2
    assert done.stderr == (
        "vlrt serve: error: the environment: VLRT_SERVE_PROT is not known; did you mean "
        "VLRT_SERVE_PORT?\n"
    )


def test_a_model_that_cannot_be_loaded_is_one_line_and_status_1(tmp_path):
    done = ran(str(tmp_path / "none"), "--port", "0", "--offline")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("vlrt: ")
    assert "none" in line
    assert done.stdout == ""


def test_the_start_tells_models_limits_and_address(server):
    head, *rest = server.said
    assert head.split() == ["model", "task", "precision", "provider", "threads", "serves"]
    for name, task, serves in (
        ("clip-demo", "zero-shot-image-classification", "classify, embeddings"),
        ("owlvit-demo", "zero-shot-object-detection", "detect"),
        ("vilt-demo", "visual-question-answering", "ask"),
    ):
        (row,) = [line for line in rest if line.startswith(name)]
        assert task in row
        assert "int8 (auto: " in row
        assert "CPUExecutionProvider" in row
        assert row.endswith(serves)
    (limits,) = [line for line in rest if line.startswith("limits")]
    assert "32 MiB and 16 pictures a request, 50 megapixels a picture" in limits
    assert server.url.startswith("http://127.0.0.1:")


@curls
def test_the_curl_line_works_as_it_is_printed(server):
    found = shell(server.curl)
    assert found["model"] == "clip-demo"
    assert found["results"][0]["labels"][0]["label"] == "an orange diamond"
    assert "warning" not in server.errors()


@curls
@pytest.mark.parametrize("family", ["owlvit", "vilt"])
def test_the_curl_line_works_with_keys_at_every_address_for_what_is_loaded(tmp_path, family):
    model, about = vlrt.load(demo.bundle(family)), announcing.example(demo.bundle(family))
    if family == "owlvit":
        expected = model.detect(about.picture, about.labels).to_dict()
        assert expected["detections"]
    else:
        expected = [model.ask(about.picture, about.question).to_dict()]
    given = (f"mine={demo.bundle(family)}", "--host", "0.0.0.0", "--api-key", KEY)
    with serving(tmp_path / "log", *given) as one:
        assert KEY not in "\n".join(one.said)
        assert one.url.startswith("http://127.0.0.1:")
        answer = shell(one.curl, VLRT_KEY=KEY)
        assert answer["model"] == "mine"
        assert answer["results"] == [expected]
        assert shell(one.curl, VLRT_KEY="wrong")["error"] == "AccessError"
        errors = one.errors()
    assert "warning" not in errors
    assert KEY not in errors


def test_listening_beyond_this_machine_without_keys_is_warned_of(tmp_path):
    with serving(tmp_path / "log", "--demo", "--host", "0.0.0.0", "--log-level", "error") as one:
        (line,) = one.errors().splitlines()
    assert line.startswith("vlrt: warning: it listens at 0.0.0.0, beyond this machine, and has no")


def test_a_picture_that_is_not_theirs_is_what_other_models_are_asked_about(tmp_path):
    assert announcing.example(tmp_path / "clip").picture == "photo.jpg"
    assert announcing.example(demo.bundle("clip")).picture.endswith("shape-1.jpg")
    assert announcing.example(demo.bundle("vilt")).question == "how many purple objects are there?"


@pytest.mark.parametrize(
    ("tasks", "ending"),
    [
        ({"match"}, "/v1/match -F model=m -F image=@photo.jpg -F 'text=what is in the picture?'"),
        (
            {"embeddings"},
            "/v1/embeddings -H 'Content-Type: application/json' -d '"
            + json.dumps({"model": "m", "input": ["a cat", "a dog"]})
            + "'",
        ),
        (set(), "/v2/models/m"),
    ],
)
def test_the_curl_line_of_models_that_serve_one_thing_alone(tasks, ending):
    settings = Settings(models=[ModelSettings(name="m", source="a/b")])
    catalogue = [SimpleNamespace(name="m", tasks=tasks)]
    assert announcing.curl(settings, catalogue, "http://h:1") == f"curl -s http://h:1{ending}"


@pytest.mark.parametrize(
    ("tasks", "page", "serves", "browser"),
    [
        ({"ask"}, True, "ask", True),
        ({"ask"}, False, "ask", False),
        ({"embeddings"}, True, "embeddings", False),
        (set(), True, "its graphs alone, at /v2", False),
    ],
)
def test_the_start_tells_what_only_v2_serves_and_whether_a_browser_helps(
    tasks, page, serves, browser
):
    settings = Settings(models=[ModelSettings(name="m", source="a/b")], page=page)
    info = dict.fromkeys(("task", "precision", "precision_reason", "provider", "threads"), "x")
    catalogue = [SimpleNamespace(name="m", tasks=tasks, info=info)]
    lines = list(announcing.announcement(settings, catalogue, "http://h:1"))
    (row,) = [line for line in lines if line.startswith("m ")]
    assert row.endswith(f"  {serves}")
    assert ("browser" in "".join(lines)) == browser


def test_requests_are_logged_a_line_each_without_keys_and_queries(server):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
    for path in ("/v1/models/clip-demo?secret=1", "/health/ready", "/no%0Asuch%20path?secret=2"):
        connection.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.headers["server"] is None
    connection.close()
    until(lambda: "path=/no" in server.errors())  # a line comes after its answer
    log = server.errors()
    lines = [line.partition("vlrt.access: ")[2] for line in log.splitlines()]
    for line in (
        "method=GET path=/v1/models/{name} status=200 ms=N",
        "method=GET path=/health/ready status=200 ms=N",
        "method=GET path=/no%0Asuch%20path status=404 ms=N",
    ):
        assert [re.sub(r"ms=\d+\.\d$", "ms=N", one) for one in lines].count(line) == 1
    assert "secret" not in log
    assert KEY not in log


def test_requests_are_not_logged_at_warning_and_a_log_level_is_kept_to(tmp_path):
    with serving(tmp_path / "log", "--demo", "--log-level", "warning") as one:
        assert one.asked("/health/live").status == 200
        one.process.terminate()
        assert one.ended() == (0, "")


def test_a_head_that_does_not_end_is_refused(server):
    host, port = urlsplit(server.url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nX-Long: " + b"x" * 40_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 4")


def test_an_idle_connection_is_closed(tmp_path):
    with serving(tmp_path / "log", "--demo", "--keep-alive-s", "1") as one:
        connection = http.client.HTTPConnection(urlsplit(one.url).netloc)
        connection.request("GET", "/health/live")
        connection.getresponse().read()
        connection.sock.settimeout(60)
        assert connection.sock.recv(1) == b""
        connection.close()


WATCHED = """
import sys

class Watch:
    wanted = set()

    def find_spec(self, name, path=None, target=None):
        self.wanted.add(name.partition(".")[0])

sys.meta_path.insert(0, Watch())

from vlrt.server.app import build, create_app
from vlrt.server import serving
from vlrt.server.settings import ModelSettings, Settings

context = build(Settings(models=[ModelSettings(source=source) for source in sys.argv[1:]]))
create_app(context)
for served in context.catalogue:
    served.warm_up()
context.scheduler.close()
print(*sorted(Watch.wanted | {name.partition(".")[0] for name in sys.modules}))
"""


def test_the_server_does_not_even_look_for_torch_and_its_kind():
    sources = [str(demo.bundle(family)) for family in ("clip", "owlvit", "vilt")]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *sources], env=environment(), capture_output=True,
        text=True, timeout=120, check=True,
    )  # fmt: skip
    imported = set(done.stdout.split())
    assert {"fastapi", "onnxruntime", "vlrt"} <= imported
    assert not imported & {
        "torch", "torchvision", "transformers", "optimum", "onnx", "safetensors", "scipy",
        "tensorflow", "jax", "vlrt_export", "vlrt_benchmarks",
    }  # fmt: skip


CLOSED = """
import os, sys
os.close(1)
os.execv(sys.executable, [sys.executable, "-m", "vlrt.cli", "serve", *sys.argv[1:]])
"""


@pytest.mark.skipif(os.name != "posix", reason="the test opens its descriptors as such systems do")
@pytest.mark.parametrize("stdout", ["closed", "unread"])
def test_it_serves_though_nobody_reads_its_stdout(tmp_path, stdout):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    log, (read, write) = tmp_path / "log", os.pipe()
    os.close(read)
    command = [sys.executable, "-c", CLOSED] if stdout == "closed" else COMMAND
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*command, "--demo", "--port", str(port)], env=environment(), stdout=write,
            stderr=errors,
        )  # fmt: skip
    os.close(write)
    server = Serving(process, log, url=f"http://127.0.0.1:{port}")
    try:
        until(lambda: process.poll() is not None or server.asked("/health/ready").status == 200)
        process.terminate()
        status, said = server.ended()
    finally:
        process.kill()
        process.wait()
    assert status == 0, said
    assert "requests in flight: 0" in said  # it served, and then was told to end
    assert "Traceback" not in said
    assert ("stdout cannot be written: Broken pipe" in said) == (stdout == "unread")
