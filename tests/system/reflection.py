"""A client that knows a service only by gRPC server reflection, on the raw protocol."""

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from recorder import PATIENCE


def _messages(version):
    """The classes of grpc.reflection.VERSION: written down here, not taken from the files we test."""
    field = descriptor_pb2.FieldDescriptorProto
    package = "grpc.reflection." + version
    file = descriptor_pb2.FileDescriptorProto(name="reflection_%s.proto" % version, package=package,
                                              syntax="proto3")

    def message(name, *fields, oneof=None):
        made = file.message_type.add(name=name)
        if oneof:
            made.oneof_decl.add(name=oneof)
        for number, label, kind, field_name, inside in fields:
            f = made.field.add(name=field_name, number=number,
                               label=field.LABEL_REPEATED if label == "repeated" else field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                f.type, f.type_name = field.TYPE_MESSAGE, ".%s.%s" % (package, kind)
            else:
                f.type = kind
            if inside:
                f.oneof_index = 0

    text, number, data = field.TYPE_STRING, field.TYPE_INT32, field.TYPE_BYTES
    message("ExtensionRequest", (1, "", text, "containing_type", 0), (2, "", number, "extension_number", 0))
    message("ServerReflectionRequest", (1, "", text, "host", 0), (3, "", text, "file_by_filename", 1),
            (4, "", text, "file_containing_symbol", 1),
            (5, "", "ExtensionRequest", "file_containing_extension", 1),
            (6, "", text, "all_extension_numbers_of_type", 1), (7, "", text, "list_services", 1),
            oneof="message_request")
    message("FileDescriptorResponse", (1, "repeated", data, "file_descriptor_proto", 0))
    message("ExtensionNumberResponse", (1, "", text, "base_type_name", 0),
            (2, "repeated", number, "extension_number", 0))
    message("ServiceResponse", (1, "", text, "name", 0))
    message("ListServiceResponse", (1, "repeated", "ServiceResponse", "service", 0))
    message("ErrorResponse", (1, "", number, "error_code", 0), (2, "", text, "error_message", 0))
    message("ServerReflectionResponse", (1, "", text, "valid_host", 0),
            (2, "", "ServerReflectionRequest", "original_request", 0),
            (4, "", "FileDescriptorResponse", "file_descriptor_response", 1),
            (5, "", "ExtensionNumberResponse", "all_extension_numbers_response", 1),
            (6, "", "ListServiceResponse", "list_services_response", 1),
            (7, "", "ErrorResponse", "error_response", 1), oneof="message_response")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    factory = message_factory.MessageFactory(pool)
    return (factory.GetPrototype(pool.FindMessageTypeByName(package + ".ServerReflectionRequest")),
            factory.GetPrototype(pool.FindMessageTypeByName(package + ".ServerReflectionResponse")))


MESSAGES = {version: _messages(version) for version in ("v1alpha", "v1")}


class Reflection:
    """The reflection service of one server."""

    def __init__(self, channel, version="v1alpha"):
        self.request, self.response = MESSAGES[version]
        self.service = "grpc.reflection.%s.ServerReflection" % version
        self._call = channel.stream_stream("/%s/ServerReflectionInfo" % self.service,
                                           self.request.SerializeToString, self.response.FromString)

    def ask(self, *questions):
        """The answers to these questions (dicts), all on one stream, which must then end OK."""
        answers = list(self._call(iter([self.request(**q) for q in questions]), timeout=PATIENCE))
        assert len(answers) == len(questions), answers
        return answers

    def services(self):
        """The names that list_services gives, as they come."""
        return [s.name for s in self.ask({"list_services": ""})[0].list_services_response.service]

    def files(self, **question):
        """The FileDescriptorProtos that answer the question."""
        answer = self.ask(question)[0]
        assert answer.WhichOneof("message_response") == "file_descriptor_response", answer
        return [descriptor_pb2.FileDescriptorProto.FromString(f)
                for f in answer.file_descriptor_response.file_descriptor_proto]


class Api:
    """All that a server tells of itself, callable: ``Api(channel).call("pkg.Service/Method", id="a")``."""

    def __init__(self, channel, version="v1alpha"):
        self._channel = channel
        self._reflection = Reflection(channel, version)
        self._files = {}
        self._pool = descriptor_pool.DescriptorPool()
        self._added = set()
        self._factory = message_factory.MessageFactory(self._pool)
        self.services = [s for s in self._reflection.services() if s != self._reflection.service]
        for service in self.services:
            self._take(self._reflection.files(file_containing_symbol=service))
        for name in list(self._files):
            self._add(name)

    def _take(self, files):
        for file in files:
            self._files[file.name] = file

    def _add(self, name):
        if name in self._added:
            return
        self._added.add(name)
        if name not in self._files:
            self._take(self._reflection.files(file_by_filename=name))
        assert name in self._files, "the server imports %s, but does not have it" % name
        for dependency in self._files[name].dependency:
            self._add(dependency)
        self._pool.Add(self._files[name])

    def type(self, name):
        """The class of a message."""
        return self._factory.GetPrototype(self._pool.FindMessageTypeByName(name))

    def method(self, path):
        service, _, name = path.rpartition("/")
        return self._pool.FindServiceByName(service).methods_by_name[name]

    def request(self, path, **fields):
        return json_format.ParseDict(fields, self._factory.GetPrototype(self.method(path).input_type)())

    def rpc(self, path):
        """A grpcio callable for the method."""
        method = self.method(path)
        streams = descriptor_pb2.MethodDescriptorProto()
        method.CopyToProto(streams)
        kind = {(False, False): self._channel.unary_unary, (False, True): self._channel.unary_stream,
                (True, False): self._channel.stream_unary, (True, True): self._channel.stream_stream}[
                    (streams.client_streaming, streams.server_streaming)]
        return kind("/" + path, self._factory.GetPrototype(method.input_type).SerializeToString,
                    self._factory.GetPrototype(method.output_type).FromString)

    def call(self, path, timeout=None, **fields):
        """A unary call. Returns the reply message, or raises grpc.RpcError."""
        return self.rpc(path)(self.request(path, **fields), timeout=timeout or PATIENCE)

    def start(self, path, timeout=None, **fields):
        """A unary call that goes on in the background: a future."""
        return self.rpc(path).future(self.request(path, **fields), timeout=timeout or PATIENCE)

    def as_dict(self, message):
        """A reply as plain Python values, names as in the .proto file."""
        return json_format.MessageToDict(message, preserving_proto_field_name=True)
