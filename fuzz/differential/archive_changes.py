"""What is changed in an archive: parts moved, doubled, spliced, pointed elsewhere; fields; names.

A change takes an archive apart already (:mod:`fuzz.differential.archives`), and changes it in
place. None is made for a certain fault; together they make archives with two directories, with two
end records, with twins of an entry, and with headers that tell different stories.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from fuzz.differential.archives import (
    DEFLATED,
    SIZES_FOLLOW,
    STORED,
    Archive,
    Directory,
    End,
    Junk,
    Local,
    Locator,
    Record,
    Row,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

EditContent: TypeAlias = Callable[[bytes, bytes, Random], bytes]
"""Changes the content of an entry, given its name."""

_FIELDS = {
    Local: ("signature", "needed", "flags", "method", "crc", "packed", "size", "name", "extra"),
    Row: ("signature", "made", "needed", "flags", "method", "crc", "packed", "size", "name",
          "extra", "comment", "disk", "internal", "external", "offset"),
    Record: ("signature", "rest", "made", "needed", "disk", "start_disk", "here", "entries", "size",
             "offset"),
    Locator: ("signature", "disk", "offset", "disks"),
    End: ("signature", "disk", "start_disk", "here", "entries", "size", "offset", "comment"),
}  # fmt: skip

_NUMBERS = (0, 1, 2, 8, 9, 20, 44, 45, 56, 64, 99, 0x0800, 0x0808, 0x7FFF, 0xFFFF, 0x7FFFFFFF,
            0xFFFFFFFE, 0xFFFFFFFF, 0x04034B50, 0x02014B50, 0x06054B50, 0x06064B50, 1 << 40,
            (1 << 63) - 1, (1 << 64) - 1)  # fmt: skip

_JUNK = (
    b"\0", b"\0" * 64, b"PK\3\4", b"PK\1\2", b"PK\5\6" + bytes(18), b"PK\6\7" + bytes(16), b"junk",
    b"\x80\x02}q\0.", b"\n",
)  # fmt: skip


class Changes:
    """Changes archives at random.

    Args:
        rng: Decides everything.
        others: Makes another archive, taken apart anew, whose parts may be spliced in.
        edit: Changes the content of an entry.
    """

    def __init__(self, rng: Random, others: Callable[[], Archive], edit: EditContent) -> None:
        self._rng = rng
        self._others = others
        self._edit = edit
        self._all: tuple[tuple[int, Callable[[Archive], None]], ...] = (
            (5, self.field),
            (3, self.name),
            (4, self.twin),
            (2, self.double),
            (1, self.drop),
            (2, self.move),
            (4, self.point_elsewhere),
            (3, self.splice),
            (2, self.adopt_rows),
            (2, self.junk),
            (2, self.widen),
            (2, self.form),
            (5, self.content),
            (2, self.exchange),
            (2, self.extra),
            (2, self.comment),
            (1, self.order),
        )

    def change(self, archive: Archive) -> None:
        """Make one change, in place; there may be nothing to change."""
        weights, changes = zip(*self._all, strict=True)
        self._rng.choices(changes, weights)[0](archive)

    def _one(self, values: Sequence[T]) -> T | None:
        return self._rng.choice(values) if values else None

    def _headers(self, archive: Archive) -> list[Local | Row | Record | Locator | End]:
        parts = [part for part in archive if isinstance(part, Local | Record | Locator | End)]
        return [*parts, *(row for rows in _directories(archive) for row in rows.rows)]

    def field(self, archive: Archive) -> None:
        """Let a header state another number."""
        header = self._one(self._headers(archive))
        if header is None:
            return
        name = self._rng.choice(_FIELDS[type(header)])
        near = self._rng.randrange(-70, 4000)
        number = self._rng.choice((near % (1 << 32), *_NUMBERS))
        if name == "signature":
            number = self._rng.choice((0, 0x04034B50, 0x02014B50, 0x06054B50, 0x08074B50))
        header.said[name] = number

    def name(self, archive: Archive) -> None:
        """Call an entry something else: in its own header, in the directory, or in both."""
        row = self._one([row for rows in _directories(archive) for row in rows.rows])
        if row is None:
            return
        name = self._other_name(archive, row.name)
        both = self._rng.randrange(4)
        if both != 0:
            row.name = name
        if both != 1:
            row.local.name = name

    def _other_name(self, archive: Archive, name: bytes) -> bytes:
        names = [part.name for part in archive if isinstance(part, Local)]
        folder, slash, leaf = name.partition(b"/")
        return self._rng.choice(
            (
                *(names or [name]),
                name.swapcase(),
                name.upper(),
                folder + slash + leaf.upper(),
                folder.upper() + slash + leaf,
                folder + slash + leaf[:-1] + b"0",
                b"other/" + leaf,
                leaf,
                name + b"/",
                b"/" + name,
                b"./" + name,
                folder + b"//" + leaf,
                folder + b"\\" + leaf,
                folder + b"/../" + name,
                folder + slash + b"x/../" + leaf,
                name + b"\0",
                name + b"\0x",
                folder + slash + leaf.replace(b"a", b"\xc3\xa1"),
                name.replace(b"k", b"\xe2\x84\xaa"),
                b"",
            )
        )

    def twin(self, archive: Archive) -> None:
        """Add an entry with the name of another in some form, and changed content."""
        directory = self._one(_directories(archive))
        row = self._one(directory.rows) if directory else None
        if directory is None or row is None:
            return
        local = _copied(row.local)
        local.content = self._edit(local.name, local.content, self._rng)
        added = _copied(row)
        added.local = local
        local.name = added.name = self._other_name(archive, row.name)
        index = archive.index(row.local) if row.local in archive else 0
        archive.insert(index + self._rng.randrange(2), local)
        place = directory.rows.index(row)
        directory.rows.insert(self._rng.choice((0, place, place + 1, len(directory.rows))), added)

    def double(self, archive: Archive) -> None:
        """Put a copy of a part somewhere, with or without content of its own."""
        part = self._one(archive)
        if part is None:
            return
        twin = copy.copy(part)
        twin.said = dict(part.said)
        if isinstance(twin, Directory):
            twin.rows = [_copied(row) for row in twin.rows]
        archive.insert(self._rng.randrange(len(archive) + 1), twin)

    def drop(self, archive: Archive) -> None:
        """Leave out a part, or a row of a directory."""
        directory = self._one(_directories(archive))
        if self._rng.randrange(2) and directory and directory.rows:
            directory.rows.pop(self._rng.randrange(len(directory.rows)))
        elif archive:
            archive.pop(self._rng.randrange(len(archive)))

    def move(self, archive: Archive) -> None:
        """Move a part."""
        if archive:
            part = archive.pop(self._rng.randrange(len(archive)))
            archive.insert(self._rng.randrange(len(archive) + 1), part)

    def point_elsewhere(self, archive: Archive) -> None:
        """Let a row, an end record or a locator point at another part of the same kind."""
        rows = [row for rows in _directories(archive) for row in rows.rows]
        kinds: list[Row | End | Record | Locator | None] = [
            self._one(rows),
            self._one([part for part in archive if isinstance(part, End)]),
            self._one([part for part in archive if isinstance(part, Record)]),
            self._one([part for part in archive if isinstance(part, Locator)]),
        ]
        match self._rng.choice(kinds):
            case Row() as row:
                locals_ = [part for part in archive if isinstance(part, Local)]
                row.local = self._one(locals_) or row.local
            case End() | Record() as record:
                record.directory = self._one(_directories(archive)) or record.directory
            case Locator() as locator:
                records = [part for part in archive if isinstance(part, Record)]
                locator.record = self._one(records) or locator.record

    def splice(self, archive: Archive) -> None:
        """Put another archive, or the beginning of one, between two parts."""
        other = self._others()
        keep = self._rng.choice((len(other), len(other) - 1, self._rng.randrange(len(other)) + 1))
        at = self._rng.choice((0, len(archive), self._rng.randrange(len(archive) + 1)))
        archive[at:at] = other[:keep]

    def adopt_rows(self, archive: Archive) -> None:
        """Let one directory have rows of another."""
        directories = _directories(archive)
        to, source = self._one(directories), self._one(directories)
        if to and source and source.rows:
            to.rows.insert(
                self._rng.choice((0, len(to.rows))), _copied(self._rng.choice(source.rows))
            )

    def junk(self, archive: Archive) -> None:
        """Put bytes that belong to nothing somewhere."""
        at = self._rng.choice((0, len(archive), self._rng.randrange(len(archive) + 1)))
        archive.insert(at, Junk(self._rng.choice(_JUNK)))

    def widen(self, archive: Archive) -> None:
        """Leave numbers to zip64's forms, or take them back."""
        ends = [index for index, part in enumerate(archive) if isinstance(part, End)]
        rows = [row for rows in _directories(archive) for row in rows.rows]
        what = self._rng.randrange(3)
        if what == 0 and ends:
            end = archive[self._rng.choice(ends)]
            assert isinstance(end, End)  # noqa: S101
            end.wide = not end.wide
        elif what == 1 and ends:
            at = self._rng.choice(ends)
            end = archive[at]
            assert isinstance(end, End)  # noqa: S101
            record = Record(end.directory)
            archive[at:at] = [record, Locator(record)]
        elif rows:
            row = self._rng.choice(rows)
            row.wide = not row.wide

    def form(self, archive: Archive) -> None:
        """Compress an entry, or state its sizes behind it."""
        local = self._one([part for part in archive if isinstance(part, Local)])
        if local is None:
            return
        if self._rng.randrange(2):
            local.method = STORED if local.method == DEFLATED else DEFLATED
        else:
            local.descriptor = self._rng.choice((0, 16, 24))
            local.flags = SIZES_FOLLOW if local.descriptor else 0

    def content(self, archive: Archive) -> None:
        """Change what is in an entry."""
        local = self._one([part for part in archive if isinstance(part, Local)])
        if local is not None:
            local.content = self._edit(local.name, local.content, self._rng)

    def exchange(self, archive: Archive) -> None:
        """Give an entry the content of another, of this archive or another one."""
        local = self._one([part for part in archive if isinstance(part, Local)])
        others = archive if self._rng.randrange(2) else self._others()
        parts = [part for part in others if isinstance(part, Local)]
        if local is None:
            return
        alike = [part for part in parts if part.name == local.name]
        other = self._one(alike if self._rng.randrange(2) else parts)
        if other is not None:
            local.content = other.content

    def extra(self, archive: Archive) -> None:
        """Put an extra field behind a name: a wide size, another name, or nothing known."""
        headers = [part for part in self._headers(archive) if isinstance(part, Local | Row)]
        header = self._one(headers)
        if header is None:
            return
        tag = self._rng.choice((1, 0x7075, 0x4246, 0x5455, 0xFFFF))
        body = self._rng.choice(
            (b"", bytes(8), bytes(28), b"\1" + bytes(4) + self._other_name(archive, header.name))
        )
        size = len(body) + self._rng.choice((0, 0, 0, 1, -1, 1000))
        field = tag.to_bytes(2, "little") + (size % 0x10000).to_bytes(2, "little") + body
        header.extra = self._rng.choice((field, field + header.extra, header.extra + field))

    def comment(self, archive: Archive) -> None:
        """Put something into a comment, which may look like the end of an archive."""
        end = self._one([part for part in archive if isinstance(part, End)])
        other = self._others()
        text = self._rng.choice((b"x", *_JUNK, written(other), written(other[-1:])))
        if end is not None:
            end.comment = text

    def order(self, archive: Archive) -> None:
        """Shuffle the rows of a directory."""
        directory = self._one(_directories(archive))
        if directory is not None:
            self._rng.shuffle(directory.rows)


def _directories(archive: Archive) -> list[Directory]:
    return [part for part in archive if isinstance(part, Directory)]


L = TypeVar("L", Local, Row)


def _copied(part: L) -> L:
    twin = copy.copy(part)
    twin.said = dict(part.said)
    return twin
