#!/usr/bin/python3
"""A shopping cart, one event sourced entity for each user.

Run it as it stands: it serves on HOST and PORT (127.0.0.1:8080 by default), for a Cairn proxy to connect to.
"""

import pathlib
import sys
from typing import Dict

HERE = pathlib.Path(__file__).resolve().parent
try:
    import cairn_sdk
except ImportError:  # not installed: the one of this source tree
    sys.path.append(str(HERE.parents[1] / "sdk" / "python"))
    try:
        import cairn_sdk
    except ImportError as missing:
        sys.exit("%s: run it with /usr/bin/python3, after apt-get install python3-grpcio python3-protobuf"
                 % missing)

pb = cairn_sdk.load(HERE / "shoppingcart.proto")
domain = cairn_sdk.load(HERE / "domain.proto")

# The state: the items by their product's id, in the order in which they came.
Items = Dict[str, domain.LineItem]

cart = cairn_sdk.EventSourced[Items](
    pb.DESCRIPTOR.services_by_name["ShoppingCart"], persistence_id="shopping-cart",
    state=lambda user_id: {}, snapshot_every=20)


@cart.command("AddItem")
def add_item(items: Items, command: pb.AddLineItem, context: cairn_sdk.Context) -> None:
    if command.quantity <= 0:
        context.fail("Cannot add %d of %s: the quantity must be at least 1"
                     % (command.quantity, command.product_id))
    context.emit(domain.ItemAdded(item=domain.LineItem(
        product_id=command.product_id, name=command.name, quantity=command.quantity)))


@cart.command("RemoveItem")
def remove_item(items: Items, command: pb.RemoveLineItem, context: cairn_sdk.Context) -> None:
    if command.product_id not in items:
        context.fail("Cannot remove %s: it is not in the cart" % command.product_id)
    context.emit(domain.ItemRemoved(product_id=command.product_id))


@cart.command("GetCart")
def get_cart(items: Items, command: pb.GetShoppingCart, context: cairn_sdk.Context) -> pb.Cart:
    return pb.Cart(items=[pb.LineItem(product_id=i.product_id, name=i.name, quantity=i.quantity)
                          for i in items.values()])


@cart.event(domain.ItemAdded)
def item_added(items: Items, event: domain.ItemAdded) -> None:
    if event.item.product_id in items:
        items[event.item.product_id].quantity += event.item.quantity
    else:
        items[event.item.product_id] = event.item


@cart.event(domain.ItemRemoved)
def item_removed(items: Items, event: domain.ItemRemoved) -> None:
    del items[event.product_id]


@cart.snapshot
def snapshot(items: Items) -> domain.Cart:
    return domain.Cart(items=items.values())


@cart.restore(domain.Cart)
def restore(kept: domain.Cart) -> Items:
    return {item.product_id: item for item in kept.items}


if __name__ == "__main__":
    cairn_sdk.serve(cart, name="shopping-cart", version=cairn_sdk.__version__)
