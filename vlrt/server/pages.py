"""The page to try the models with: plain files of this package, from `page/`.

They are read once, when the server starts, and nothing but them can be asked for: a name is looked
up among those that were read, so no path ever reaches the file system.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, HTTPException, Request, Response

if TYPE_CHECKING:
    from vlrt.server.context import Context

_ROOT = Path(__file__).parent / "page"
_INDEX = "index.html"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Page:
    """One file of the page.

    Attributes:
        content: what is in it.
        media_type: as browsers are told.
        etag: a name of its content, in quotes, as HTTP writes it.
    """

    content: bytes
    media_type: str
    etag: str


def read_pages(root: Path = _ROOT) -> dict[str, Page]:
    """The page's files by name; files of kinds that a page does not have are left out."""
    pages = {}
    for path in sorted(root.iterdir()):
        if path.suffix in _MEDIA_TYPES:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            pages[path.name] = Page(content, _MEDIA_TYPES[path.suffix], etag)
    return pages


def answer(page: Page, request: Request) -> Response:
    """The file, or 304 without it where the browser's copy is the same.

    Browsers keep it but ask each time, so that an update of the server is seen at once.
    """
    headers = {"ETag": page.etag, "Cache-Control": "no-cache"}
    known = [tag.strip() for tag in request.headers.get("If-None-Match", "").split(",")]
    if "*" in known or any(tag.removeprefix("W/") == page.etag for tag in known):
        return Response(status_code=304, headers=headers)
    return Response(page.content, media_type=page.media_type, headers=headers)


def router(_context: "Context") -> APIRouter:
    """`GET /`, the page, and `GET /static/{name}`, what it is made of.

    Args:
        _context: as every router takes it; the page asks the server for what it serves.
    """
    pages = read_pages()
    index, parts = pages[_INDEX], {name: page for name, page in pages.items() if name != _INDEX}
    routes = APIRouter(include_in_schema=False)

    # HEAD too: Starlette leaves the body out.
    @routes.api_route("/", methods=["GET", "HEAD"])
    def page(request: Request) -> Response:
        return answer(index, request)

    @routes.api_route("/static/{name}", methods=["GET", "HEAD"])
    def part(name: str, request: Request) -> Response:
        if name not in parts:
            raise HTTPException(404, f"the page has no file {name!r:.60}")
        return answer(parts[name], request)

    return routes
