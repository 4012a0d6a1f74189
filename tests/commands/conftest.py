"""What the command's tests share: the client's fixtures, and who calls them."""

import inspect
import sys

import pytest
import pytest_twisted  # type: ignore[import-untyped]

from tests.client.conftest import _ports, both_families

__all__ = ["_ports", "both_families"]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Have pytest call what is no coroutine.

    pytest-twisted calls every test from within its reactor, which then stands still, and no command
    that runs in the test could wait for it.
    """
    if inspect.iscoroutinefunction(inspect.unwrap(pyfuncitem.obj)):
        return None
    call = pyfuncitem.config.pluginmanager.subset_hook_caller(
        "pytest_pyfunc_call", [pytest_twisted, sys.modules[__name__]]
    )
    return call(pyfuncitem=pyfuncitem)
