"""The launcher of `sandbox.py`: isolates itself and becomes the interpreter. Run by its path, with the standard library alone.

    launcher SECONDS BYTES       the program comes by standard input, what it says first goes to standard output

The user inside is nobody's: with the exec all rights that making the namespace gave are gone, so nothing can be mounted again.
"""

import ctypes
import os
import resource
import signal
import sys

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, REMOUNT, BIND, REC, PRIVATE = 0x1, 0x2, 0x4, 0x20, 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
NOBODY = 65534
ROOT = "/tmp"
KEPT_FLAGS = ((os.ST_NOSUID, NOSUID), (os.ST_NODEV, NODEV), (8, 8), (1024, 1024), (2048, 2048), (4096, 0x200000))
"""Flags of a mount as statvfs tells them, and as mount takes them: what a user namespace may not loosen (noexec and times too)."""
OUTPUT = 64 * 1024
PROCESSES = 8
LIBC = ctypes.CDLL(None, use_errno=True)


def called(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind)]
    found = LIBC.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), None if data is None else data.encode())
    called(found, f"mount {target}")


def show(folder: str, inside: str) -> None:
    """Let a folder be seen, read-only."""
    place = ROOT + inside
    os.makedirs(place, exist_ok=True)
    mount(folder, place, None, BIND)
    held = os.statvfs(place).f_flag
    flags = sum(flag for told, flag in KEPT_FLAGS if held & told)
    mount(None, place, None, BIND | REMOUNT | RDONLY | NOSUID | flags)


def isolate() -> str:
    """Everything but the limits. Returns the interpreter as it is called inside."""
    user, group = os.getuid(), os.getgid()
    is_root = user == 0  # who needs no user namespace, and for whom a number of processes is no limit
    called(LIBC.unshare((0 if is_root else NEWUSER) | NEWNS | NEWNET | NEWPID | NEWIPC | NEWUTS), "unshare")
    if not is_root:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{NOBODY} {user} 1"),
            ("gid_map", f"{NOBODY} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    mount(None, "/", None, REC | PRIVATE)
    prefix = os.path.realpath(sys.base_prefix)
    interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    # Looked up before anything is covered.
    links = {name: os.readlink(f"/{name}") for name in ("lib", "lib64", "bin") if os.path.islink(f"/{name}")}
    folders = [f"/{name}" for name in ("usr", "lib", "lib64") if os.path.isdir(f"/{name}") and name not in links]
    source = os.open(prefix, os.O_PATH)
    mount("none", ROOT, "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    for folder in folders:
        show(folder, folder)
    for name, target in links.items():
        os.symlink(target, f"{ROOT}/{name}")
    if not interpreter.startswith("/usr/"):
        show(f"/proc/self/fd/{source}", "/python")
        interpreter = "/python" + interpreter.removeprefix(prefix)
    os.close(source)
    os.makedirs(ROOT + "/tmp")
    os.chmod(ROOT + "/tmp", 0o777)
    os.chroot(ROOT)
    os.chdir("/tmp")
    if is_root:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    return interpreter


def limit(seconds: int, memory: int) -> None:
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NPROC, PROCESSES),
        (resource.RLIMIT_FSIZE, OUTPUT),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def main() -> None:
    seconds, memory = int(sys.argv[1]), int(sys.argv[2])
    faults = os.dup(2)
    os.set_inheritable(faults, False)
    said, told = os.pipe()
    try:
        interpreter = isolate()
        null = os.open("/tmp/.quiet", os.O_WRONLY | os.O_CREAT)
        os.unlink("/tmp/.quiet")
        child = os.fork()  # the first process of its own numbering: with it, all others end
    except OSError as error:
        os.write(faults, str(error.strerror or error).encode())
        os._exit(97)
    if child == 0:
        os.close(said)
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        os.dup2(told, 1)
        os.dup2(null, 2)
        limit(seconds, memory)
        try:
            os.execve(interpreter, [interpreter, "-I", "-S", "-B", "-"], {"PYTHONHASHSEED": "0"})
        except OSError as error:
            os.write(faults, f"{interpreter}: {error.strerror}".encode())
            os._exit(97)
    os.close(told)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(seconds + 2)
    kept = b""
    while block := os.read(said, 4096):
        kept = (kept + block)[: OUTPUT + 1]
        if len(kept) > OUTPUT:
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.write(1, kept[:OUTPUT])
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
