"""push_to_hub and from_pretrained through real HTTP, in client processes of a Hub on loopback."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from hub_server import LoopbackHub

from sdpgan_hub import SDPGAN

SERVED_CLIENT = """
import hashlib, json, sys
import torch
from sdpgan_hub import SDPGAN

def digest(model):
    x = torch.linspace(-1, 1, 3 * 16 * 20).reshape(1, 3, 16, 20)
    with torch.no_grad():
        return hashlib.sha256(b"".join(y.numpy().tobytes() for y in model(x))).hexdigest()

for line in sys.stdin:
    asked = json.loads(line)
    try:
        model = SDPGAN.from_pretrained(asked["name"], **asked["options"])
        answer = {"bias": model.generator.output[0].bias.tolist(), "training": model.training}
        answer["digest"] = digest(model)
        if "push" in asked:
            answer["url"] = model.push_to_hub(asked["push"], **asked["push_options"])
    except Exception as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(answer), flush=True)
"""


def files_of(folder: Path, bias: float) -> dict[str, bytes]:
    """The files of a model that is recognised by the bias of its last layer."""
    torch.manual_seed(0)
    model = SDPGAN(base_channels=4, residual_blocks=1)
    torch.nn.init.constant_(model.generator.output[0].bias, bias)
    model.save_pretrained(folder, model_card_kwargs={"title": f"bias {bias}"})
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Client:
    """A client process of a Hub, told line by line what to load and push."""

    def __init__(self, hub: LoopbackHub, home: Path, token: str | None = None, **environment: str):
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVED_CLIENT],
            env=hub.environment(home, token=token, **environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, name: str, push: str | None = None, push_options: dict | None = None, **options: object) -> dict:
        asked = {"name": name, "options": options}
        if push:
            asked |= {"push": push, "push_options": push_options or {}}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def load(self, name: str, **options: object) -> float:
        """The bias by which `files_of` marked the model that this process loads."""
        answer = self.ask(name, **options)
        assert "error" not in answer and not answer["training"], answer
        assert len(set(answer["bias"])) == 1
        return answer["bias"][0]

    def refusal(self, name: str, **options: object) -> str:
        """The one sentence with which the model, or its push, is refused."""
        answer = self.ask(name, **options)
        assert answer.get("error") == "SDPGANError", answer
        assert "\n" not in answer["message"]
        return answer["message"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


@pytest.fixture(scope="module")
def served() -> Iterator[LoopbackHub]:
    with closing(LoopbackHub()) as server:
        yield server


@pytest.fixture(scope="module")
def client(served, tmp_path_factory) -> Iterator[Client]:
    process = Client(served, tmp_path_factory.mktemp("home"))
    yield process
    process.close()


def test_a_pushed_model_loads_bit_equal_and_again_from_the_cache_offline_and_with_the_server_gone(hub, tiny, tmp_path):
    with closing(Client(hub, tmp_path / "home", hub.token)) as client:
        pushed = client.ask(str(tiny), "org/sdpgan-test", {"model_card_kwargs": {}})
        assert client.ask("org/sdpgan-test")["digest"] == pushed["digest"]
    assert pushed["url"].startswith(f"{hub.endpoint}/org/sdpgan-test/commit/")
    files = hub.files("org/sdpgan-test")
    assert files.keys() == {"README.md", "config.json", "model.safetensors"}
    assert b'SDPGAN.from_pretrained("org/sdpgan-test")' in files["README.md"]

    asked = len(hub.requests)
    with closing(Client(hub, tmp_path / "home", hub.token, HF_HUB_OFFLINE="1")) as client:
        assert client.ask("org/sdpgan-test")["digest"] == pushed["digest"]
        refusal = client.refusal("org/absent")
    assert len(hub.requests) == asked
    assert "org/absent" in refusal and "HF_HUB_OFFLINE" in refusal

    hub.close()
    with closing(Client(hub, tmp_path / "home", hub.token)) as client:
        assert client.ask("org/sdpgan-test")["digest"] == pushed["digest"]


def test_the_storage_behind_the_hub_is_never_sent_a_token(served, client, tmp_path):
    served.add("org/secret", files_of(tmp_path, 0.5), private=True)
    before = len(served.requests)
    assert client.load("org/secret", token=served.token) == 0.5
    authorizations = {(request.server, request.authorization) for request in served.requests[before:]}
    assert authorizations == {("hub", f"Bearer {served.token}"), ("storage", None)}


def test_a_revision_pins_a_commit_by_oid_tag_or_branch(served, client, tmp_path):
    first = served.add("org/pinned", files_of(tmp_path / "1", 0.25))
    second = served.add("org/pinned", files_of(tmp_path / "2", 0.5))
    served.repositories["org/pinned"].refs |= {"v1": first, "experiment/2": second}
    assert client.load("org/pinned") == 0.5
    assert client.load("org/pinned", revision=first) == 0.25
    assert client.load("org/pinned", revision="v1") == 0.25
    assert client.load("org/pinned", revision="experiment/2") == 0.5
    assert "'v9'" in client.refusal("org/pinned", revision="v9")


def test_both_files_are_of_one_commit_though_a_push_comes_between(served, client, tmp_path):
    first = served.add("org/busy", files_of(tmp_path / "1", 0.25))
    client.load("org/busy")
    paths = [request.path for request in served.requests if "/org/busy/" in request.path]
    assert "/org/busy/resolve/main/config.json" in paths
    assert f"/org/busy/resolve/{first}/model.safetensors" in paths
    assert "/org/busy/resolve/main/model.safetensors" not in paths


def test_a_new_commit_is_loaded_although_an_older_one_is_cached(served, client, tmp_path):
    served.add("org/moving", files_of(tmp_path / "1", 0.25))
    assert client.load("org/moving") == 0.25
    served.add("org/moving", files_of(tmp_path / "2", 0.5))
    assert client.load("org/moving", local_files_only=True) == 0.25
    assert client.load("org/moving") == 0.5


def test_cache_dir_and_force_download_are_the_hub_client_s(served, client, tmp_path):
    served.add("org/kept", files_of(tmp_path / "files", 0.25))
    cache = tmp_path / "cache"
    client.load("org/kept", cache_dir=str(cache))
    assert (cache / "models--org--kept").is_dir() and not (client.home / "hub" / "models--org--kept").exists()
    assert "org/kept" in client.refusal("org/kept", local_files_only=True)

    def downloads() -> int:
        return sum(request.server == "storage" for request in served.requests)

    before = downloads()
    client.load("org/kept", cache_dir=str(cache))
    assert downloads() == before
    client.load("org/kept", cache_dir=str(cache), force_download=True)
    assert downloads() == before + 1


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("org/absent", {"token": "hf_loopback"}, []),
        ("org/absent", {}, ["token"]),
        ("org/private", {}, ["token"]),
        ("org/private", {"token": "hf_wrong"}, ["token"]),
        ("org/public", {"token": "hf_wrong"}, ["token"]),
        ("org/public", {"token": True}, ["token"]),
        ("org/gated", {}, ["gated", "terms"]),
        ("org/public", {"local_files_only": True}, ["cache", "local_files_only"]),
        ("org/pickle", {}, ["model.safetensors", "pytorch_model.bin"]),
        ("org/no-config", {}, ["config.json"]),
    ],
)
def test_what_the_hub_does_not_give_is_refused_in_one_sentence(served, client, tiny, name, options, named):
    """What is wrong with files that it gives is that of any folder: tests/test_model.py."""
    if "org/public" not in served.repositories:
        files = {path.name: path.read_bytes() for path in tiny.iterdir()}
        served.add("org/public", files)
        served.add("org/private", files, private=True)
        served.add("org/gated", files, gated=True)
        served.add("org/pickle", {"pytorch_model.bin": b"\x80\x04K\x01."})
        served.add("org/no-config", {"model.safetensors": files["model.safetensors"]})
    message = client.refusal(name, **options)
    assert all(part in message for part in (name, *named)), message


@pytest.mark.parametrize("change", [{"model_type": "bert"}, {"upsampling": "foo"}])
def test_a_repository_that_holds_no_style_is_refused_before_its_weights_are_fetched(served, client, tmp_path, change):
    files = files_of(tmp_path / "files", 0.5)
    config = json.loads(files["config.json"]) | change
    name = f"org/no-{next(iter(change))}"
    served.add(name, files | {"config.json": json.dumps(config).encode()})
    before = len(served.requests)
    assert repr(*change.values()) in client.refusal(name)
    fetched = [request.path for request in served.requests[before:] if request.method == "GET"]
    assert fetched and not any(path.endswith("model.safetensors") for path in fetched)
    assert not any(request.server == "storage" for request in served.requests[before:])


def test_a_push_writes_fp16_weights_and_the_card_the_model_came_with(served, client, tmp_path):
    files = files_of(tmp_path / "files", 0.5)
    served.add("org/original", files)
    url = client.ask("org/original", push="org/copy", push_options={"token": served.token})["url"]
    assert url == f"{served.endpoint}/org/copy/commit/{served.repositories['org/copy'].refs['main']}"
    assert served.files("org/copy") == files


def test_a_push_leaves_the_card_in_the_repository_until_keywords_are_given(served, client, tiny):
    served.add("org/documented", {"README.md": b"---\nlicense: mit\n---\nwritten by hand"})
    push = {"token": served.token}
    client.ask(str(tiny), push="org/documented", push_options=push)
    assert served.files("org/documented")["README.md"].endswith(b"written by hand")
    push["model_card_kwargs"] = {"title": "New"}
    client.ask(str(tiny), push="org/documented", push_options=push)
    assert b"# New" in served.files("org/documented")["README.md"]


def test_a_push_makes_a_private_repository_if_asked_to(served, client, tmp_path):
    files_of(tmp_path / "files", 0.5)
    client.ask(str(tmp_path / "files"), push="org/hidden", push_options={"token": served.token, "private": True})
    assert "org/hidden" in client.refusal("org/hidden")
    assert client.load("org/hidden", token=served.token) == 0.5


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_a_push_without_the_right_to_write_is_refused_in_one_sentence(served, client, tiny, token):
    message = client.refusal(str(tiny), push="org/foreign", push_options={"token": token})
    assert "org/foreign" in message and "token" in message
    assert "org/foreign" not in served.repositories


def test_a_push_to_a_name_that_is_no_hub_id_is_refused_in_one_sentence(served, client, tiny):
    assert "'a/b/c'" in client.refusal(str(tiny), push="a/b/c", push_options={"token": served.token})
