"""What tests of conversion need, tests of what is made for it need as well."""

from __future__ import annotations

from tests.converters.conftest import one_thread

__all__ = ["one_thread"]
