"""The verdict on an artefact that is larger than the machine's memory."""

from __future__ import annotations

from converters.parity.against import NotRunVerdict


class TooLargeVerdict(NotRunVerdict):
    """On an artefact that was not run for want of memory: its tensors alone decide."""

    @property
    def reason(self) -> str:
        """What is wrong with the tensors, else that they were all there was to judge."""
        return self.failure or f"its tensors are the folder's; {self.runtime}"
