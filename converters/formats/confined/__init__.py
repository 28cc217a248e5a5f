"""Programs of strangers run in a process of their own, within bounds of time and memory.

An artefact is a program: a few hundred bytes can loop for ever, take all memory, or write files.
One that is not known to be what this project writes is therefore opened and run by a child
(:mod:`converters.formats.confined.child`) that the kernel keeps from writing
(:func:`regnet.files.system.give_up_rights`), and spoken to in JSON and plain arrays
(:mod:`converters.formats.confined.wire`), never in pickles.
"""

from converters.formats.confined.program import Allowance, ConfinedProgram, ProgramError

__all__ = ["Allowance", "ConfinedProgram", "ProgramError"]
