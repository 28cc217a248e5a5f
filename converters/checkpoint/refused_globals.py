"""What the pickle of a checkpoint can name only to run code when it is loaded.

As nothing is ever imported or called, this list protects no reader of ours. It tells the user that
the file is an attack, instead of converting it as if nothing had been in it. Sources: the lists of
picklescan and modelscan, their published evasions, and torch's own unpickler.
"""

from __future__ import annotations

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# With everything below them.
_REFUSED_PACKAGES = _words(
    # What starts a process, or reaches the system or the network.
    "os subprocess multiprocessing concurrent asyncio ctypes cffi xmlrpc requests pexpect paramiko "
    "aiohttp httpx urllib3 "
    # What imports, compiles or evaluates code.
    "importlib lib2to3 idlelib tkinter pip ensurepip venv setuptools unittest test.support _pyrepl "
    # What unpickles once more, from data of its own.
    "dill cloudpickle joblib dbm sqlite3 "
    # Gadgets in the packages every user of a checkpoint has.
    "numpy.testing numpy.f2py numpy.distutils torch.hub torch.jit torch.package torch.testing "
    "torch.utils.collect_env torch.utils.bottleneck torch.utils.cpp_extension "
    "torch.utils.model_zoo torch.utils._config_module torch.utils.data.datapipes.utils.decoder "
    "torch.fx.graph_module torch.fx.experimental torch._dynamo torch._inductor "
    "torch.distributed.rpc torch.distributed.run torch.distributed.launch torch.distributed.elastic"
)

# Only themselves: `code.models.Net` is a class in somebody's folder called code.
_REFUSED_MODULES = _words(
    "posix nt _posixsubprocess popen2 commands pty sys _winapi winreg _ctypes _thread socket "
    "_socket socketserver ssl _ssl http.client http.server urllib.request urllib2 ftplib smtplib "
    "imaplib poplib nntplib telnetlib asyncore asynchat webbrowser antigravity shutil "
    "distutils.spawn distutils.file_util _osx_support _aix_support atexit "
    "fileinput logging.handlers logging.config tarfile zipfile syslog "
    "_frozen_importlib _frozen_importlib_external imp zipimport pkgutil runpy code codeop pdb bdb "
    "pydoc trace timeit profile cProfile doctest linecache site compileall py_compile "
    "marshal pickle _pickle cPickle shelve"
)

_LEADING_ELSEWHERE = _REFUSED_MODULES | _REFUSED_PACKAGES

_REFUSED_FUNCTIONS = _words(
    "io.open _io.open io.open_code _io.open_code io.FileIO _io.FileIO functools.reduce "
    "operator.methodcaller operator.attrgetter _operator.methodcaller _operator.attrgetter "
    "types.FunctionType types.CodeType types.LambdaType types.MethodType "
    "logging.FileHandler uuid._get_command_stdout uuid._popen copyreg.add_extension "
    "torch.load torch.serialization.load torch.serialization.add_safe_globals "
    "numpy.load numpy.fromfile numpy.memmap"
)

_REFUSED_NAMES = _words(
    "eval exec execfile system popen Popen check_output run_code import_module __import__ "
    "from_pretrained load_state_dict_from_url load_from_url _load_from_bytes"
)

_SCRIPT = "torch.jit._pickle"
"""In a refused package, but with nothing in it than what TorchScript's pickles call."""

# Of the built-ins, plain types and everything with a capital (exceptions, Ellipsis) are harmless;
# the rest is eval, open, getattr and their like.
_PLAIN_BUILTINS = _words(
    "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple "
    "type long unicode xrange"
)


def runs_code(module: str, name: str) -> bool:
    """Return whether ``module.name`` can be in a pickle only to run code when it is loaded.

    Args:
        module: As the pickle spells it; Python 2's names are known, as pickle itself takes them.
        name: May have dots since protocol 4, which walk from one attribute to the next.
    """
    today = NAME_MAPPING.get((module, name)) or (IMPORT_MAPPING.get(module, module), name)
    return _runs_code(module, name) or (today != (module, name) and _runs_code(*today))


def _runs_code(module: str, name: str) -> bool:
    if module == _SCRIPT and "." not in name:
        return False
    if module in ("builtins", "__builtin__"):
        return name not in _PLAIN_BUILTINS and not name[:1].isupper()
    parts = module.split(".")
    packages = {".".join(parts[: count + 1]) for count in range(len(parts))}
    steps = name.split(".")
    return (
        module in _REFUSED_MODULES
        or not _REFUSED_PACKAGES.isdisjoint(packages)
        or steps[-1] in _REFUSED_NAMES
        or f"{module}.{name}" in _REFUSED_FUNCTIONS
        # Walking through attributes is how a harmless module leads to another: `linalg.os.system`.
        or any(step.startswith("__") or step in _LEADING_ELSEWHERE for step in steps[:-1])
    )
