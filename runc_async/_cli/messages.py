"""What the runtime says when it fails → the class of the error, in one table.

The sentences are those of runc 1.1 to 1.5, crun 1.8 to 1.28 and gVisor's runsc of December 2022. What the table does
not know, and what no class fits better, is a plain `CommandError`: a program that is not found in the container,
permission denied, a cgroup that is gone.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, NamedTuple, cast

from .._errors import (
    BundleError,
    CommandError,
    ContainerExistsError,
    ContainerNotFoundError,
    ContainerNotRunningError,
    ContainerRunningError,
    InvalidContainerIdError,
    LogEntry,
    UnsupportedError,
    escape_controls,
)
from .commands import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["failure", "may_have_ended", "parse_log"]

# -- the table ---------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One sentence of the runtimes.

    :ivar sentence: a regular expression for the beginning of the message, after ``runc create failed:`` and
        the like.
    :ivar error: the class that it means.
    :ivar commands: the commands that it means this for; empty is every one.
    """

    sentence: str
    error: type[CommandError]
    commands: frozenset[str] = frozenset()


_STARTS = frozenset({"create", "run", "restore"})
_EXEC = frozenset({"exec"})
_BUNDLES = _STARTS | {"spec"}
_NOT_THERE = r"(no such (file|device)|not a directory)"

_REJECTIONS = (
    # It is not JSON, or has another shape.
    r"(unexpected )?EOF$|invalid character |json: |config cannot be null",
    r"reading spec: |(creating container: )?(spec|process) .*must be|Spec\.",  # runsc
    # The root file system.
    r"(root|`rootfsPath`) must be specified|unknown version specified",
    r"unable to start init: fork/exec \S+: not a directory",
    r"make `.*` private: (No such file|a component is not)|the rootfs path `[^`]*` does not exist|readlink ``: No such",
    # The process.
    r"((process|Cwd) property|args) must not be empty|Cwd must be an absolute|the current working directory is not an",
    r"block `process` not found|exec: \"\": |(cannot find|executable file) `` ",
    r"wrong rlimit value|bad CPUAffinity|scheduler |sched_set|io priority |selinux label is ",
    r"(unable to apply )?apparmor (profile|failed)",
    # Namespaces, and what needs one.
    r"malformed spec file|namespace .* does not exist|duplicate namespace type",
    r"(unable to create new parent process: )?namespace path: ",
    r"rootless containers? requires? |cannot specify .* mount option|could not find a user namespace mapping",
    r"(the )?sysctl |open (sysctl \S+ file|`?/proc/sys/\S+): ",
    r"unable to (set (host|domain)name|restrict sys|apply network|move network)|(host|domain)name requires the UTS",
    r"(user|time|cgroup) namespaces? |setting ucounts |write `/proc/self/timens_offsets`",
    r"netlink error while looking for interface|could not find device",
    # Seccomp.
    r"string \S* is not a valid |(unable to init |unknown )?seccomp\b|get_seccomp_operator",
    r"listenerPath is not set|errno value specified for action",
    # Limits, devices, other values. What begins with "invalid" is one, except the value of a flag.
    r"invalid (?!value )",
    r"unknown persona|memory policy |(requested )?linux NUMA mempolicy|requested NUMA",
    r"intelRdt|the resc?tr?l |statfs `/sys/fs/resctrl`",
    r"device access at |annotation |rootfsPropagation|expected cgroupsPath |cgroup: either Path",
    r"cannot set .* (with cgroupv2|without|less than)|.* not supported on cgroupv2",
    r"key `.*` must be|the specified key |(error setting cgroup config for procHooks process: )?unified resource ",
    # Mounts and hooks whose source, type, destination or program is not there.
    r"(cannot stat|open|openat2|open_tree) `[^`]*`: No such file",
    rf"(error mounting|failed to fulfil mount request|mount `).*: {_NOT_THERE}",
    r"override of the mount destination|.* cannot be mounted because|mount field contains|bind mounts cannot",
    rf"error running (\w+ )?hook #\d+: fork/exec \S+: {_NOT_THERE}",
)
"""How the rejection of a ``config.json`` begins. Not among them, since other failures say the same: crun's ``error
executing hook`` (also of a hook that ran and failed), runc 1.1's ``error closing exec fds`` (of a mount that hides
``/proc``)."""

TABLE: tuple[Row, ...] = (
    Row(r"container does not exist$", ContainerNotFoundError),
    Row(r"container `[^`]*` does not exist\b", ContainerNotFoundError),
    Row(r"error opening file `.*/status`: No such file", ContainerNotFoundError),  # crun to 1.20
    Row(r"cannot open directory [`'].*[`']: No such file", ContainerNotFoundError, frozenset({"delete"})),
    Row(r"loading (sandbox|container( \"[^\"]*\")?): file does not exist", ContainerNotFoundError),  # runsc
    Row(r"container with given ID already exists$", ContainerExistsError),
    Row(r"container with id exists: ", ContainerExistsError),  # runc 1.0
    Row(r"container `[^`]*` already exists$", ContainerExistsError),
    Row(r"creating container: .*container already exists$", ContainerExistsError),  # runsc
    Row(r"invalid (container )?id format", InvalidContainerIdError),
    Row(r"container id cannot be empty", InvalidContainerIdError),
    Row(r"invalid character `.*` in the container ID ", InvalidContainerIdError),
    Row(r"(creating container: )?invalid container ID[: ]", InvalidContainerIdError),
    Row(r"cannot create state directory for `([^`]*/|[^`]{256,}`)", InvalidContainerIdError),  # crun 1.8
    # Too long for a directory's name.
    Row(r"(l?stat|mkdir) \S*/[^/ ]{256,}: file name too long", InvalidContainerIdError),
    Row(r"[a-z ]+ `[^`]*/[^`/]{256,}(/status)?`: file name too long", InvalidContainerIdError),
    # Not running: neither created nor running nor, where it matters, paused.
    Row(r"container (with id \S+ is )?not running$", ContainerNotRunningError),
    Row(r"(the )?container `[^`]*` is not running\b", ContainerNotRunningError),
    Row(r"cannot (start a container that has|exec in a) stopped", ContainerNotRunningError),
    Row(r"container cannot be checkpointed in (created|stopped) state", ContainerNotRunningError),
    Row(r"(cannot exec in a paused container|container paused$)", ContainerNotRunningError),
    Row(r"the container `[^`]*` is paused$", ContainerNotRunningError),
    Row(r"kill container: No such process|container process not found", ContainerNotRunningError),
    Row(r"process not running|open pidfd: No such process", ContainerNotRunningError),
    Row(r".*container \"[^\"]*\" not started$|.*cannot .* container \"[^\"]*\" in state (stopped|paused)",
        ContainerNotRunningError),  # runsc
    Row(r"connecting to control server at PID |.*sandbox (is not|no longer) running", ContainerNotRunningError),
    # Running, or already started.
    Row(r"starting container: cannot start container \"[^\"]*\" in state (running|created)", ContainerRunningError),
    Row(r"cannot start (an already running container|a container in the \S+ state)", ContainerRunningError),
    Row(r"cannot open `.*/exec\.fifo`: No such file", ContainerRunningError, frozenset({"start"})),
    Row(r"cannot delete container \S+ that is not stopped", ContainerRunningError),
    Row(r"container (init )?still running$", ContainerRunningError),
    Row(r"the container `[^`]*` is not in `created` or `stopped` state", ContainerRunningError),
    # The container ended while the runtime was entering it. Other messages of that moment: `may_have_ended`.
    Row(r"nsexec.*failed to open /proc/\d+/ns/\w+: No such file", ContainerNotRunningError, _EXEC),
    Row(r"unable to create new parent process: namespace path: lstat /proc/\d+/", ContainerNotRunningError, _EXEC),
    Row(r"setns `\w+`: Bad file descriptor", ContainerNotRunningError, _EXEC),
    # The bundle, its config.json, its root file system; before `_REJECTIONS`, which say more of these.
    Row(r"chdir .*: (no such file|not a directory)", BundleError, _BUNDLES),
    Row(r"JSON specification file .* not found", BundleError),
    Row(r"(error loading|load) [`']?config\.json", BundleError),
    *(Row(sentence, BundleError, _STARTS) for sentence in _REJECTIONS),
    Row(r".*: invalid argument$", BundleError, frozenset({"create", "run"})),  # a value that the kernel refuses
)  # fmt: skip

_ROWS = tuple((re.compile(row.sentence, re.IGNORECASE), row) for row in TABLE)
_LEAD = re.compile(
    r"(runc \w+ failed: |exec failed: )?"
    r"(unable to start container process: )?(error during container init: )?"
)
_CONSEQUENCE = re.compile(r".*(can't get final child's PID from pipe|error executing setns process)|fail startup$")
"""What the runtime says after its own child has said why it failed."""
_MAY_HAVE_ENDED = re.compile(
    r"read init-p: connection reset|error writing config to pipe|procReady not received|reading from parent failed"
    r"|error executing setns process|nsexec-\w+\[\d+\]: (failed to sync|unable to spawn stage-\d: Cannot allocate)"
    r"|read pipe failed|write to sync socket: Broken pipe|fork: Cannot allocate memory|fail startup"
)
_CRASH = re.compile(r"^(runtime: failed|runtime/cgo: |fatal error: |panic: ).*", re.MULTILINE)
_UNKNOWN_FLAG = re.compile(
    r"(?:Incorrect Usage[:.] )?flag provided but not defined: -(?P<go>\S+)"
    r"|.*: unrecognized option '(?P<long>[^'=]+)"
    r"|.*: invalid option -- '(?P<short>.)'"
)
_UNKNOWN_COMMAND = re.compile(r"No help topic for '(?P<runc>.*)'|unknown command (?P<crun>\S+)$")
_UNKNOWN_SIGNAL = re.compile(r'unknown signal "(.*)"$')
_NO_DESCRIPTOR = re.compile(r"open(ing| log file)? .?/proc/self/fd/\d+.?: no such (file|device)", re.IGNORECASE)
_NO_PS_OPTIONS = re.compile(r".*`ps` requires a maximum of 1 arguments")

# -- logs --------------------------------------------------------------------------------------------------

_DECODER = json.JSONDecoder()
_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


def parse_log(data: bytes) -> tuple[LogEntry, ...]:
    """Read what the runtime wrote to its log or to its standard error.

    :param data: JSON objects (``--log-format json``; crun 1.28 spreads one over several lines), lines of
        logrus text (``time=… level=… msg=…``), plain lines, or a mixture.
    :returns: the entries in order, control characters written as escapes. A line that is none of these, or a broken
        one, is an entry of its own without a level, together with indented lines that follow it; nothing is dropped
        but empty lines, and nothing raises.
    """
    text = data.decode(errors="replace")
    entries: list[LogEntry] = []
    at = 0
    while at < len(text):
        if text[at] == "{":
            try:
                value, end = cast("tuple[dict[str, object], int]", _DECODER.raw_decode(text, at))
            except (ValueError, RecursionError):
                pass
            else:
                entries.append(_entry(value, text[at:end]))
                at = end
                continue
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = text[at:end].rstrip()
        at = end + 1
        if line[:1].isspace() and entries and not entries[-1].level:  # crun points into broken JSON like this
            entries[-1] = LogEntry(message=f"{entries[-1].message}\n{escape_controls(line)}")
        elif line:
            entries.append(_line(line.lstrip()))
    return tuple(entries)


def _line(line: str) -> LogEntry:
    if line.startswith(("time=", "level=")):
        return _entry({key: _unquote(value) for key, value in _FIELD.findall(line)}, line)
    return LogEntry(message=escape_controls(line))


def _entry(fields: Mapping[str, object], raw: str) -> LogEntry:
    level, message, error, time = (
        value if isinstance(value := fields.get(key), str) else "" for key in ("level", "msg", "error", "time")
    )
    message = ": ".join(filter(None, (message.strip(), error.strip())))  # runc's warnings have their cause aside
    return LogEntry(level=level, message=escape_controls(message or raw), time=time)


def _unquote(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:  # Go's own escapes, such as \x1b
        return value[1:-1]


# -- errors ------------------------------------------------------------------------------------------------


def failure(
    argv: Sequence[str],
    status: int,
    *,
    log: Sequence[LogEntry],
    stderr: bytes = b"",
    stdout: bytes = b"",
    version: str | None = None,
) -> CommandError:
    """Make the error that fits a failed call.

    :param argv: the command line, the runtime's name first.
    :param status: its exit status, ``-N`` for signal N.
    :param log: the entries of its log.
    :param stderr: what it wrote to standard error, as far as that is not the container's.
    :param stdout: likewise standard output, where runc 1.1 prints usage errors as well.
    :param version: the runtime's version, such as ``1.1.5``, for the sentence of an `UnsupportedError`. It
        may be left out, and the error made anew with it where it turns out to be one.
    :returns: an error of the class that the table says. Its message is the last error in the log, else the
        last word on standard error, else a sentence that says there was none.
    """
    message = (
        _decisive(log)
        or _crash(stderr)
        or _usage_error(stdout, stderr)
        or _decisive(parse_log(stderr))
        or _silence(status)
    )
    if _NO_DESCRIPTOR.match(message):
        reason = "the runtime did not get the descriptors of this call: what it is launched by closes them"
        return CommandError(argv, status, f"{reason} ({message})", log)
    command = _name_command(argv)
    if unsupported := _explain_unsupported(argv, command, message, version):
        return UnsupportedError(argv, status, unsupported, log)
    core = _LEAD.sub("", message, count=1)
    for pattern, row in _ROWS:
        if (not row.commands or command in row.commands) and pattern.match(core):
            return row.error(argv, status, message, log)
    return CommandError(argv, status, message, log)


def may_have_ended(error: CommandError) -> bool:
    """Whether an ``exec`` may have failed because its container was just ending.

    The runtimes then say that their own child has gone, which has other causes as well (a lack of memory); so the
    state has to be asked. Where the message tells it, `failure` has made a `ContainerNotRunningError` already.
    """
    return type(error) is CommandError and _MAY_HAVE_ENDED.match(_LEAD.sub("", error.message, count=1)) is not None


def _decisive(entries: Sequence[LogEntry]) -> str:
    """The last error, or the first one that it is a consequence of; without any, the last entry that has no level."""
    for levels in (("error", "fatal", "panic"), ("",)):
        found = [entry.message for entry in entries if entry.level in levels and entry.message]
        found = [message for message in found if not message.startswith("Try `")]
        if found:
            return found[0] if _CONSEQUENCE.match(found[-1]) else found[-1]
    return ""


def _crash(stderr: bytes) -> str:
    """What Go says before the stacks of a program that it ends."""
    found = _CRASH.search(stderr.decode(errors="replace"))
    return found[0] if found else ""


def _usage_error(stdout: bytes, stderr: bytes) -> str:
    """What comes before the runtime's help: runc's on standard output, runsc's on standard error."""
    for output in (stdout, stderr):
        first, _, _ = output.decode(errors="replace").partition("\n")
        if first.startswith(("Incorrect Usage", "flag provided but not defined", "Usage: runsc <")):
            return first
    return ""


def _silence(status: int) -> str:
    return f"the runtime was killed by signal {-status}" if status < 0 else "the runtime said nothing"


def _explain_unsupported(argv: Sequence[str], command: str, message: str, version: str | None) -> str:
    """The sentence for a flag or command that the runtime does not know, or an empty string."""
    runtime = os.path.basename(argv[0]) if argv else "the runtime"
    if version:
        runtime = f"{runtime} {version}"
    if message.startswith("Usage: runsc <") and command:  # all that runsc says of an unknown command
        return f"{runtime} has no command {command}"
    if unknown := _UNKNOWN_SIGNAL.match(message):
        return f"{runtime} kill cannot send signal {unknown[1]}"
    if unknown := _UNKNOWN_COMMAND.match(message):
        return f"{runtime} has no command {unknown['runc'] or unknown['crun']}"
    if _NO_PS_OPTIONS.match(message):
        return f"{runtime} ps takes no options of ps"
    if not (unknown := _UNKNOWN_FLAG.match(message)):
        return ""
    name = unknown["go"] or unknown["short"]
    # Go's flags name every flag with one dash, getopt's message gives a long one with its two.
    flag = unknown["long"] or f"{'-' if len(name) == 1 else '--'}{name}"
    return f"{runtime} {command} has no flag {flag}" if command else f"{runtime} has no flag {flag}"


def _name_command(argv: Sequence[str]) -> str:
    """Find the command in a command line: what follows the runtime's log, or else the first known word."""
    if "--log" in argv:
        return next((word for word in argv[argv.index("--log") + 2 :] if not word.startswith("-")), "")
    return next((word for word in argv[1:] if word in COMMANDS), "")
