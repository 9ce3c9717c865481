"""Fixtures of the system tests."""

import pytest

import harness


@pytest.fixture
def lab(tmp_path, request):
    """Processes for one test; all are stopped at its end."""
    it = harness.Lab(tmp_path)
    request.node.lab = it
    yield it
    it.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and hasattr(item, "lab"):
        report.sections.extend(item.lab.report())
