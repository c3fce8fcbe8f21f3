"""A Google Cloud project for scripts: stand-ins for its programs (`fake_gcloud.sh`) in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

URL = "https://posthog-etl-abc-uc.a.run.app"
PROGRAMS = ("gcloud", "bq", "docker", "curl")


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeCloud:
    """Where the programs are, and what they keep."""

    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        """What makes a script meet these programs and no real ones."""
        return {"PATH": f"{self.folder}/bin:/usr/bin:/bin", "FAKE_CLOUD": str(self.folder)}

    @property
    def calls(self) -> list[list[str]]:
        """The commands so far, less those that only look."""
        log = self.folder / "log"
        text = log.read_text("utf-8") if log.exists() else ""
        calls = [call.split("\x1f")[:-1] for call in text.split("\x1e")[:-1]]
        return [call for call in calls if not {"describe", "list"} & set(call)]

    @property
    def things(self) -> set[str]:
        """What exists, as its kind and name."""
        return {path.name for path in (self.folder / "things").iterdir()}

    def answer(self, part: str, text: str) -> None:
        """Let a command that holds `part` print a text; an exclamation mark: let it fail."""
        (self.folder / "answers" / part).write_text(text)

    def forget(self) -> None:
        """Start a new log."""
        (self.folder / "log").unlink(missing_ok=True)


def install(folder: Path) -> FakeCloud:
    """Put the programs into a folder, with a project in which there is nothing."""
    for name in ("bin", "things", "answers"):
        (folder / name).mkdir(parents=True)
    for name in PROGRAMS:
        (folder / "bin" / name).symlink_to(Path(__file__).with_suffix(".sh"))
    return FakeCloud(folder=folder)
