"""The sample's shopping cart on the protocol's own Python SDK (package cloudstate 0.1.1, Python 3.8): a
function of a library that no one here wrote. Its arguments are the folders of the sample's .proto files and
of the protocol's."""

import sys
import tempfile

from google.protobuf.empty_pb2 import Empty
from grpc_tools import protoc
import grpc_tools

made = tempfile.mkdtemp(prefix="cart-")
sample, protocol = sys.argv[1:3]
status = protoc.main(["protoc", "-I" + sample, "-I" + protocol, "-I" + grpc_tools.__path__[0] + "/_proto",
                      "--python_out=" + made, "shoppingcart.proto", "domain.proto"])
if status != 0:
    sys.exit("protoc failed")
sys.path.append(made)

import domain_pb2 as domain  # noqa: E402
import shoppingcart_pb2 as pb  # noqa: E402
from cloudstate.cloudstate import CloudState  # noqa: E402
from cloudstate.event_sourced_context import EventSourcedCommandContext  # noqa: E402
from cloudstate.event_sourced_entity import EventSourcedEntity  # noqa: E402


class State:
    def __init__(self):
        self.items = {}


def new(entity_id):
    return State()


entity = EventSourcedEntity(pb.DESCRIPTOR.services_by_name["ShoppingCart"],
                            [pb.DESCRIPTOR, domain.DESCRIPTOR], new, "shopping-cart",
                            snapshot_every=0)  # it can take snapshots, but raises on getting one back


@entity.event_handler(domain.ItemAdded)
def item_added(state: State, event: domain.ItemAdded):
    if event.item.product_id in state.items:
        state.items[event.item.product_id].quantity += event.item.quantity
    else:
        item = domain.LineItem()
        item.CopyFrom(event.item)
        state.items[event.item.product_id] = item


@entity.event_handler(domain.ItemRemoved)
def item_removed(state: State, event: domain.ItemRemoved):
    del state.items[event.product_id]


@entity.command_handler("AddItem")
def add_item(command: pb.AddLineItem, context: EventSourcedCommandContext):
    if command.quantity <= 0:
        context.fail("Cannot add negative quantity of to item %s" % command.product_id)
    else:
        context.emit(domain.ItemAdded(item=domain.LineItem(
            product_id=command.product_id, name=command.name, quantity=command.quantity)))
    return Empty()


@entity.command_handler("RemoveItem")
def remove_item(state: State, command: pb.RemoveLineItem, context: EventSourcedCommandContext):
    if command.product_id not in state.items:
        raise KeyError("no %s" % command.product_id)
    context.emit(domain.ItemRemoved(product_id=command.product_id))
    return Empty()


@entity.command_handler("GetCart")
def get_cart(state: State):
    return pb.Cart(items=[pb.LineItem(product_id=i.product_id, name=i.name, quantity=i.quantity)
                          for i in state.items.values()])


CloudState().register_event_sourced_entity(entity).start()
