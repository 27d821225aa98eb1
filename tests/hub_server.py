"""A stand-in for the Hugging Face hub on loopback: repositories in memory, behind the part of its HTTP API that we use.

`huggingface_hub` finds it by HF_ENDPOINT. It keeps every commit of a repository, and answers errors as the hub does.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

TOKEN = 'hf_of_somebody'  # of the user who may write to repositories of OWNER
OWNER = 'me'
_LARGE = ('.onnx', '.safetensors')  # of Git LFS


class _Request(NamedTuple):
    method: str
    path: str


class HubServer:
    """The state of the stand-in.

    Attributes:
      url: what HF_ENDPOINT must be.
      repositories: {'OWNER/NAME': [{file: content} of each commit, oldest first]}.
      private: the repositories that were created as private.
      gated: repositories whose files need a permission that nobody has.
      requests: everything that was asked for.
      claimed_sizes: {file: size to claim for it, before its download}.
    """

    def __init__(self):
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.requests: list[_Request] = []
        self.claimed_sizes: dict[str, int] = {}
        self.uploads: dict[str, bytes] = {}
        self.url = ''

    def commit_id(self, name: str, number: int = -1) -> str:
        """The SHA-1 of a commit, as a revision."""
        commits = self.repositories[name]
        content = repr((name, number % len(commits)))
        return hashlib.sha1(content.encode()).hexdigest()


@contextlib.contextmanager
def serve_hub() -> Iterator[HubServer]:
    """Runs the stand-in on a free port of loopback while the context is open."""
    state = HubServer()
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), type('Handler', (_Handler,), {'state': state}))
    server.daemon_threads = True
    state.url = f'http://127.0.0.1:{server.server_address[1]}'
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    state: HubServer
    protocol_version = 'HTTP/1.1'

    def log_message(self, *arguments: Any) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get('content-length') or 0))
        path = self.path.partition('?')[0]
        self.state.requests.append(_Request(self.command, path))
        for pattern, answer in _ROUTES.items():
            if match := re.fullmatch(pattern, path):
                answer(self, body, *match.groups())
                return
        self._json({'error': f'no route {path}'}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _send(self, code: int, content: bytes, headers: dict[str, Any]) -> None:
        self.send_response(code)
        for name, value in {'content-length': len(content), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(content)

    def _json(self, content: Any, code: int = 200, **headers: str) -> None:
        named = {name.replace('_', '-'): value for name, value in headers.items()}
        self._send(code, json.dumps(content).encode(), {'content-type': 'application/json', **named})

    def _may_write(self, name: str) -> bool:
        if self.headers.get('authorization') != f'Bearer {TOKEN}':
            self._json({'error': 'Invalid username or password.'}, 401)
            return False
        if name.partition('/')[0] != OWNER:
            self._json({'error': f'You do not have the rights to write to {name}'}, 403)
            return False
        return True

    def who_am_i(self, body: bytes) -> None:
        if self._may_write(OWNER):
            self._json({'name': OWNER, 'type': 'user', 'orgs': [], 'auth': {'accessToken': {'role': 'write'}}})

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f'{asked.get("organization") or OWNER}/{asked["name"]}'
        if not self._may_write(name):
            return
        created = {'url': f'{self.state.url}/{name}', 'name': name, 'id': '1'}
        if name in self.state.repositories:
            self._json({'error': 'You already created this model repo', **created}, 409)
            return
        self.state.repositories[name] = [{}]
        if asked.get('private') or asked.get('visibility') == 'private':
            self.state.private.add(name)
        self._json(created)

    def validate_yaml(self, body: bytes) -> None:
        assert json.loads(body)['content'].startswith('---\n')
        self._json({'errors': [], 'warnings': []})

    def tree(self, body: bytes, name: str) -> None:
        files = self.state.repositories[name][-1]
        self._json([{'type': 'file', 'path': file, 'size': len(data), 'oid': '0'} for file, data in files.items()])

    def preupload(self, body: bytes, name: str) -> None:
        files = [
            {
                'path': file['path'],
                'uploadMode': 'lfs' if file['path'].endswith(_LARGE) else 'regular',
                'shouldIgnore': False,
                'oid': None,
            }
            for file in json.loads(body)['files']
        ]
        self._json({'files': files})

    def lfs_batch(self, body: bytes, name: str) -> None:
        objects = json.loads(body)['objects']
        upload = lambda oid: {'upload': {'href': f'{self.state.url}/lfs/{oid}', 'header': {}}}
        answers = [{'oid': one['oid'], 'size': one['size'], 'actions': upload(one['oid'])} for one in objects]
        self._json({'transfer': 'basic', 'objects': answers})

    def lfs_put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.state.uploads[oid] = body
        self._json({})

    def commit(self, body: bytes, name: str) -> None:
        if not self._may_write(name):
            return
        commits = self.state.repositories[name]
        files = dict(commits[-1])
        for line in map(json.loads, body.splitlines()):
            value = line['value']
            if line['key'] == 'file':
                files[value['path']] = base64.b64decode(value['content'])
            elif line['key'] == 'lfsFile':
                files[value['path']] = self.state.uploads[value['oid']]
            elif line['key'] == 'deletedFile':
                del files[value['path']]
        commits.append(files)
        oid = self.state.commit_id(name)
        self._json({'commitUrl': f'{self.state.url}/{name}/commit/{oid}', 'commitOid': oid, 'pullRequestUrl': None})

    def info(self, body: bytes, name: str, revision: str | None = None) -> None:
        if (files := self._files(name, revision or 'main')) is not None:
            siblings = [{'rfilename': file} for file in files]
            self._json({'id': name, 'modelId': name, 'sha': self.state.commit_id(name), 'siblings': siblings})

    def resolve(self, body: bytes, name: str, revision: str, file: str) -> None:
        if (files := self._files(name, revision)) is None:
            return
        if file not in files:
            self._json({'error': 'Entry not found'}, 404, X_Error_Code='EntryNotFound')
            return
        content = files[file]
        ids = {'x-repo-commit': self._commit_of(name, revision), 'etag': f'"{hashlib.sha256(content).hexdigest()}"'}
        if self.command == 'HEAD' and file in self.state.claimed_sizes:
            ids['content-length'] = str(self.state.claimed_sizes[file])
        self._send(200, content, ids)

    def _commit_of(self, name: str, revision: str) -> str | None:
        ids = [self.state.commit_id(name, number) for number in range(len(self.state.repositories[name]))]
        return ids[-1] if revision == 'main' else revision if revision in ids else None

    def _files(self, name: str, revision: str) -> dict[str, bytes] | None:
        """The files of a revision; without it, None, after the answer that the hub gives."""
        if name not in self.state.repositories:
            self._json({'error': 'Repository not found'}, 404, X_Error_Code='RepoNotFound')
            return None
        if name in self.state.gated:
            self._json({'error': f'Access to model {name} is restricted.'}, 403, X_Error_Code='GatedRepo')
            return None
        commit = self._commit_of(name, revision)
        if commit is None:
            self._json({'error': f'Invalid rev id: {revision}'}, 404, X_Error_Code='RevisionNotFound')
            return None
        commits = self.state.repositories[name]
        return next(files for number, files in enumerate(commits) if self.state.commit_id(name, number) == commit)


_NAME = '([^/]+/[^/]+)'
_ROUTES = {
    '/api/whoami-v2': _Handler.who_am_i,
    '/api/repos/create': _Handler.create,
    '/api/validate-yaml': _Handler.validate_yaml,
    f'/api/models/{_NAME}/tree/main': _Handler.tree,
    f'/api/models/{_NAME}/preupload/main': _Handler.preupload,
    rf'/{_NAME}\.git/info/lfs/objects/batch': _Handler.lfs_batch,
    '/lfs/([0-9a-f]{64})': _Handler.lfs_put,
    f'/api/models/{_NAME}/commit/main': _Handler.commit,
    f'/api/models/{_NAME}': _Handler.info,
    f'/api/models/{_NAME}/revision/([^/]+)': _Handler.info,
    f'/{_NAME}/resolve/([^/]+)/(.+)': _Handler.resolve,
}
