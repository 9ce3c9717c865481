"""The samples that are no cart, behind the proxy."""

import json
import sys

import harness
import protos

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
