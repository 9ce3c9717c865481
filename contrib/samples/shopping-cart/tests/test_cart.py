"""The cart's behaviour, without a server."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from cart import cairn_sdk, cart, domain, pb  # noqa: E402


def add(product_id, quantity=1, name="a thing"):
    return pb.AddLineItem(user_id="u", product_id=product_id, name=name, quantity=quantity)


def line(product_id, quantity, name="a thing"):
    return pb.LineItem(product_id=product_id, name=name, quantity=quantity)


def items(test):
    return list(test.handle("GetCart", pb.GetShoppingCart(user_id="u")).reply.items)


def test_an_empty_cart():
    assert items(cairn_sdk.EntityTest(cart)) == []


def test_items_are_added_in_order_and_summed():
    test = cairn_sdk.EntityTest(cart)
    for product_id, quantity in (("b", 1), ("a", 2), ("b", 3)):
        result = test.handle("AddItem", add(product_id, quantity))
        assert result.events == [domain.ItemAdded(item=domain.LineItem(
            product_id=product_id, name="a thing", quantity=quantity))]
    assert items(test) == [line("b", 4), line("a", 2)]


def test_a_quantity_must_be_positive():
    for quantity in (0, -1):
        result = cairn_sdk.EntityTest(cart).handle("AddItem", add("p", quantity))
        assert result.failure == "Cannot add %d of p: the quantity must be at least 1" % quantity
        assert result.events == []


def test_items_are_removed_if_they_are_there():
    test = cairn_sdk.EntityTest(cart)
    test.handle("AddItem", add("p"))
    remove = pb.RemoveLineItem(user_id="u", product_id="p")
    assert test.handle("RemoveItem", remove).events == [domain.ItemRemoved(product_id="p")]
    assert items(test) == []
    assert test.handle("RemoveItem", remove).failure == "Cannot remove p: it is not in the cart"


def test_it_comes_back_from_events_and_from_its_snapshot():
    test = cairn_sdk.EntityTest(cart)
    snapshots = 0
    for i in range(45):
        snapshots += test.handle("AddItem", add("p%d" % (i % 4))).snapshot is not None
        before = items(test)
        test.reactivate()
        assert items(test) == before
    assert snapshots == 2
    assert [i.quantity for i in items(test)] == [12, 11, 11, 11]
