"""The command ``plan``: which commands there are, and how each kind of ending reads and exits."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from costmodel.schema.errors import Infeasible, ParlayError
from planner.cli import (
    calibrate,
    catalogs,
    explain,
    predict,
    run,
    schedule,
    search,
    sensitivity,
    show,
    trace,
    ui,
    validate,
)

USAGE_ERROR: type[BaseException] = typer.BadParameter.__mro__[2]
"""Base of what the option parser raises; typer keeps its name private, and it has ``format_message()``."""

INTERRUPTED = 130
CLOSED_PIPE = 141


def build_app() -> typer.Typer:
    """The commands. Each module imports what it needs inside its function, so that building this costs little."""
    app = typer.Typer(
        name="plan",
        help="How should this model be laid out on these GPUs? Without a command: search.",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="rich",
    )
    app.callback(invoke_without_command=True)(search.search)
    app.command("predict")(predict.predict)
    app.command("validate")(validate.validate)
    app.command("schedule")(schedule.schedule)
    app.command("show")(show.show)
    app.command("explain")(explain.explain)
    app.command("sensitivity")(sensitivity.sensitivity)
    app.command("trace")(trace.trace)
    app.command("run")(run.run)
    app.command("calibrate")(calibrate.calibrate)
    app.command("models")(catalogs.models)
    app.command("gpus")(catalogs.gpus)
    app.command("runtimes")(catalogs.runtimes)
    app.command("constraints")(catalogs.constraints)
    app.command("ui")(ui.ui)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``plan`` and exit: 0 done, 1 infeasible, 2 bad input, 3 stopped without an answer, 130 on Ctrl-C.

    What the user can mend is one sentence on standard error and a hint; only a bug shows a traceback.
    """
    sys.exit(status_of(sys.argv[1:] if arguments is None else list(arguments)))


def status_of(arguments: Sequence[str]) -> int:
    """Run ``plan`` with these arguments and return its exit status."""
    try:
        # Not the app's own main(): it has endings of its own for interrupts and closed pipes.
        command = typer.main.get_command(build_app())
        with command.make_context("plan", list(arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
    except ParlayError as error:
        return _say(error)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has left. Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except typer.Exit as ending:
        return ending.exit_code
    except USAGE_ERROR as error:
        return _say_usage(error, arguments)
    return 0


def _say(error: ParlayError) -> int:
    print(f"error: {error.message}", file=sys.stderr)
    if isinstance(error, Infeasible):
        for reason in error.reasons:
            print(f"  - {reason}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_code


def _say_usage(error: BaseException, arguments: Sequence[str]) -> int:
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    command = context.command_path if context is not None else "plan"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    given = _as_given(parameter.opts, arguments) if parameter is not None else None
    if given is not None:
        message = f"{given}: {getattr(error, 'message', message)}"
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    print(f"hint: {command} --help lists what it takes", file=sys.stderr)
    return 2


def _as_given(spellings: Sequence[str], arguments: Sequence[str]) -> str | None:
    """``--gpus two`` as it was typed: the parser's own message names the option and not the value."""
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if option in spellings and value:
            return f"{option} {value}"
        if option.partition("=")[0] in spellings:
            return option
    return None


if __name__ == "__main__":
    main()
