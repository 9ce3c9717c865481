"""The samples that are no cart, behind the proxy."""

import json
import sys

import harness
import protos
from harness import eventually
from journal_client import Journal

SAMPLES = protos.SOURCE / "contrib" / "samples"


def start(lab, folder, program):
    function = lab.function(program, [sys.executable, "-B", SAMPLES / folder / program])
    journal = lab.cairnd()
    return function, journal, lab.proxy(function, journal)


def post(proxy, path, **body):
    answer = harness.http_request(proxy.port, "POST", path, json.dumps(body))
    return answer.status, answer.body.decode()


def test_a_wallet_outlives_its_function_proxy_and_journal(lab):
    function, journal, proxy = start(lab, "wallet", "wallet.py")
    assert post(proxy, "/wallets/ada/deposits", cents=500) == (200, '{"cents":"500","payments":"1"}')
    assert post(proxy, "/wallets/ada/withdrawals", cents=600) == (
        500, "Cannot withdraw 600 cents: there are 500")
    for process in (proxy, function, journal):
        process.kill()
    for process in (journal, function, proxy):
        process.start()
        process.ready()
    assert post(proxy, "/wallets/ada/withdrawals", cents=120) == (200, '{"cents":"380","payments":"2"}')
    assert harness.http_request(proxy.port, "DELETE", "/wallets/ada").body == b'{"cents":"380","payments":"2"}'
    assert harness.http_request(proxy.port, "GET", "/wallets/ada").body == b'{"cents":"0","payments":"0"}'


def test_fraud_scores_over_http_and_streamed(lab):
    _, _, proxy = start(lab, "fraud-score", "fraud.py")
    assert post(proxy, "/fraud/score", cents=200000) == (
        200, '{"score":50,"reasons":["more than 100000 cents"]}')
    assert post(proxy, "/fraud/score", cents=0) == (500, "A payment of 0 cents is none")
    watch = harness.channel_to(proxy.port).stream_stream("/com.example.fraud.FraudScore/Watch", bytes, bytes)
    payments = [b"\x10\x64", b"\x10\x64\x1a\x02fr"]  # 100 cents each, the second from abroad
    assert list(watch(iter(payments), timeout=harness.PATIENCE)) == [b"", b"\x08\x1e\x12\x0bnot at home"]


def test_an_accounts_events_feed_the_action_and_raise_alerts(lab):
    function, journal, proxy = start(lab, "fraud-score", "fraud.py")

    def alerts():
        return json.loads(harness.http_request(proxy.port, "GET", "/accounts/ada/alerts").body)["alerts"]
    for cents in (100, 200000, 5):
        assert post(proxy, "/accounts/ada/payments", cents=cents) == (200, "{}")
    raised = eventually(alerts, "an alert is raised")
    assert [(a["payment"]["cents"], a["verdict"]["score"]) for a in raised] == [("200000", 50)]
    verdicts = Journal(journal.port)
    published = eventually(lambda: len(verdicts.read(category="$topic-verdicts")) == 3 and verdicts.read(
        category="$topic-verdicts"), "each verdict is published")
    assert [(e.header.stream, e.header.type, e.body.data[:2]) for e in published] == [
        ("$topic-verdicts|ada", "com.example.fraud.Verdict", start) for start in (b"", b"\x08\x32", b"")]
    for process in (proxy, function, journal):
        process.kill()
    for process in (journal, function, proxy):
        process.start()
        process.ready()
    assert post(proxy, "/accounts/ada/payments", cents=300000) == (200, "{}")
    eventually(lambda: len(alerts()) == 2, "the next payment's alert is raised, and none twice")


class Guest:
    """Somebody in a room, by his stream of news."""

    def __init__(self, proxy, name):
        pb = chat()
        join = harness.channel_to(proxy.port).unary_stream(
            "/com.example.chat.Chat/Join", pb.Guest.SerializeToString, pb.News.FromString)
        self.stream = join(pb.Guest(room="hall", name=name), timeout=4 * harness.PATIENCE)

    def hears(self, here, *lines):
        """The next news."""
        news = next(self.stream)
        assert (list(news.here), [line.text for line in news.lines]) == (here, list(lines))


def chat():
    sys.path.append(str(protos.SOURCE / "contrib" / "sdk" / "python"))
    import cairn_sdk
    return cairn_sdk.load(SAMPLES / "chat" / "chat.proto")


def test_a_chat_room_over_two_proxies_and_a_proxys_death(lab):
    journal = lab.cairnd()
    proxies = [lab.proxy(lab.function("chat-%s" % name, [sys.executable, "-B", SAMPLES / "chat" / "chat.py"]), journal,
                         name=name, options=("--session-ttl", "1s")) for name in ("one", "two")]
    for proxy in proxies:
        eventually(lambda: "count=2" in proxy.text(), "they know of each other")
    ada = Guest(proxies[0], "ada")
    ada.hears(["ada"])
    ben = Guest(proxies[1], "ben")
    ben.hears(["ada", "ben"])
    ada.hears(["ada", "ben"])
    assert post(proxies[0], "/rooms/hall/lines", name="ada", text="Good morning") == (200, "{}")
    ada.hears(["ada", "ben"], "Good morning")
    ben.hears(["ada", "ben"], "Good morning")
    assert post(proxies[1], "/rooms/hall/lines", name="cas", text="x") == (
        500, "Who speaks must be in the room: 'cas' is not")
    cas = Guest(proxies[0], "cas")
    cas.hears(["ada", "ben", "cas"], "Good morning")
    ada.hears(["ada", "ben", "cas"])
    cas.stream.cancel()
    ada.hears(["ada", "ben"])
    proxies[1].kill()
    ada.hears(["ada"])
    look = harness.http_request(proxies[0].port, "GET", "/rooms/hall")
    assert json.loads(look.body)["here"] == ["ada"]
