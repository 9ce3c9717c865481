"""What a function says of itself: its services' descriptors, and which fields are entity keys."""

from __future__ import annotations

from typing import Dict, Iterable, List

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor

from . import protos


def file_set(files: Iterable[FileDescriptor]) -> descriptor_pb2.FileDescriptorSet:
    """The files and all they import, each once, imports first."""
    found: Dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        if file.name not in found:
            for dependency in file.dependencies:
                add(dependency)
            found[file.name] = file

    for file in files:
        add(file)
    result = descriptor_pb2.FileDescriptorSet()
    for file in found.values():
        result.file.add().ParseFromString(file.serialized_pb)
    return result


def entity_keys(message: Descriptor) -> List[FieldDescriptor]:
    """The fields of a request that make up the entity's id, in order of declaration."""
    keys = []
    for field in message.fields:
        # Read anew: options that were read before the extension was known hold it as an unknown field.
        options = descriptor_pb2.FieldOptions.FromString(field.GetOptions().SerializeToString())
        if options.Extensions[protos.entity_key.entity_key] \
                or options.Extensions[protos.legacy_entity_key.legacy_entity_key]:
            keys.append(field)
    return keys


def is_streamed(method: MethodDescriptor) -> bool:
    proto = descriptor_pb2.MethodDescriptorProto()
    method.CopyToProto(proto)
    return bool(proto.client_streaming or proto.server_streaming)
