"""The function that tests play: its services (data/model.proto), its spec, and ways to spoil it."""

import protos

pb = protos.data("model")

MODEL, TWO, NUMBERED = "cairn.test.Model", "cairn.test.Two", "cairn.test.Numbered"
EVENT_SOURCED = "cloudstate.eventsourced.EventSourced"


def files():
    """The descriptors of the model and of all it imports; users first, since proxies must not care."""
    return protos.descriptors(pb, users_first=True)


def spec(persistence_ids=None, passivate_ms=0, change=None, change_files=None):
    """An EntitySpec. `persistence_ids`: of which services (all three by default). `change(spec)` and
    `change_files(file set)` may spoil it."""
    set_of_files = files()
    if change_files:
        change_files(set_of_files)
    it = protos.cloudstate.EntitySpec(
        proto=set_of_files.SerializeToString(),
        service_info=protos.cloudstate.ServiceInfo(
            service_name="the test", service_version="1", support_library_name="none",
            protocol_major_version=0, protocol_minor_version=2))
    for service, persistence_id in (persistence_ids or {MODEL: "model", TWO: "two", NUMBERED: "n"}).items():
        entity = it.entities.add(entity_type=EVENT_SOURCED, service_name=service,
                                 persistence_id=persistence_id)
        if passivate_ms:
            entity.passivation_strategy.timeout.timeout = passivate_ms
    if change:
        change(it)
    return it


def file_of(set_of_files, name="model.proto"):
    return [f for f in set_of_files.file if f.name == name][0]


def method_of(set_of_files, service, method):
    for s in file_of(set_of_files).service:
        if s.name == service:
            return [m for m in s.method if m.name == method][0]
    raise KeyError(service)


def happened(what):
    return pb.Happened(what=what)


def response(message):
    return pb.Response(message=message)


def request(entity_id, text=""):
    return pb.Request(id=entity_id, text=text)
