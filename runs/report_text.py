"""A run's report as text for people. Not the JSON of the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runs.report import RunReport


def report_text(report: RunReport, *, width: int = 88) -> str:
    """The report as text: the request, all rows by outcome, the job's figures, and seconds."""
    from io import StringIO

    from rich.console import Console
    from rich.table import Table

    text = StringIO()
    console = Console(file=text, width=width, highlight=False)
    what = (report.kind or report.job).replace("_", " ") + (
        f", because {report.reason}" if report.reason else ""
    )
    published = ", dry run: nothing published" if report.dry_run else ""
    seconds = f" in {report.seconds:.0f} s" if report.seconds is not None else ""
    console.print(f"\n{report.status}{seconds}: {what}{published}\nrun {report.run_id}\n")
    if report.preface:
        console.print(f"{report.preface}\n")

    rows = Table("source rows", "", title=None, box=None, pad_edge=False)
    rows.columns[1].justify = "right"
    for account, count in sorted(report.counts.items(), key=lambda item: (-item[1], item[0])):
        rows.add_row(account.replace("_", " "), f"{count:,}")
    rows.add_row("= rows read or counted", f"{sum(report.counts.values()):,}")
    figures = []
    for title, counts in report.figures.items():
        figures.append(Table(title, "", box=None, pad_edge=False))
        figures[-1].columns[1].justify = "right"
        for name, count in counts.items():
            figures[-1].add_row(name, f"{count:,}")
    steps = Table("step", "seconds", box=None, pad_edge=False)
    steps.columns[1].justify = "right"
    for step in report.steps:
        steps.add_row(step.name, f"{step.seconds:.1f}")
    side_by_side = Table.grid(padding=(0, 6))
    side_by_side.add_row(rows, *figures, steps)
    console.print(side_by_side)

    summary = f"{report.summary}\n" if report.summary else ""
    console.print(
        f"\n{summary}"
        f"{report.bytes_processed / 1e6:,.0f} MB billed, {report.cost_usd:.4f} USD; "
        f"{report.peak_memory_bytes / 2**20:,.0f} MiB of memory at most"
    )
    for warning in report.warnings:
        console.print(f"warning: {warning}")
    return text.getvalue().rstrip("\n")
