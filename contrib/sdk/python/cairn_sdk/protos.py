"""Python classes of .proto files, made by protoc when they are needed.

``load("cart.proto")`` gives the module that protoc makes of the file, with no build step. The files of the
protocol and of google.api, which a service imports for its entity keys and HTTP bindings, are found by
themselves. What is made is kept in a cache (CAIRN_SDK_CACHE, by default ~/.cache/cairn-sdk) under a hash of
what it was made from; where no cache can be written, in a temporary folder.

Whoever makes his classes otherwise needs nothing of this but ``INCLUDE``, the folder for protoc's ``-I``.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from types import ModuleType
from typing import Iterable, List, Union

Path = Union[str, "os.PathLike[str]"]

_HERE = pathlib.Path(__file__).resolve().parent
_PROTOCOL = (
    "cloudstate/entity.proto", "cloudstate/event_sourced.proto", "cloudstate/entity_key.proto",
    "cloudstate/value_entity.proto", "cloudstate/action.proto", "cloudstate/crdt.proto",
    "cloudstate/legacy_entity_key.proto",
    "cloudstate/eventing.proto", "google/api/annotations.proto", "google/api/http.proto",
    "google/api/httpbody.proto",
)


class ProtoError(Exception):
    """A .proto file cannot be made into Python; says which and why."""


def _include() -> pathlib.Path:
    """Where the protocol's files are: in the installed package, or in the source tree."""
    # cairn_sdk, python, sdk, contrib, and there.
    for folder in [_HERE / "proto"] + [top / "proto" for top in _HERE.parents[3:4]]:
        if (folder / _PROTOCOL[0]).is_file():
            return folder
    raise ProtoError("the protocol's .proto files are neither in %s nor in a source tree"
                     % (_HERE / "proto"))


INCLUDE = _include()


def _imports(folders: List[pathlib.Path], names: Iterable[str]) -> List[pathlib.Path]:
    """The files and all that they import from these folders."""
    found: List[pathlib.Path] = []
    todo = list(names)
    while todo:
        name = todo.pop()
        path = next((f / name for f in folders if (f / name).is_file()), None)
        if path is None or path in found:
            continue  # protoc knows its own, and says what is missing
        found.append(path)
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.split('"')
            if len(words) >= 3 and words[0].split() and words[0].split()[0] == "import":
                todo.append(words[1])
    return sorted(found)


def _protoc() -> str:
    program = shutil.which("protoc")
    if program is None:
        raise ProtoError("protoc is not on PATH: apt-get install protobuf-compiler")
    return program


def _cache() -> pathlib.Path:
    wanted = os.environ.get("CAIRN_SDK_CACHE") or pathlib.Path.home() / ".cache" / "cairn-sdk"
    folder = pathlib.Path(wanted)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="cairn-sdk-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _make(names: List[str], folders: List[pathlib.Path]) -> pathlib.Path:
    """A folder with the Python classes of the files and of what they import from `folders`."""
    files = _imports(folders, names)
    protoc = _protoc()
    version = subprocess.run([protoc, "--version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(version.encode())
    for file in files:
        digest.update(b"%s\0" % str(file).encode() + file.read_bytes() + b"\0")
    cache = _cache()
    made = cache / digest.hexdigest()[:32]
    if made.is_dir():
        return made
    # Made elsewhere and then renamed: whoever looks finds all of it or nothing.
    new = pathlib.Path(tempfile.mkdtemp(prefix="new-", dir=cache))
    relative = sorted({str(f.relative_to(d)) for f in files for d in folders if d in f.parents})
    done = subprocess.run([protoc, "--python_out=%s" % new, *("-I%s" % f for f in folders), *relative],
                          capture_output=True, text=True)
    if done.returncode != 0:
        shutil.rmtree(new, ignore_errors=True)
        raise ProtoError("protoc refuses %s:\n%s" % (", ".join(names), done.stderr.strip()))
    try:
        os.rename(new, made)
    except OSError:  # another process was faster
        shutil.rmtree(new, ignore_errors=True)
    return made


def load(file: Path, *include: Path) -> ModuleType:
    """The module of one .proto file. It is searched for and imported from its own folder; further folders
    to import from can be given."""
    path = pathlib.Path(file).resolve()
    if not path.is_file():
        raise ProtoError("there is no file %s" % path)
    folders = [path.parent, *(pathlib.Path(i).resolve() for i in include), INCLUDE]
    made = _make([path.name], folders)
    if str(made) not in sys.path:
        sys.path.append(str(made))
    importlib.invalidate_caches()
    return importlib.import_module(path.name[: -len(".proto")].replace("-", "_") + "_pb2")


def _load_protocol() -> None:
    made = _make(list(_PROTOCOL), [INCLUDE])
    sys.path.append(str(made))
    importlib.invalidate_caches()


_load_protocol()

entity = importlib.import_module("cloudstate.entity_pb2")
event_sourced = importlib.import_module("cloudstate.event_sourced_pb2")
value_entity = importlib.import_module("cloudstate.value_entity_pb2")
action = importlib.import_module("cloudstate.action_pb2")
crdt = importlib.import_module("cloudstate.crdt_pb2")
entity_key = importlib.import_module("cloudstate.entity_key_pb2")
legacy_entity_key = importlib.import_module("cloudstate.legacy_entity_key_pb2")
