"""A hub that keeps what it is told."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """Knows whether each repository is private, and what was sent to it, with which token."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.there = {}
        self.told = []


@contextmanager
def running():
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, body=None, **headers):
        data = json.dumps(body or {}).encode()
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        name = "/".join(self.path.split("?")[0].split("/")[3:5])
        if name not in self.server.there:
            self.answer(404, {"error": "no"}, X_Error_Code="RepoNotFound")
            return
        private = self.server.there[name]
        self.answer(200, {"id": name, "private": private, "siblings": [], "tags": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.told.append((self.path, self.headers.get("Authorization"), body))
        if self.path == "/api/repos/create":
            made = json.loads(body)
            private = made.get("visibility") == "private" or made.get("private", False)
            self.server.there[f"{made['organization']}/{made['name']}"] = private
            name = f"{made['organization']}/{made['name']}"
            self.answer(200, {"url": f"{self.server.url}/{made.get('type', 'model')}s/{name}"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            sent = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in files]  # fmt: skip
            self.answer(200, {"files": sent})
        else:
            commit = "0" * 40
            url = f"{self.server.url}/owner/name/commit/{commit}"
            self.answer(200, {"commitUrl": url, "commitOid": commit})
