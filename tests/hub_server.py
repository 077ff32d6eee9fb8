"""A small server that speaks as much of the Hugging Face hub's API as its client needs."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class HubServer:
    """Repositories out of directories, at `url`; `log` holds (method, path) of every request."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, tuple[str, Path]]] = {}
        self.log: list[tuple[str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self, body=True)

            def do_HEAD(self) -> None:
                hub._answer(self, body=False)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, repository: str, folder: Path, *revisions: str) -> str:
        """Put a directory's content up as a commit, under branches or tags; returns the commit."""
        commit = hashlib.sha1(f"{repository} {revisions} {folder}".encode()).hexdigest()
        for revision in (*(revisions or ("main",)), commit):
            self.repositories.setdefault(repository, {})[revision] = (commit, folder)
        return commit

    def files_sent(self) -> list[str]:
        """The files whose content was asked for, in order."""
        return [p.split("/resolve/")[1].split("/", 1)[1] for m, p in self.log
                if m == "GET" and "/resolve/" in p]  # fmt: skip

    # --- answers ----------------------------------------------------------------------------------

    def _answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = unquote(urlsplit(request.path).path)
        self.log.append((request.command, path))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repository, rest = "/".join(parts[2:4]), parts[4:] or ["revision", "main"]
        else:
            repository, rest = "/".join(parts[:2]), parts[2:]
        if repository not in self.repositories:
            return _send(request, 404, {"X-Error-Code": "RepoNotFound"})
        kind, revision = rest[0], rest[1]
        if revision not in self.repositories[repository]:
            return _send(request, 404, {"X-Error-Code": "RevisionNotFound"})
        commit, folder = self.repositories[repository][revision]
        if kind == "resolve":
            return self._file(request, commit, folder / "/".join(rest[2:]), body=body)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        names = [file.relative_to(folder).as_posix() for file in files]
        if kind == "tree":
            content: Any = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": _etag(file)}
                for name, file in zip(names, files, strict=True)
            ]
        else:
            content = {
                "id": repository,
                "modelId": repository,
                "sha": commit,
                "siblings": [{"rfilename": name} for name in names],
                "tags": [],
                "private": False,
            }
        data = json.dumps(content).encode()
        return _send(request, 200, {"Content-Type": "application/json"}, data)

    def _file(
        self, request: BaseHTTPRequestHandler, commit: str, file: Path, *, body: bool
    ) -> None:
        headers = {"X-Repo-Commit": commit}
        if not file.is_file():
            return _send(request, 404, headers | {"X-Error-Code": "EntryNotFound"})
        headers |= {"ETag": f'"{_etag(file)}"', "Content-Type": "application/octet-stream"}
        return _send(request, 200, headers, file.read_bytes(), body=body)


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


def _send(
    request: BaseHTTPRequestHandler,
    status: int,
    headers: dict[str, str],
    data: bytes = b"",
    *,
    body: bool = True,
) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    if body:
        request.wfile.write(data)
