"""The Python classes of our .proto files, made by protoc when a test first needs them.

Nothing generated is kept in the tree: the classes go to a temporary folder that is removed at exit.
Import this module, then the classes: ``from protos import cloudstate, event_sourced``.
"""

import atexit
import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2

SOURCE = pathlib.Path(os.environ.get("CAIRN_SRCDIR", pathlib.Path(__file__).resolve().parents[2]))
PROTO = SOURCE / "proto"
HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE / "data"

_folder = pathlib.Path(tempfile.mkdtemp(prefix="cairn-protos-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)


def generate(files, include, folder):
    """Run protoc over `files` (names relative to one of `include`) into `folder`."""
    argv = ["protoc", "--python_out=%s" % folder]
    argv += ["-I%s" % i for i in include]
    done = subprocess.run(argv + [str(f) for f in files], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError("protoc failed:\n%s" % done.stderr)


def _generate_all():
    # google.protobuf is Debian's own; google.api, which Debian lacks, is found beside it, because google is
    # a namespace package.
    files = ["cloudstate/entity.proto", "cloudstate/event_sourced.proto", "cloudstate/entity_key.proto",
             "cloudstate/value_entity.proto", "cloudstate/action.proto",
             "cloudstate/crdt.proto", "cairn/crdt/v1/fold.proto",
             "cairn/journal/v1/record.proto", "cairn/journal/v1/journal.proto",
             "cloudstate/legacy_entity_key.proto", "cloudstate/eventing.proto",
             "google/api/annotations.proto", "google/api/http.proto", "google/api/httpbody.proto"]
    generate(files, [PROTO], _folder)
    own = sorted(p.name for p in DATA.glob("*.proto"))
    if own:
        generate(own, [DATA, PROTO], _folder)


_generate_all()
sys.path.insert(0, str(_folder))

journal_record = importlib.import_module("cairn.journal.v1.record_pb2")
journal = importlib.import_module("cairn.journal.v1.journal_pb2")
cloudstate = importlib.import_module("cloudstate.entity_pb2")
event_sourced = importlib.import_module("cloudstate.event_sourced_pb2")
value_entity = importlib.import_module("cloudstate.value_entity_pb2")
action = importlib.import_module("cloudstate.action_pb2")
crdt = importlib.import_module("cloudstate.crdt_pb2")
fold = importlib.import_module("cairn.crdt.v1.fold_pb2")
entity_key = importlib.import_module("cloudstate.entity_key_pb2")
legacy_entity_key = importlib.import_module("cloudstate.legacy_entity_key_pb2")
eventing = importlib.import_module("cloudstate.eventing_pb2")
http = importlib.import_module("google.api.http_pb2")
annotations = importlib.import_module("google.api.annotations_pb2")
httpbody = importlib.import_module("google.api.httpbody_pb2")


def descriptors(module, users_first=False):
    """A FileDescriptorSet of what a module was made from and all that it imports."""
    found = []

    def add(file):
        for dependency in file.dependencies:
            add(dependency)
        if file not in found:
            found.append(file)
    add(module.DESCRIPTOR)
    result = descriptor_pb2.FileDescriptorSet()
    for file in reversed(found) if users_first else found:
        result.file.add().ParseFromString(file.serialized_pb)
    return result


def data(name):
    """The module of tests/system/data/NAME.proto."""
    return importlib.import_module("%s_pb2" % name)
