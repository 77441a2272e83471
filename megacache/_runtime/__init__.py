"""How work runs: deadlines, threads, the life of the process, files on disk, texts."""

from megacache._runtime.deadline import Deadline
from megacache._runtime.disk import create_file, inner_folder, list_files, temporary_beside, write_whole
from megacache._runtime.process import forget, kept
from megacache._runtime.progress import Progress, ProgressCallback, quiet
from megacache._runtime.shutdown import at_shutdown, in_background, wait_no_longer
from megacache._runtime.stopwatch import Stopwatch
from megacache._runtime.text import MAX_SHORT_TEXT, MAX_SHOWN, counted, is_short_text, moment_of, printable, shown
from megacache._runtime.threads import WINDOW, DaemonExecutor, Done, Window, call, unordered, within_window

__all__ = [
    "MAX_SHORT_TEXT",
    "MAX_SHOWN",
    "WINDOW",
    "DaemonExecutor",
    "Deadline",
    "Done",
    "Progress",
    "ProgressCallback",
    "Stopwatch",
    "Window",
    "at_shutdown",
    "call",
    "counted",
    "create_file",
    "forget",
    "in_background",
    "inner_folder",
    "is_short_text",
    "kept",
    "list_files",
    "moment_of",
    "printable",
    "quiet",
    "shown",
    "temporary_beside",
    "unordered",
    "wait_no_longer",
    "within_window",
    "write_whole",
]
