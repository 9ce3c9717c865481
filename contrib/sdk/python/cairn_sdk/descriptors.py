"""What a function says of itself: its services' descriptors, and which fields are entity keys."""

from __future__ import annotations

from typing import Dict, Iterable, List, Tuple

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


def streams(method: MethodDescriptor) -> Tuple[bool, bool]:
    """Whether the method's input streams, and its output."""
    proto = descriptor_pb2.MethodDescriptorProto()
    # CopyToProto knows no single method in protobuf's C implementation of some versions: by way of the service.
    service = descriptor_pb2.ServiceDescriptorProto()
    method.containing_service.CopyToProto(service)
    proto = next(m for m in service.method if m.name == method.name)
    return proto.client_streaming, proto.server_streaming
