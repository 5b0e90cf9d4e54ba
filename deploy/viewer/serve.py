#!/usr/bin/env python3
"""Serve an OHIF build and let it read the studies of one PACS through DICOMweb, on one origin.

    python serve.py DIST [--port 3000] [--dicom-web http://127.0.0.1:8042/dicom-web]

For testing on one machine: it listens on loopback only, passes on nothing but GET, and asks nobody
who they are. Needs nothing beyond Python's standard library.
"""

from __future__ import annotations

import argparse
import http.client
import mimetypes
import shutil
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

_PROXIED = "/dicom-web"
_FORWARDED_TO_PACS = ("Accept", "Host", "Range")  # the PACS writes its host into the addresses of bulk data
_FORWARDED_TO_VIEWER = ("Content-Type", "Content-Length", "Content-Range")

_CONFIG = Path(__file__).parent / "app-config.js"


class Handler(SimpleHTTPRequestHandler):
    """Files of the build, its configuration, and the PACS behind `/dicom-web`."""

    pacs_host = ""
    pacs_root = ""

    def do_GET(self) -> None:
        """Answer one request."""
        path = urlsplit(self.path).path
        if path == _PROXIED or path.startswith(_PROXIED + "/"):
            self._proxy()
        elif path == "/app-config.js":
            self._send_config()
        else:
            if not Path(self.translate_path(self.path)).is_file():
                self.path = "/index.html"  # a route of the viewer, not a file
            super().do_GET()

    def end_headers(self) -> None:
        """Isolate the page: the viewer decodes in workers that share memory."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing: queries hold patient names."""

    def _send_config(self) -> None:
        content = _CONFIG.read_bytes()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/javascript")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _proxy(self) -> None:
        headers = {name: self.headers[name] for name in _FORWARDED_TO_PACS if name in self.headers}
        connection = http.client.HTTPConnection(self.pacs_host, timeout=60)
        try:
            connection.request("GET", self.pacs_root + self.path.removeprefix(_PROXIED), headers=headers)
            answer = connection.getresponse()
        except OSError:
            self.send_error(HTTPStatus.BAD_GATEWAY, "the PACS does not answer")
            return
        self.send_response(answer.status)
        for name in _FORWARDED_TO_VIEWER:
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        self.end_headers()
        shutil.copyfileobj(answer, self.wfile)
        connection.close()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Serve an OHIF build beside one PACS, on loopback.")
    parser.add_argument("dist", type=Path, help="folder with OHIF's index.html")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--dicom-web", default="http://127.0.0.1:8042/dicom-web", help="root of the PACS")
    arguments = parser.parse_args()
    if not (arguments.dist / "index.html").is_file():
        parser.error(f"{arguments.dist} holds no index.html")
    pacs = urlsplit(arguments.dicom_web)
    if pacs.scheme != "http" or not pacs.netloc:
        parser.error("--dicom-web must be an http:// address")
    Handler.pacs_host, Handler.pacs_root = pacs.netloc, pacs.path.rstrip("/")
    mimetypes.add_type("application/wasm", ".wasm")
    mimetypes.add_type("text/javascript", ".js")

    def handler(*args: object) -> Handler:
        return Handler(*args, directory=str(arguments.dist))  # type: ignore[arg-type]

    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), handler)  # type: ignore[arg-type]
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)  # noqa: T201 - says where to look
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
