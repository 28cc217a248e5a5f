"""`conversion.json` as it is read: what was converted and how, the files, and their verdicts.

Everything that reads it (verify, export, push, bench, batch, the model card) reads it here, so that
all judge by the same words; what jobs write into it is `parity/recording.py`'s. Whoever made a
folder may have written anything into it: names that leave the folder are refused and never opened.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

from converters.checkpoint.digests import sha256_of
from converters.errors import InputError, printable
from converters.families.options import SourceOptions
from converters.families.source import LICENCE
from converters.folder.folder import REPORT_NAME
from regnet.design_space import complexity
from regnet.files.json_file import as_text, write_json
from regnet.files.reading import is_inside, read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from converters.weights.inspection import Inspection

SCHEMA = 1
"""Of conversion.json; it grows when a key changes its meaning."""

Outcome = Literal["pass", "FAIL", "not run"]
"""What a verdict comes to: a folder passes without a fail, though something may not have run."""

NOT_VERIFIED: Mapping[str, Any] = {"passed": None, "changed_files": [], "verdicts": []}
"""What stands in the place of a report that nobody has made: neither pass nor fail."""

_LONGEST_NAME = 255
"""Bytes of a file's name, as file systems have it."""

_ARCHITECTURE = (
    *("layer_type", "depths", "hidden_sizes", "groups_width"),
    *("embedding_size", "num_channels"),
)
"""Of the configuration, as they are recorded."""

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "channel_order": (None, "rgb", "bgr"),
    "weights": ("best", "raw", "ema"),
}


@dataclass(frozen=True)
class Record:
    """What a folder's ``conversion.json`` says; its keys are checked as far as they are used here.

    Attributes:
        fields: All of its keys, in their order; those that are not known are kept.
    """

    fields: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """Read a folder's record; None if it has none.

        Raises:
            InputError: If it cannot be read, is damaged, or names files outside the folder.
        """
        path = folder / REPORT_NAME
        if not path.is_file():
            return None
        try:
            fields = _parsed(path)
        except (ValueError, OSError) as error:
            raise InputError(
                f"{path} is damaged ({printable(str(error))}); convert the checkpoint again."
            ) from error
        return cls(fields)

    @classmethod
    def required(cls, folder: Path) -> Record:
        """Read the record of a folder that must have one.

        Raises:
            InputError: If it has none; see also :meth:`read`.
        """
        record = cls.read(folder)
        if record is None:
            raise InputError(
                f"{folder} holds no {REPORT_NAME}; convert with `regnet convert` first."
            )
        return record

    def write(self, folder: Path) -> None:
        """Write it into a folder, as readable JSON."""
        write_json(folder / REPORT_NAME, self.fields)

    @property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """Name of each recorded file, with slashes, to its ``sha256``, often ``size`` and more."""
        return cast("Mapping[str, Mapping[str, Any]]", self.fields["files"])

    @property
    def decisions(self) -> Sequence[Mapping[str, str]]:
        """What was decided about the source: ``topic``, ``value`` and ``reason`` of each."""
        return cast("Sequence[Mapping[str, str]]", self.fields.get("decisions", []))

    @property
    def licence(self) -> str | None:
        """Of the weights, as the source states it; None if it states none."""
        return next((d["value"] for d in self.decisions if d["topic"] == LICENCE), None)

    @property
    def verification(self) -> Mapping[str, Any]:
        """Its verdicts, and whether all of them let the folder pass."""
        return cast("Mapping[str, Any]", self.fields.get("verification", NOT_VERIFIED))

    @property
    def verdicts(self) -> Sequence[Mapping[str, Any]]:
        """The verdicts, as :meth:`converters.parity.verdict.Verdict.to_dict` gives them."""
        return cast("Sequence[Mapping[str, Any]]", self.verification.get("verdicts", []))

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """Artefact, or the names of the weights files, to what its verdict says."""
        return {verdict["artefact"]: outcome_of(verdict) for verdict in self.verdicts}

    @property
    def source_options(self) -> SourceOptions:
        """What the user decided about the source, so that it can be read in the same way again.

        Raises:
            InputError: If a choice is none that there is.
        """
        from converters.families.known import FAMILIES

        options = self.fields.get("options", {})
        choices = {"framework": (None, *FAMILIES), **_CHOICES}
        chosen = {key: options.get(key, allowed[0]) for key, allowed in choices.items()}
        head = options.get("head")
        unknown = [key for key, allowed in choices.items() if chosen[key] not in allowed]
        if not isinstance(head, str | None):
            unknown.append("head")
        if unknown:
            raise InputError(
                f"{REPORT_NAME} is damaged (its option {unknown[0]} is none that there is); state "
                "the choice on the command line, or convert the checkpoint again."
            )
        return SourceOptions(**chosen, head=head)

    def path_of(self, folder: Path, name: str) -> Path:
        """Where a recorded file lies.

        Raises:
            InputError: If a link takes the name out of the folder.
        """
        path = folder / name
        if not path.parent.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"{folder / REPORT_NAME} names {printable(name)}, which a link takes out of the "
                "folder; put what it leads to in its place."
            )
        return path

    def changed_files(
        self, folder: Path, begin: Callable[..., Callable[[], str | None]] = partial
    ) -> tuple[tuple[str, ...], dict[str, str]]:
        """Compare files with what is recorded of them.

        Args:
            folder: Where they lie.
            begin: Called with a function and its argument, gives what calls it or has done so.

        Returns:
            Names of those that are missing or have another sha256 than recorded, and the sha256 of
            each that is as it was.

        Raises:
            InputError: If a link takes a name out of the folder.
        """
        changed: list[str] = []
        unchanged: dict[str, str] = {}
        begun = {name: begin(_digest_of, self.path_of(folder, name)) for name in sorted(self.files)}
        for name, found in begun.items():
            digest = found()
            if digest is None or digest != self.files[name]["sha256"]:
                changed.append(name)
            else:
                unchanged[name] = digest
        return tuple(changed), unchanged


def _digest_of(path: Path) -> str | None:
    return sha256_of(path) if path.is_file() else None


def outcome_of(verdict: Mapping[str, Any]) -> Outcome:
    """What a recorded verdict says; earlier versions call passed what was not run."""
    stated = verdict.get("outcome")
    if not verdict["passed"]:
        return "not run" if stated == "not run" else "FAIL"
    return "pass" if verdict["measurements"] and stated in {None, "pass"} else "not run"


def planned_record(inspection: Inspection) -> dict[str, Any]:
    """What ``conversion.json`` says that is known before a weight is read."""
    return {
        "architecture": architecture_record(inspection),
        "decisions": [asdict(decision) for decision in inspection.source.decisions],
        "plan": [
            {"source": step.source_name, "target": step.target.name, "action": step.action}
            for step in inspection.plan.steps
        ],
        "skipped": dict(inspection.plan.skipped),
    }


def architecture_record(inspection: Inspection) -> dict[str, Any]:
    """Name, shape and cost of the network, at its own image size."""
    source = inspection.source
    return {
        "name": inspection.network_name,
        **{field: getattr(source.config, field) for field in _ARCHITECTURE},
        "num_labels": source.config.num_labels if source.has_classifier else 0,
        **asdict(complexity(source.config, source.transform.crop)),
        "image_size": source.transform.crop,
    }


def _parsed(path: Path) -> dict[str, Any]:
    """Read and check a record.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged.
    """
    try:
        fields: dict[str, Any] = read_json(path)
    except ValueError as error:
        raise ValueError(f"it {error}") from error
    as_text(fields)  # refuses NaN and infinity
    _require_form(fields)
    return fields


def _require_form(fields: Any) -> None:
    """Check everything that is used here or by others.

    Raises:
        ValueError: If something is of another kind, or a name leaves the folder.
    """
    _require(fields, dict, "it")
    for name, entry in _require(fields.get("files"), dict, "files").items():
        _require(_require(entry, dict, f"{name}'s entry").get("sha256"), str, f"{name}'s sha256")
        _require_inside(name)
    for key, kind in {"source": dict, "architecture": dict, "options": dict}.items():
        _require(fields.get(key, {}), kind, key)
    for decision in _require(fields.get("decisions", []), list, "decisions"):
        for key in ("topic", "value", "reason"):
            _require(_require(decision, dict, "a decision").get(key), str, f"a decision's {key}")
    verification = _require(fields.get("verification", {"verdicts": []}), dict, "verification")
    for verdict in _require(verification.get("verdicts"), list, "verdicts"):
        _require_verdict(_require(verdict, dict, "a verdict"))


def _require_verdict(verdict: Mapping[str, Any]) -> None:
    for key, kind in {"artefact": str, "runtime": str, "passed": bool}.items():
        _require(verdict.get(key), kind, f"a verdict's {key}")
    for measurement in _require(verdict.get("measurements"), list, "a verdict's measurements"):
        _require(measurement, dict, "a measurement")
        for key in ("rms_ratio", "max_ratio"):
            _require(measurement.get(key), (int, float, type(None)), f"a measurement's {key}")
    for key in ("not_run", "not_compared"):
        _require(verdict.get(key), (str, type(None)), f"a verdict's {key}")


def _require_inside(name: str) -> None:
    """Check that a file's name stays in its folder, whatever lies there."""
    leaves = not is_inside(name) or not name.isprintable()
    if leaves or any(len(part.encode()) > _LONGEST_NAME for part in name.split("/")):
        raise ValueError(f"it names {name[:_LONGEST_NAME]!r}, which is no file of the folder")


def _require(value: Any, kind: type | tuple[type, ...], what: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{what} is missing or of the wrong kind")
    return value
