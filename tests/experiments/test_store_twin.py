"""A store does what a dictionary would, whatever is done to it in whatever order."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bwe_env.errors import UnknownNameError
from experiments.artifact_store import ABSENT, Store
from experiments.manifest import NotInStoreError, ReferenceChangedError
from experiments.transfer import transfer
from tests.experiments.stored_models import (
    add_files,
    blobs,
    damage,
    read_files,
    visible,
    write_files,
)

#: Files that share content: a large one, the same with its middle changed, small ones.
LARGE = np.random.default_rng(0).bytes(40_000)
CONTENTS = [
    {"weights.bin": LARGE},
    {"weights.bin": LARGE[:20_000] + b"changed" + LARGE[20_000:]},
    {"weights.bin": LARGE, "notes.txt": b"notes"},
    {"notes.txt": b"notes", "empty": b""},
    {"a/notes.txt": b"notes", "b/notes.txt": b"notes"},
]
NAMES = st.sampled_from(["model", "policy", "last"])
CONTENT = st.sampled_from(range(len(CONTENTS)))


class StoreTwin(RuleBasedStateMachine):
    """The store, and beside it dictionaries of what it has to hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.store = Store(self.root / "store", durable=False)
        self.other = Store(self.root / "other", durable=False)
        self.digests = [
            add_files(Store(self.root / "all", durable=False), self.root / f"in-{i}", files)
            for i, files in enumerate(CONTENTS)
        ]
        self.artifacts: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self.steps = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(content=CONTENT)
    def add(self, content: int) -> None:
        digest = add_files(self.store, self.root / f"in-{content}", CONTENTS[content])
        assert digest == self.digests[content]
        self.artifacts[digest] = content

    @rule(content=CONTENT)
    def receive(self, content: int) -> None:
        source = Store(self.root / "all")
        digest = self.digests[content]
        before = len(blobs(self.store))
        report = transfer(source, self.store, digest)
        assert report.blobs_sent == len(blobs(self.store)) - before
        assert transfer(source, self.store, digest).bytes_sent == 0
        self.artifacts[digest] = content

    @rule(name=NAMES, content=CONTENT, expects=st.none() | CONTENT | st.just(ABSENT))
    def name(self, name: str, content: int, expects: int | str | None) -> None:
        digest = self.digests[content]
        expected = self.digests[expects] if isinstance(expects, int) else expects
        now = self.names.get(name, ABSENT)
        if digest not in self.artifacts:
            with pytest.raises(NotInStoreError):
                self.store.set_ref(name, digest, expected=expected)
        elif expected not in (None, now):
            with pytest.raises(ReferenceChangedError):
                self.store.set_ref(name, digest, expected=expected)
        else:
            self.store.set_ref(name, digest, expected=expected)
            self.names[name] = digest

    @rule(name=NAMES)
    def forget(self, name: str) -> None:
        if name in self.names:
            self.store.delete_ref(name)
            del self.names[name]
        else:
            with pytest.raises(UnknownNameError):
                self.store.delete_ref(name)

    @rule()
    def collect_garbage(self) -> None:
        self.store.collect_garbage(0)
        reached = set(self.names.values())
        self.artifacts = {key: value for key, value in self.artifacts.items() if key in reached}
        needed = {c.digest for digest in reached for c in self.store.manifest(digest).chunks()}
        assert {path.name for path in blobs(self.store)} == needed

    @rule(content=CONTENT)
    def check_out(self, content: int) -> None:
        self.steps += 1
        out = self.root / f"out-{self.steps}"
        if self.digests[content] not in self.artifacts:
            with pytest.raises(NotInStoreError):
                self.store.checkout(self.digests[content], out)
        else:
            self.store.checkout(self.digests[content], out)
            assert read_files(out) == CONTENTS[content]

    @precondition(lambda self: self.artifacts)
    @rule(data=st.data())
    def damage_and_mend(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(blobs(self.store)))
        content = path.read_bytes()
        damage(path, content[: data.draw(st.integers(0, len(content) - 1))])
        assert any(path.name in problem for problem in self.store.verify().problems)
        assert self.store.verify(repair=True).set_aside == 1
        self.store.put_blob(content)

    @invariant()
    def holds_what_the_dictionaries_hold(self) -> None:
        assert visible(self.store) == (sorted(self.artifacts), dict(sorted(self.names.items())))
        assert self.store.verify().problems == ()


StoreTwin.TestCase.settings = settings(max_examples=12, stateful_step_count=25)
TestStoreTwin = StoreTwin.TestCase


def test_the_files_of_the_twin_share_content(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", durable=False)
    for number, files in enumerate(CONTENTS):
        add_files(store, write_files(tmp_path / str(number), files), files)
    stored = sum(path.stat().st_size for path in blobs(store))
    assert stored < 0.6 * sum(len(data) for files in CONTENTS for data in files.values())
