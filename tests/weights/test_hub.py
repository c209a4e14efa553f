"""Hugging Face's conventions, against a local folder and a stand-in for the hub."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from nl_lightning.errors import UserError
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.weights.file import InputSettings, WeightsHeader, load_weights, save_weights

huggingface_hub = pytest.importorskip("huggingface_hub")
from nl_lightning.weights import hub  # noqa: E402

NET = ResNetConfig(num_classes=3, width=1 / 32, non_local=NonLocalConfig({"res3": [1]}))
HEADER = WeightsHeader(NET, InputSettings(8, 2), "nl-lightning", "", classes=("a", "b", "c"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_weights(tmp_path / "w.safetensors", VideoResNet(NET).state_dict(), HEADER)
    return tmp_path / "w.safetensors"


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_network_comes_back_from_its_folder(file: Path, tmp_path: Path) -> None:
    hub.VideoResNet.of_file(file).save_pretrained(tmp_path / "net")
    net = hub.VideoResNet.from_pretrained(tmp_path / "net")
    plain, header = load_weights(tmp_path / "net" / hub.FILE)  # without the hub's classes
    assert equal(net, plain)
    assert net.header == header
    assert header.classes == HEADER.classes
    assert not net.training
    clip = torch.randn(1, 3, 8, 32, 32)
    torch.testing.assert_close(net(clip), load_weights(file)[0](clip))  # the last bits follow how weights are aligned
    card = (tmp_path / "net" / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "1711.07971" in card


def test_a_block_comes_back_from_its_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    block = hub.NonLocalBlock(8, instantiation="dot_product", sum_over="space", dimensions=2, subsample=False)
    torch.nn.init.normal_(block.state_dict()["bn.weight"])
    block.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["instantiation"] == "dot_product"
    again = hub.NonLocalBlock.from_pretrained(tmp_path)
    assert equal(again, block)
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(again(x), block.eval()(x), rtol=0, atol=0)


def test_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder, and where the hub gave it."""
    (tmp_path / hub.FILE).write_bytes(b"no tensors")
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_: str(tmp_path / hub.FILE))
    for name in (tmp_path, "me/net"):
        with pytest.raises(UserError, match=r"^weights: .* is no whole .safetensors file"):
            hub.VideoResNet.from_pretrained(name)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as pushing and fetching one small file takes."""

    files: dict[str, bytes] = {}  # noqa: RUF012 - what this stand-in holds
    protocol_version = "HTTP/1.1"

    def answer(self, said: Any, status: int = 200, **headers: str) -> None:
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path.endswith("/create"):
            self.answer({"url": f"{self.server.url}/me/net"})  # type: ignore[attr-defined]
        elif self.path.endswith("/validate-yaml"):
            self.answer({"warnings": [], "errors": []})
        elif "/preupload/" in self.path:
            files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(text)["files"]]
            self.answer({"files": [{**one, "shouldIgnore": False, "oid": None} for one in files]})
        elif "/commit/" in self.path:
            for line in map(json.loads, text.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.server.url}/me/net/commit/{'0' * 40}"  # type: ignore[attr-defined]
            self.answer({"success": True, "commitOid": "0" * 40, "commitUrl": url, "hookOutput": ""})
        else:
            self.answer({}, 404)

    def do_GET(self) -> None:
        name = self.path.split("/resolve/main/")[-1]
        if self.path.startswith("/me/net/resolve/main/") and name in self.files:
            self.answer(self.files[name], ETag='"1"', X_Repo_Commit="0" * 40)
        elif self.path.startswith("/api/models/me/net"):
            self.answer({"id": "me/net", "sha": "0" * 40, "siblings": [], "tags": [], "private": False})
        else:
            self.answer({}, 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "ENDPOINT": server.url,  # type: ignore[attr-defined]
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",  # type: ignore[attr-defined]
    }.items():  # type: ignore[attr-defined]
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    yield server.url  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def test_a_network_is_pushed_and_fetched(file: Path, server: str) -> None:
    net = hub.VideoResNet.of_file(file)
    net.push_to_hub("me/net", token="none")
    assert {hub.FILE, "README.md"} <= Hub.files.keys()
    assert equal(hub.VideoResNet.from_pretrained("me/net", token=False), net)
    with pytest.raises(UserError, match="me/none: no folder, and the hub gives none"):
        hub.VideoResNet.from_pretrained("me/none", token=False)
