import com.example.shoppingcart.Shoppingcart;
import com.example.shoppingcart.domain.Domain;
import com.google.protobuf.Empty;
import io.cloudstate.javasupport.CloudState;
import io.cloudstate.javasupport.EntityId;
import io.cloudstate.javasupport.eventsourced.CommandContext;
import io.cloudstate.javasupport.eventsourced.CommandHandler;
import io.cloudstate.javasupport.eventsourced.EventHandler;
import io.cloudstate.javasupport.eventsourced.EventSourcedEntity;
import io.cloudstate.javasupport.eventsourced.Snapshot;
import io.cloudstate.javasupport.eventsourced.SnapshotHandler;
import java.util.LinkedHashMap;
import java.util.Map;

/** The sample's shopping cart on the protocol's own Java SDK; a snapshot every 3 events. */
@EventSourcedEntity(persistenceId = "shopping-cart", snapshotEvery = 3)
public final class Cart {
  private final Map<String, Domain.LineItem> items = new LinkedHashMap<>();

  public Cart(@EntityId String id) {}

  @Snapshot
  public Domain.Cart snapshot() {
    return Domain.Cart.newBuilder().addAllItems(items.values()).build();
  }

  @SnapshotHandler
  public void restore(Domain.Cart cart) {
    items.clear();
    for (Domain.LineItem item : cart.getItemsList()) items.put(item.getProductId(), item);
  }

  @EventHandler
  public void itemAdded(Domain.ItemAdded event) {
    Domain.LineItem item = event.getItem();
    Domain.LineItem before = items.get(item.getProductId());
    if (before != null)
      item = item.toBuilder().setQuantity(before.getQuantity() + item.getQuantity()).build();
    items.put(item.getProductId(), item);
  }

  @EventHandler
  public void itemRemoved(Domain.ItemRemoved event) {
    items.remove(event.getProductId());
  }

  @CommandHandler
  public Empty addItem(Shoppingcart.AddLineItem command, CommandContext context) {
    if (command.getQuantity() <= 0)
      context.fail("Cannot add negative quantity of to item " + command.getProductId());
    context.emit(Domain.ItemAdded.newBuilder().setItem(Domain.LineItem.newBuilder()
        .setProductId(command.getProductId()).setName(command.getName())
        .setQuantity(command.getQuantity())).build());
    return Empty.getDefaultInstance();
  }

  @CommandHandler
  public Empty removeItem(Shoppingcart.RemoveLineItem command, CommandContext context) {
    if (!items.containsKey(command.getProductId()))
      context.fail("Cannot remove item " + command.getProductId());
    context.emit(Domain.ItemRemoved.newBuilder().setProductId(command.getProductId()).build());
    return Empty.getDefaultInstance();
  }

  @CommandHandler
  public Shoppingcart.Cart getCart() {
    Shoppingcart.Cart.Builder cart = Shoppingcart.Cart.newBuilder();
    for (Domain.LineItem item : items.values())
      cart.addItems(Shoppingcart.LineItem.newBuilder().setProductId(item.getProductId())
          .setName(item.getName()).setQuantity(item.getQuantity()));
    return cart.build();
  }

  public static void main(String[] arguments) throws Exception {
    new CloudState()
        .registerEventSourcedEntity(Cart.class,
            Shoppingcart.getDescriptor().findServiceByName("ShoppingCart"), Domain.getDescriptor())
        .start().toCompletableFuture().get();
  }
}
