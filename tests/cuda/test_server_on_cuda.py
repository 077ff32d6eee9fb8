"""The server's models on pretended GPUs: what several requests want is run as one there, too."""

import threading

import pytest

pytest.importorskip("fastapi", reason='needs pip install "vlrt[server]"')

REQUESTS = 24


def serve(bundle, **options):
    """Load as the server does, warm up, and ask from many threads at once."""
    from child import mark
    from PIL import Image

    from vlrt.server.app import build
    from vlrt.server.settings import Settings

    model = {"source": bundle, "name": "clip", "precision": "fp16", "device": "cuda", **options}
    context = build(Settings(models=[model]))
    (served,) = context.catalogue
    served.warm_up()
    mark("warm")
    answers, picture = [], Image.new("RGB", (640, 480))

    def ask():
        answers.append(served.model.classify(picture, ["a ring", "a star"]).labels)

    threads = [threading.Thread(target=ask) for _ in range(REQUESTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mark("asked")
    context.scheduler.close()
    return answers, {name: graph.max_batch for name, graph in served.graphs.items()}


@pytest.mark.parametrize("options", [{}, {"cuda_graph": True}], ids=["", "recorded"])
def test_requests_share_runs_on_a_gpu(on_cuda, tiny_bundle, options):
    found = on_cuda(serve, str(tiny_bundle), **options)
    answers, most = found.value
    assert answers == [["a ring", "a star"]] * REQUESTS
    assert min(most.values()) > 1
    log = found.log.between("warm", "asked")
    assert not found.log.of("refused")
    # By themselves, the requests' pictures and texts would be two runs each.
    if options:
        runs = len(log.of("graph"))
    else:
        runs = len([call for call in log.of("copy", to="device") if call["from"] != "device"])
    assert 0 < runs < 2 * REQUESTS
