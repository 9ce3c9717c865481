#!/usr/bin/python3
"""A gRPC client of the cart: call.py ADDRESS METHOD JSON, for example

call.py 127.0.0.1:9000 GetCart '{"userId": "ada"}'
"""

import pathlib
import sys

import grpc
from google.protobuf import json_format
from google.protobuf.message_factory import MessageFactory

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1] / "sdk" / "python"))
import cairn_sdk  # noqa: E402  (for its loader of .proto files)


def main() -> int:
    service = cairn_sdk.load(HERE / "shoppingcart.proto").DESCRIPTOR.services_by_name["ShoppingCart"]
    if len(sys.argv) != 4 or sys.argv[2] not in service.methods_by_name:
        methods = ", ".join(service.methods_by_name)
        print("usage: call.py ADDRESS METHOD JSON (methods: %s)" % methods, file=sys.stderr)
        return 2
    method = service.methods_by_name[sys.argv[2]]
    messages = MessageFactory()
    try:
        request = json_format.Parse(sys.argv[3], messages.GetPrototype(method.input_type)())
    except json_format.ParseError as wrong:
        print("call.py: %s" % wrong, file=sys.stderr)
        return 2
    with grpc.insecure_channel(sys.argv[1]) as channel:
        call = channel.unary_unary(
            "/%s/%s" % (service.full_name, method.name),
            request_serializer=type(request).SerializeToString,
            response_deserializer=messages.GetPrototype(method.output_type).FromString)
        try:
            reply = call(request, timeout=10)
        except grpc.RpcError as failed:
            print("%s: %s" % (failed.code().name, failed.details()), file=sys.stderr)
            return 1
    print(json_format.MessageToJson(reply, indent=None))
    return 0


if __name__ == "__main__":
    sys.exit(main())
