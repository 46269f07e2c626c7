"""Options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ASK = "What to plan for"
LIMIT = "What the answer may be"
DECIDE = "What to decide"
SHOW = "What to show"

Model = Annotated[
    str | None,
    typer.Option(metavar="NAME|config.json", help="A catalog name or a Hugging Face config.", rich_help_panel=ASK),
]
Gpus = Annotated[int | None, typer.Option(metavar="N", help="How many GPUs.", rich_help_panel=ASK)]
GpuCounts = Annotated[
    str | None,
    typer.Option(
        "--gpus", metavar="N|N,N|N..N", help="How many GPUs; several: a curve, 8..1024 doubles.", rich_help_panel=ASK
    ),
]
Gpu = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Which GPU (default h100; plan gpus lists them).", rich_help_panel=ASK),
]
Cluster = Annotated[
    Path | None, typer.Option(metavar="FILE.toml", help="Your own nodes and network.", rich_help_panel=ASK)
]
GpusPerNode = Annotated[
    int | None,
    typer.Option(metavar="N", help="GPUs in a node, where the default cluster's differ.", rich_help_panel=ASK),
]
SeqLen = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Tokens in a sequence (default min(8192, the model's longest)).", rich_help_panel=ASK
    ),
]
Lengths = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.csv",
        help="A step's sequences of mixed lengths: columns length, count.",
        rich_help_panel=ASK,
    ),
]
GlobalBatchSize = Annotated[
    int | None, typer.Option(metavar="N", help="Sequences in a step (default 4 Mi tokens' worth).", rich_help_panel=ASK)
]
Precision = Annotated[
    str | None, typer.Option(metavar="NAME", help="bf16, fp16, fp8, mxfp8, nvfp4, fp32 or tf32.", rich_help_panel=ASK)
]
Optimizer = Annotated[str | None, typer.Option(metavar="NAME", help="adamw, sgd or sgd-momentum.", rich_help_panel=ASK)]
GradReduceDtype = Annotated[
    str | None,
    typer.Option(metavar="DTYPE", help="In which dtype gradients are summed: fp32, bf16 or fp16.", rich_help_panel=ASK),
]
MoeImbalance = Annotated[
    float | None,
    typer.Option(
        metavar="F", help="The busiest rank's expert tokens over the mean (default 1.1).", rich_help_panel=ASK
    ),
]
MoeCapacityFactor = Annotated[
    float | None,
    typer.Option(metavar="F", help="Tokens beyond F times an expert's even share are dropped.", rich_help_panel=ASK),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Kernels as the framework's compiler fuses them.", rich_help_panel=ASK)
]
RuntimeName = Annotated[
    str | None,
    typer.Option(
        "--runtime", metavar="NAME", help="Which training framework (plan runtimes lists them).", rich_help_panel=ASK
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|none", help="A calibration file; default the one that plan calibrate left.", rich_help_panel=ASK
    ),
]
FitProbability = Annotated[
    float, typer.Option(metavar="P", help="The least probability of fitting in memory.", rich_help_panel=LIMIT)
]

Pareto = Annotated[
    bool,
    typer.Option(
        "--pareto", help="Plans in less memory too: the front of time, cost and memory.", rich_help_panel=DECIDE
    ),
]
Tokens = Annotated[
    str | None, typer.Option(metavar="15T", help="Tokens of the whole run: time and cost.", rich_help_panel=DECIDE)
]
Deadline = Annotated[
    str | None,
    typer.Option(metavar="30d", help="The fewest GPUs that train --tokens in this time.", rich_help_panel=DECIDE),
]
Price = Annotated[str | None, typer.Option(metavar="2.5", help="What a GPU-hour costs.", rich_help_panel=DECIDE)]
CriticalBatch = Annotated[
    str | None,
    typer.Option(
        metavar="TOKENS", help="Choose the batch size too: beyond this, more buys little.", rich_help_panel=DECIDE
    ),
]
Mtbf = Annotated[
    str | None,
    typer.Option(metavar="50000h", help="Mean time between failures of one GPU.", rich_help_panel=DECIDE),
]
CheckpointBandwidth = Annotated[
    str | None,
    typer.Option(metavar="2TB/s", help="What storage takes from all GPUs together.", rich_help_panel=DECIDE),
]
CheckpointInterval = Annotated[
    str | None,
    typer.Option(metavar="30min", help="Between checkpoints (default: the best).", rich_help_panel=DECIDE),
]
RestartTime = Annotated[
    str | None,
    typer.Option(metavar="10min", help="From a failure to the new start, less reading back.", rich_help_panel=DECIDE),
]
AsyncCheckpoints = Annotated[
    bool,
    typer.Option("--async-checkpoints", help="Write checkpoints while training goes on.", rich_help_panel=DECIDE),
]

Explain = Annotated[bool, typer.Option("--explain", help="Say more: every layer, every term.", rich_help_panel=SHOW)]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the plan file there.", rich_help_panel=SHOW)]
Plot = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Draw the curve: .png, .svg or .pdf (needs matplotlib).", rich_help_panel=SHOW),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.", rich_help_panel=SHOW)]

PlanFile = Annotated[str, typer.Argument(metavar="PLAN", help="A plan file; - is standard input.", show_default=False)]
