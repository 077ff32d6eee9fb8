"""Any request, and any picture, is answered as the API's description says, and never with a 500.

Three fuzzers: requests that Schemathesis draws from the description, bodies that were damaged on
their way, and pictures of every format that were. In a normal run they are short. For longer ones:

    VLRT_FUZZ=10000 pytest tests/server/test_server_fuzz.py        so many requests in all
    VLRT_FUZZ_SEED=7                                               other ones
"""

import base64
import io
import json
import os
import zlib
from functools import partial

import numpy as np
import pytest

pytest.importorskip("httpx", reason="the tests' client")
pytest.importorskip("fastapi", reason="needs the server extra")

import httpx
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pictures import FILES, encoded, picture, rotated_jpeg
from PIL import Image, features

AMOUNT = int(os.environ.get("VLRT_FUZZ", "600"))
SEED = int(os.environ.get("VLRT_FUZZ_SEED", "0"))
SHARES = {"description": 0.5, "bodies": 0.2, "pictures": 0.3}
LABELS = ["a red circle", "a blue square"]
PROBLEM = "application/problem+json"


def amount(fuzzer):
    """How many requests a fuzzer sends."""
    return max(1, round(AMOUNT * SHARES[fuzzer]))


def fails(response, request):
    """Fail with what was sent, so that it can be sent again."""
    told = response.text[:2000] if response is not None else "no answer"
    status = response.status_code if response is not None else ""
    pytest.fail(f"{status} {told}\nto {request}", pytrace=False)


def check(response, statuses, request):
    """An answer, or a problem that says its own status."""
    if response.status_code not in statuses:
        fails(response, request)
    kind = response.headers["content-type"]
    if response.status_code == 200:
        assert kind.startswith(("application/json", "application/octet-stream")), request
    elif not kind.startswith(PROBLEM) or response.json()["status"] != response.status_code:
        fails(response, request)


# --- what the description says --------------------------------------------------------------------

CHECKS = (
    "not_a_server_error", "status_code_conformance", "response_schema_conformance",
    "content_type_conformance", "response_headers_conformance",
)  # fmt: skip


def _small_pictures():
    return [encoded(picture(size_wh=(40, 30)), kind) for kind in ("PNG", "JPEG", "GIF")]


def with_pictures(body, media_type, data):
    """The same body with real pictures in place of some drawn text, so that more gets further."""
    if not isinstance(body, dict):
        return body
    found = dict(body)
    picked = data.draw(st.sampled_from(_small_pictures()))
    if media_type == "multipart/form-data":
        if "image" in found:
            found["image"] = [picked]
        return found
    text = base64.b64encode(picked).decode()
    if "image" in found:
        found["image"] = text
    if isinstance(found.get("images"), list):
        found["images"] = [text for _ in found["images"]][:3]
    for one in found["input"] if isinstance(found.get("input"), list) else ():
        if isinstance(one, dict) and isinstance(one.get("image_url"), dict):
            one["image_url"] = {"url": f"data:image/png;base64,{text}"}
    if data.draw(st.booleans()):  # of several models it would otherwise be any text
        found.pop("model", None)
    return found


def with_names(case, data, graphs):
    """Names of what there is, in place of drawn ones, which nothing would have."""
    graph = data.draw(st.sampled_from(graphs))
    for name, value in (("model", graph), ("name", "clip-demo"), ("version", "1")):
        if name in (case.path_parameters or {}):
            case.path_parameters[name] = value
    inputs = case.body.get("inputs") if isinstance(case.body, dict) else None
    for one in inputs if isinstance(inputs, list) else ():
        if isinstance(one, dict):
            names = ["input_ids", "attention_mask", "pixel_values"]
            one["name"] = data.draw(st.sampled_from(names))
            one["datatype"] = data.draw(st.sampled_from(["INT64", "FP32", "BOOL", "BYTES"]))


def test_requests_drawn_from_the_description(server):
    schemathesis = pytest.importorskip("schemathesis", reason="it draws the requests")
    from schemathesis import checks as known
    from schemathesis.core import NOT_SET

    known.load_all_checks()
    checks = known.CHECKS.get_by_names(CHECKS)
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {"/v1/classify", "/v1/detect", "/v1/ask", "/v1/match", "/v1/embeddings"} <= {
        one.path for one in operations
    }
    import requests

    graphs = [one["name"] for one in requests.post(f"{server.url}/v2/repository/index").json()]
    sent, session, answered = 0, requests.Session(), {}

    def ask(operation, examples, turn):
        """Ask one operation so many times; fewer, if there is no more that could be asked."""
        modes = schemathesis.GenerationMode
        drawn = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))

        @seed(SEED + turn)
        @settings(
            max_examples=examples,
            database=None,
            derandomize=False,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(drawn, st.data())
        def one(case, data):
            nonlocal sent
            if data.draw(st.sampled_from((True, True, False))):
                with_names(case, data, graphs)
                if case.body is not NOT_SET:
                    case.body = with_pictures(case.body, case.media_type, data)
            response = case.call(base_url=server.url, session=session, timeout=120)
            sent += 1
            statuses = answered.setdefault(operation.path, {})
            statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
            case.validate_response(response, checks=checks)

        one()

    whole = amount("description")
    some = [one for one in operations if one.body]
    with session:
        for operation in operations:
            if operation not in some:
                ask(operation, max(2, whole // 200), 0)
        turn = 0
        while sent < whole:
            turn += 1
            for operation in some:
                ask(operation, max(2, (whole - sent) // len(some)), turn)
                if sent >= whole:
                    break
    print(f"requests: {answered}")
    assert sent >= whole


# --- damage ---------------------------------------------------------------------------------------

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def flipped(rng, data, _other):
    """Some bits are others."""
    found = bytearray(data)
    for _ in range(rng.integers(1, 17)):
        found[rng.integers(len(found))] ^= 1 << int(rng.integers(8))
    return bytes(found)


def overwritten(rng, data, _other):
    """A run of bytes is noise."""
    found = bytearray(data)
    start = int(rng.integers(len(found)))
    length = min(int(rng.integers(1, 33)), len(found) - start)
    found[start : start + length] = rng.bytes(length)
    return bytes(found)


def cut(rng, data, _other):
    """The end is missing."""
    return data[: int(rng.integers(len(data)))]


def shortened(rng, data, _other):
    """A piece is missing."""
    start, end = sorted(int(one) for one in rng.integers(0, len(data) + 1, 2))
    return data[:start] + data[end:]


def repeated(rng, data, _other):
    """A piece is there twice."""
    start, end = sorted(int(one) for one in rng.integers(0, len(data) + 1, 2))
    return data[:end] + data[start:end] + data[end:]


def spliced(rng, data, other):
    """It begins as one and ends as another."""
    at = int(rng.integers(len(data) + 1))
    return data[:at] + other[int(rng.integers(len(other) + 1)) :]


def lied(rng, data, _other):
    """A number of its first bytes, such as a size, is an extreme one."""
    width, order = int(rng.choice([1, 2, 4])), str(rng.choice(["little", "big"]))
    number = int(rng.choice(EXTREMES)) & (256**width - 1)
    at = int(rng.integers(max(1, min(len(data), 160) - width)))
    return data[:at] + number.to_bytes(width, order) + data[at + width :]


def lengthened(rng, data, _other):
    """There is something behind it."""
    return data + rng.bytes(int(rng.integers(1, 200)))


DAMAGE = (flipped, overwritten, cut, shortened, repeated, spliced, lied, lied, lengthened)


def damaged(rng, data, other):
    """Damaged once, or a few times."""
    names = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        damage = DAMAGE[int(rng.integers(len(DAMAGE)))]
        data = damage(rng, data, other) if data else data
        names.append(damage.__name__)
    return data, names


def with_right_sums(png):
    """The same PNG with checksums that are right, so that what is in its chunks is looked at."""
    at, parts = 8, [png[:8]]
    while at + 12 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        named = png[at + 4 : at + 8 + length]
        if len(named) < 4 + length:
            break
        parts.append(png[at : at + 4] + named + zlib.crc32(named).to_bytes(4, "big"))
        at += 12 + length
    return b"".join(parts) + png[at:]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_repeats_and_is_damage(damage):
    data, other = bytes(range(256)), b"other" * 20
    found = [damage(np.random.default_rng(seed), data, other) for seed in range(50)]
    assert found == [damage(np.random.default_rng(seed), data, other) for seed in range(50)]
    assert sum(one != data for one in found) > 40


def test_checksums_are_put_right():
    file = encoded(picture(), "PNG")
    assert with_right_sums(file) == file
    wrong = bytearray(file)
    wrong[29] ^= 1  # of the header's sum
    assert with_right_sums(bytes(wrong)) == file
    assert with_right_sums(file[:-5])[:-7] == file[:-12]


# --- pictures -------------------------------------------------------------------------------------


def originals():
    """Pictures of every format that the server takes, and of every kind of them that differs."""
    rgb, deep = picture(size_wh=(97, 61)), picture("I;16")
    found = {name: make() for name, make in FILES.items()}
    found = {name: data for name, data in found.items() if len(data) < 100_000}
    found["turned JPEG"] = rotated_jpeg(6)
    for subsampling in (0, 2):
        found[f"progressive JPEG {subsampling}"] = encoded(
            rgb, "JPEG", progressive=True, subsampling=subsampling
        )
    found["CMYK JPEG"] = encoded(picture("CMYK"), "JPEG")
    found["grey JPEG"] = encoded(picture("L"), "JPEG")
    found["16-bit PNG"] = encoded(deep, "PNG")
    found["BMP"], found["BMP with a palette"] = encoded(rgb, "BMP"), encoded(picture("P"), "BMP")
    for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        found[f"TIFF {name}"] = encoded(rgb, "TIFF", compression=name)
    frames = [picture(seed=number) for number in range(2)]
    found["TIFF of two"] = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    found["GIF"] = encoded(picture("P"), "GIF")
    if features.check("webp"):
        found["WebP"], found["exact WebP"] = (
            encoded(rgb, "WEBP", lossless=exact) for exact in (False, True)
        )
        found["moving WebP"] = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    if features.check("avif"):
        found["AVIF"] = encoded(rgb, "AVIF")
    return found


def in_json(data):
    return base64.b64encode(data).decode()


def _form(path, fields, data):
    return path, {"data": fields, "files": {"image": ("a", data)}}


def _json(path, fields, data):
    return path, {"json": {**fields, "image": in_json(data)}}


def _embeddings(data):
    url = {"url": f"data:image/png;base64,{in_json(data)}"}
    asked = {"model": "clip-demo", "input": [{"type": "image_url", "image_url": url}]}
    return "/v1/embeddings", {"json": asked}


def _example(data):
    example = {"image": in_json(data)}
    asked = {"image": in_json(_small_pictures()[0]), "examples": [example]}
    return "/v1/detect", {"json": asked}


# Ways of a picture into the server; most by the first, which is the shortest.
WAYS = (
    partial(_form, "/v1/classify", {"labels": LABELS}),
    partial(_form, "/v1/classify", {"labels": LABELS}),
    partial(_json, "/v1/classify", {"labels": LABELS}),
    partial(_form, "/v1/detect", {"labels": LABELS, "threshold": "0.5"}),
    partial(_json, "/v1/ask", {"question": "what colour is it?"}),
    partial(_form, "/v1/ask", {"questions": "how many are there?", "top_k": "1"}),
    _embeddings,
    _example,
)


def test_originals_are_of_every_format_and_are_taken(client):
    from vlrt.server.pictures import FORMATS

    files = originals()
    kinds = set()
    for name, data in files.items():
        with Image.open(io.BytesIO(data)) as opened:
            kinds.add(opened.format)
        path, sent = WAYS[0](data)
        assert client.post(path, **sent).status_code == 200, name
    there = set(FORMATS) - {name for name in ("WEBP", "AVIF") if not features.check(name.lower())}
    assert there <= kinds


def test_damaged_pictures(client, tmp_path):
    files = originals()
    names = sorted(files)
    path, sent = WAYS[0](files[names[0]])
    expected = client.post(path, **sent).content
    statuses = {}
    for number in range(amount("pictures")):
        rng = np.random.default_rng((SEED, number))
        name, other = names[number % len(names)], names[int(rng.integers(len(names)))]
        data, how = damaged(rng, files[name], files[other])
        if "PNG" in name and rng.random() < 0.7:
            data = with_right_sums(data)
        way, given = WAYS[int(rng.integers(len(WAYS)))](data)
        file = tmp_path / "picture"
        said = f"{way}, picture {number} of seed {SEED}: {name}, {', '.join(how)}; it is in {file}"
        file.write_bytes(data)
        try:
            response = client.post(way, **given)
        except httpx.HTTPError as error:
            pytest.fail(f"{error!r}\nto {said}", pytrace=False)
        check(response, (200, 413, 422), said)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
    print(f"requests: {statuses}")
    # Much must be refused, and something must get as far as the model.
    assert min(statuses.get(200, 0), statuses.get(422, 0)) > amount("pictures") / 20
    path, sent = WAYS[0](files[names[0]])
    assert client.post(path, **sent).content == expected


# --- bodies ---------------------------------------------------------------------------------------


def bodies():
    """Whole requests, whose bodies are damaged: path, further headers, body."""
    client = httpx.Client(base_url="http://localhost")
    small = _small_pictures()[0]
    asked = [way(small) for way in (WAYS[0], *WAYS[2:])]
    ratios = {"labels": LABELS, "templates": {LABELS[0]: ["{}"], LABELS[1]: ["a {}", "{}!"]}}
    asked += [
        _json("/v1/classify", {**ratios, "top_k": 1}, small),
        _json("/v1/detect", {"labels": LABELS, "soft_nms": 0.5, "threshold": [0.1, 0.2]}, small),
        ("/v1/embeddings", {"json": {"input": ["a", "b"], "encoding_format": "base64"}}),
    ]
    made = [client.build_request("POST", path, **given) for path, given in asked]
    client.close()
    found = [(one.url.path, one.headers["content-type"], {}, one.read()) for one in made]
    found += _tensors()
    return found


def _tensors():
    """Raw tensors, in JSON and as binary data."""
    path = "/v2/models/clip-demo.text_model/infer"
    ids = np.full((1, 4), 7, np.int64)
    head = {"name": "input_ids", "shape": [1, 4], "datatype": "INT64"}
    in_text = json.dumps({"inputs": [{**head, "data": ids.ravel().tolist()}]}).encode()
    size = {"parameters": {"binary_data_size": ids.nbytes}}
    parameters = {"binary_data_output": True}
    text = json.dumps({"inputs": [{**head, **size}], "parameters": parameters}).encode()
    length = {"Inference-Header-Content-Length": str(len(text))}
    return [
        (path, "application/json", {}, in_text),
        (path, "application/octet-stream", length, text + ids.tobytes()),
    ]


def test_damaged_bodies(client):
    whole = bodies()
    statuses = {}
    for number in range(amount("bodies")):
        rng = np.random.default_rng((SEED, 1, number))
        path, kind, headers, body = whole[number % len(whole)]
        *_, other = whole[int(rng.integers(len(whole)))]
        data, how = damaged(rng, body, other)
        said = f"{path}, body {number} of seed {SEED}, {kind}, {', '.join(how)}: {data[:3000]!r}"
        try:
            response = client.post(path, content=data, headers={"Content-Type": kind, **headers})
        except httpx.HTTPError as error:
            pytest.fail(f"{error!r}\nto {said}", pytrace=False)
        check(response, (200, 400, 403, 404, 413, 422), said)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
    print(f"requests: {statuses}")
    assert {200, 400, 422} <= set(statuses)
